package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"culvert/bench/forward"
	"culvert/bench/load"
	"culvert/bench/peer"
	"culvert/bench/result"
	"culvert/bench/run"
	"culvert/bench/testbed"
)

// entries are all experiments, in the order in which they run.
var entries = []entry{
	{name: "encap-size", make: func(o *Options) run.Experiment { return o.sizes(forward.Encap) }, quick: true},
	{name: "decap-size", make: func(o *Options) run.Experiment { return o.sizes(forward.Decap) }, quick: true},
	{name: "both-ways", rounds: 3, make: (*Options).bothWays},
	{name: "zero-loss", make: (*Options).zeroLoss},
	{name: "cost", rounds: 3, make: (*Options).cost},
	{name: "latency", make: (*Options).latency, quick: true},
	{name: "latency-bounds", make: (*Options).latencyBounds, extra: true},
	{name: "transactions", rounds: 2, make: (*Options).transactions},
	{name: "connections", rounds: 3, make: (*Options).connections},
	{name: "lanes", rounds: 2, make: (*Options).lanesOf},
	{name: "flows", rounds: 2, make: (*Options).flows},
	{name: "patterns", rounds: 3, make: (*Options).patterns},
	{name: "pods", rounds: 3, make: (*Options).pods},
	{name: "routes", rounds: 3, make: (*Options).routes},
	{name: "ipip", make: (*Options).ipip},
	{name: "tcp-local", rounds: 2, make: func(o *Options) run.Experiment { return o.tcp("local") }, quick: true},
	{name: "udp-local", rounds: 2, make: func(o *Options) run.Experiment { return o.udp("local") }},
	{name: "udp-mtu-wire", make: func(o *Options) run.Experiment { return o.udp("mtu-wire") }, extra: true},
	{name: "tcp-mtu-wire", rounds: 2, make: func(o *Options) run.Experiment { return o.tcp("mtu-wire") }},
	{name: "tcp-gso-wire", rounds: 2, make: func(o *Options) run.Experiment { return o.tcp("gso-wire") }},
	{name: "tcp-mtu-wire-tap", make: func(o *Options) run.Experiment { return o.tcpOfTaps("mtu-wire") }, extra: true},
	{name: "tcp-gso-wire-tap", make: func(o *Options) run.Experiment { return o.tcpOfTaps("gso-wire") }, extra: true},
	{name: "tcp-mtu-wire-gro", make: func(o *Options) run.Experiment { return o.tcp("mtu-wire-gro") }, extra: true},
	{name: "tcp-local-mixed", make: func(o *Options) run.Experiment { return o.tcp("local-mixed") }, extra: true},
}

// sizes are frames of all lengths.
func (o *Options) sizes(d forward.Direction) run.Experiment {
	head := result.Experiment{
		Name: "encap-size", Title: "A pod's packets leave in VXLAN, by length",
		About: "UDP of 256 flows, as fast as the generator makes it; counted on the wire. " +
			"The devices with a polling thread have one, on a processor of their own.",
		Axis: "length of the pod's frame, bytes", Log: true,
	}
	if d == forward.Decap {
		head.Name, head.Title = "decap-size", "Packets in VXLAN reach a pod, by length"
		head.About = "The same backwards: VXLAN frames arrive at the uplink and are counted in the pod."
	}
	lengths := []int{64, 512, longest}
	if o.quick() {
		lengths = []int{64, longest}
	}
	var points []point
	for _, n := range lengths {
		points = append(points, point{
			name: fmt.Sprintf("%d B", n), x: float64(n), load: forward.Load{Direction: d, Sizes: load.Fixed(n), Flows: 256},
		})
	}
	return o.forwarding(head, o.standard(), points)
}

// longest is the length of the longest frame of pods behind VXLAN.
const longest = testbed.PodMTU + 14

// bothWays loads both directions at once.
func (o *Options) bothWays() run.Experiment {
	head := result.Experiment{
		Name: "both-ways", Title: "Both directions at once",
		About: "Two generators on one processor take turns: one sends from the pod, one from the wire; what both sinks count, together.",
	}
	return o.forwarding(head, o.few(), []point{
		{name: "64 B", load: forward.Load{Direction: forward.Both, Sizes: load.Fixed(64), Flows: 256}},
		{name: "IMIX", load: forward.Load{Direction: forward.Both, Sizes: load.IMIX(longest), Flows: 256}},
	})
}

// cost is what a packet costs where nothing is full.
func (o *Options) cost() run.Experiment {
	head := result.Experiment{
		Name: "cost", Title: "Processor time for a packet, at rates that all can do", Metric: result.NanosPacket,
		About: "64-byte frames of 256 flows, encapsulated, in bursts from a generator that sleeps between them; the whole machine's " +
			"processor time without the generator's. A device that polls looks for frames between the bursts, too; culvert-interrupt sleeps instead.",
		Axis: "packets a second",
	}
	var points []point
	for _, rate := range []float64{50_000, 100_000, 200_000} {
		points = append(points, point{name: fmt.Sprintf("%.0f/s", rate), x: rate, load: forward.Load{
			Direction: forward.Encap, Sizes: load.Fixed(64), Flows: 256, Rate: rate, Sleeps: true,
		}})
	}
	devices := o.few()
	asleep := peer.Culvert{Bin: o.Bin, Mode: "auto", Poll: "interrupt"}
	return o.forwarding(head, slices.Insert(devices, len(devices)-2, peer.Device(asleep)), points)
}

// lanesOf compares Culvert with itself.
func (o *Options) lanesOf() run.Experiment {
	head := result.Experiment{
		Name: "lanes", Title: "Culvert's ways to attach and to poll",
		About: "64-byte frames of 256 flows, both ways. culvert is as by default, the others have xdp.mode and poll as their " +
			"names say; bare is the least that a forwarder on Culvert's sockets can be, without tables and flows.",
	}
	var points []point
	for _, d := range []forward.Direction{forward.Encap, forward.Decap} {
		points = append(points, point{name: string(d), load: forward.Load{Direction: d, Sizes: load.Fixed(64), Flows: 256}})
	}
	return o.forwarding(head, o.lanes(), points)
}

// flows has more and more of them.
func (o *Options) flows() run.Experiment {
	head := result.Experiment{
		Name: "flows", Title: "Many flows at once",
		About: "64-byte frames, encapsulated; each flow has its turn. A flow is a connection that Culvert tracks; the kernel " +
			"here tracks none. A million takes a larger table: nobody answers, and of such flows a pod may have an eighth of it.",
		Axis: "flows", Log: true,
	}
	var points []point
	for _, n := range []int{1000, 100_000, 1_000_000} {
		p := point{name: fmt.Sprint(n), x: float64(n), load: forward.Load{Direction: forward.Encap, Sizes: load.Fixed(64), Flows: n}}
		if n > 200_000 {
			p.setup.Flows = n
		}
		points = append(points, p)
	}
	return o.forwarding(head, o.few(), points)
}

// patterns are other loads than frames of one length of flows that take turns.
func (o *Options) patterns() run.Experiment {
	head := result.Experiment{
		Name: "patterns", Title: "Popular flows, new ones all the time, mixed lengths",
		About: "Encapsulated, 64-byte frames but for IMIX (seven of 64, four of 570, one of 1464 bytes). By Zipf's law a few flows have most " +
			"of the frames. Where every 25th frame is the first of a new flow, half a million packets a second are 20,000 new flows a second.",
	}
	frames := func(flows int, zipf float64, newEvery int) forward.Load {
		return forward.Load{Direction: forward.Encap, Sizes: load.Fixed(64), Flows: flows, Zipf: zipf, NewEvery: newEvery}
	}
	return o.forwarding(head, o.few(), []point{
		{name: "100,000, Zipf", load: frames(100_000, 1, 0)},
		{name: "1,000, every 25th frame new", load: frames(1000, 0, 25)},
		{name: "100,000, every 25th frame new", load: frames(100_000, 0, 25)},
		{name: "IMIX, 1,000 flows", load: forward.Load{Direction: forward.Encap, Sizes: load.IMIX(longest), Flows: 1000}},
	})
}

// pods has more and more of them on the node.
func (o *Options) pods() run.Experiment {
	head := result.Experiment{
		Name: "pods", Title: "Many pods on the node",
		About: "64-byte frames of 256 flows, encapsulated; all pods send. Open vSwitch takes half a minute to start with a hundred of them.",
		Axis:  "pods", Log: true,
	}
	return o.forwarding(head, append(o.culvert(), peer.Kernel{}), grown([]int{1, 10, 100}, func(n int) peer.Options { return peer.Options{Pods: n} }))
}

// routes has more and more nodes beyond the wire.
func (o *Options) routes() run.Experiment {
	head := result.Experiment{
		Name: "routes", Title: "Many nodes in the cluster",
		About: "64-byte frames to all of them, encapsulated; each node has a route, a neighbour and a VTEP.",
		Axis:  "nodes", Log: true,
	}
	return o.forwarding(head, append(o.culvert(), peer.Kernel{}), grown([]int{1, 1000, 10_000}, func(n int) peer.Options { return peer.Options{Peers: n} }))
}

func grown(sizes []int, setup func(n int) peer.Options) (points []point) {
	for _, n := range sizes {
		points = append(points, point{
			name: fmt.Sprint(n), x: float64(n), setup: setup(n),
			load: forward.Load{Direction: forward.Encap, Sizes: load.Fixed(64), Flows: max(256, n)},
		})
	}
	return points
}

// zeroLoss searches the rate that each device forwards without loss.
func (o *Options) zeroLoss() run.Experiment {
	head := result.Experiment{
		Name: "zero-loss", Title: "The highest rate without loss", Metric: result.ZeroLoss,
		About: fmt.Sprintf("64-byte frames of 256 flows; the rate is searched by halves, with at most one frame of %.0f lost (RFC 2544, "+
			"section 26.1, allows none).", 1/forward.LossAllowed),
	}
	var loads []forward.Load
	for _, d := range []forward.Direction{forward.Encap, forward.Decap} {
		loads = append(loads, forward.Load{Direction: d, Sizes: load.Fixed(64), Flows: 256})
		head.Cases = append(head.Cases, result.Case{Name: string(d)})
		head.Definition += fmt.Sprintf("%+v;", loads[len(loads)-1])
	}
	e := run.Experiment{Head: head, Rounds: 2}
	for _, d := range o.few() {
		e.Subjects = append(e.Subjects, run.Subject{
			Device: d.Name(), Check: func() error { return d.Check(peer.Options{}) },
			Takes: setupTime + time.Duration(len(loads))*(o.Timing.WarmUp+5*o.Timing.Duration),
			Turn: func(ctx context.Context, found func(int, run.Finding)) error {
				return o.zeroLossTurn(ctx, d, loads, found)
			},
		})
	}
	return e
}

func (o *Options) zeroLossTurn(ctx context.Context, d peer.Device, loads []forward.Load, found func(int, run.Finding)) (err error) {
	i, err := d.Start(ctx, peer.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	for n, l := range loads {
		rate, err := forward.ZeroLoss(ctx, o.Timing, l, i)
		if err != nil {
			return err
		}
		found(n, run.Finding{Note: i.Note, Values: map[string]float64{result.ZeroLoss: rate / 1e6}})
	}
	return nil
}

// ipip is the other tunnel.
func (o *Options) ipip() run.Experiment {
	head := result.Experiment{
		Name: "ipip", Title: "IPIP",
		About: "64-byte frames of 256 flows leave in IPv4 in IPv4, as Calico sets it up, over a wire of MTU-sized frames.",
	}
	setup := peer.Options{Encap: peer.IPIP, Wire: testbed.MTUWire}
	return o.forwarding(head, append(o.culvert(), peer.Kernel{}), []point{
		{name: "encap", setup: setup, load: forward.Load{Direction: forward.Encap, Sizes: load.Fixed(64), Flows: 256}},
	})
}
