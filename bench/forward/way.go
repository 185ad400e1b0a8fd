package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/bench/load"
	"culvert/bench/peer"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"
)

// way is where the frames of one direction come from and where they arrive.
type way struct {
	direction Direction
	from, to  *testbed.Space
	arrivals  []int // interface indexes of the sinks, in to
	match     xdpgen.Match
	ifindex   int // the wire's, in from, for frames that come from there
}

// ipip is the protocol of IPv4 in IPv4 (RFC 2003).
const ipip = 4

// ways are those of a load's directions.
func ways(d Direction, i *peer.Instance) ([]way, error) {
	b := i.Bed
	wire, err := b.Wire.Link(testbed.WireDevice)
	if err != nil {
		return nil, err
	}
	match := xdpgen.Match{Port: testbed.Port}
	if i.Options.Encap == peer.IPIP {
		match = xdpgen.Match{Protocol: ipip}
	}
	encap := way{direction: Encap, from: b.Pod, to: b.Wire, arrivals: []int{wire.Index}, match: match}
	decap := way{direction: Decap, from: b.Wire, to: b.Pod, ifindex: wire.Index}
	for _, p := range b.Pods {
		decap.arrivals = append(decap.arrivals, p.Ifindex)
	}
	switch d {
	case Encap:
		return []way{encap}, nil
	case Decap:
		return []way{decap}, nil
	}
	return []way{encap, decap}, nil
}

// maxFrames bounds every generator.
const maxFrames = 1 << 32

// config is the generator's for a way.
func (w *way) config(l Load, t Timing, i *peer.Instance) load.Config {
	cfg := load.Config{
		NextHop: testbed.GatewayMAC, Sizes: l.Sizes, Flows: l.Flows, Zipf: l.Zipf, NewEvery: l.NewEvery, Rate: l.Rate,
		MaxFrames: maxFrames, MaxTime: firstFrame + t.WarmUp + time.Duration(l.Flows)*warmUpFlow + t.Duration + 5*time.Second,
		CPU: t.GeneratorCPU, Enter: w.from.Enter,
	}
	if w.direction == Encap {
		for _, p := range i.Bed.Pods {
			cfg.Outs = append(cfg.Outs, load.Out{Device: p.Ifindex, MAC: p.MAC, Addr: p.Addr})
		}
		for _, p := range i.Bed.Peers {
			cfg.Destinations = append(cfg.Destinations, p.Pod())
		}
		return cfg
	}
	for _, p := range i.Bed.Peers {
		cfg.Outs = append(cfg.Outs, load.Out{Device: w.ifindex, MAC: p.VTEP, Addr: p.Pod(), Peer: p.Addr})
	}
	for _, p := range i.Bed.Pods {
		cfg.Destinations = append(cfg.Destinations, p.Addr)
	}
	cfg.NextHop = testbed.NodeVTEP
	cfg.Tunnel = &load.Tunnel{
		Kind: load.VXLAN, SrcMAC: testbed.WireMAC, DstMAC: testbed.UplinkMAC, Dst: testbed.NodeAddr,
		Port: testbed.Port, VNI: testbed.VNI,
	}
	if i.Options.Encap == peer.IPIP {
		cfg.Tunnel.Kind = load.IPIP
	}
	return cfg
}

// bench is a load that is on: the generator and the sink of each way.
type bench struct {
	load  Load
	ttl   uint8 // of what arrives
	ways  []way
	gens  []load.Generator
	sinks []*xdpgen.Sink
}

// begin puts sinks where the load arrives and starts its generators.
func begin(ctx context.Context, t Timing, l Load, i *peer.Instance) (*bench, error) {
	all, err := ways(l.Direction, i)
	if err != nil {
		return nil, err
	}
	return beginOn(ctx, t, l, i, all)
}

func beginOn(ctx context.Context, t Timing, l Load, i *peer.Instance, all []way) (*bench, error) {
	b := &bench{load: l, ttl: t.ttl(), ways: all}
	for n := range all {
		if err := b.attach(&all[n]); err != nil {
			return nil, errors.Join(err, b.end())
		}
	}
	for n := range all {
		gen, err := t.start(ctx, &l, all[n].config(l, t, i))
		if err != nil {
			return nil, errors.Join(err, b.end())
		}
		b.gens = append(b.gens, gen)
	}
	return b, nil
}

func (b *bench) attach(w *way) error {
	return w.to.Do(func() error {
		sink, err := xdpgen.Attach(w.match, w.arrivals...)
		if err != nil {
			return err
		}
		b.sinks = append(b.sinks, sink)
		return nil
	})
}

// end stops the generators and takes the sinks away.
func (b *bench) end() (err error) {
	for _, gen := range b.gens {
		err = errors.Join(err, gen.Stop())
	}
	for _, sink := range b.sinks {
		err = errors.Join(err, sink.Close())
	}
	b.gens, b.sinks = nil, nil
	return err
}

// counts are those of every sink.
func (b *bench) counts() (all []xdpgen.Counts, err error) {
	for _, s := range b.sinks {
		c, err := s.Counts()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// least are the counts of the sink that has seen the fewest.
func (b *bench) least() (least xdpgen.Counts, err error) {
	all, err := b.counts()
	for n, c := range all {
		if n == 0 || c.Packets < least.Packets {
			least = c
		}
	}
	return least, err
}

// offered is how many frames were generated so far.
func (b *bench) offered() (sum uint64, err error) {
	for _, gen := range b.gens {
		n, err := gen.Generated()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// running reports whether no generator has come to its bounds.
func (b *bench) running() bool {
	for _, gen := range b.gens {
		if !gen.Running() {
			return false
		}
	}
	return true
}

// check looks into what the sinks have kept.
func (b *bench) check(i *peer.Instance) error {
	for n, s := range b.sinks {
		samples, err := s.Samples()
		if err != nil {
			return err
		}
		l := b.load
		l.Direction = b.ways[n].direction
		if err := checkSamples(l, b.ttl, i, samples); err != nil {
			return fmt.Errorf("%s: %w", l.Direction, err)
		}
	}
	return nil
}
