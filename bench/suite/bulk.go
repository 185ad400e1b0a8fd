package suite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"culvert/bench/bulk"
	"culvert/bench/result"
	"culvert/bench/run"
	"culvert/bench/testbed"
)

// scenarios say of package bulk's scenarios what they are.
var scenarios = map[string]result.Experiment{
	"local":        {Title: "TCP between pods of one node", About: "Both pods are on one node: veths as they are, frames of up to 64 KB and more."},
	"local-mixed":  {Title: "TCP between pods of different kinds on one node", About: "One pod has a veth, the other a TAP."},
	"mtu-wire":     {Title: "TCP across nodes, over a wire as a NIC's", About: "No frame on the wire is longer than the MTU of 1500: offloads are off there."},
	"gso-wire":     {Title: "TCP across nodes, over a wire that passes big frames", About: "Frames of up to 64 KB cross whole, as between virtual machines of one host."},
	"mtu-wire-gro": {Title: "TCP across nodes, over a wire as a NIC's, with GRO", About: "As over a NIC's wire, and what arrives is merged by the kernel."},
}

// tcp measures bulk TCP. Its devices are named by what serves the sender's and the
// receiver's end.
func (o *Options) tcp(scenario string) run.Experiment {
	s := find(scenario)
	if s.Wire != bulk.NoWire {
		s.Pairs = slices.DeleteFunc(s.Pairs, hasTap)
	}
	return o.bulk(s, "tcp-"+scenario, 0)
}

// datagramLen is the length of bulk UDP's datagrams: what the pods' MTU takes.
const datagramLen = testbed.PodMTU - 20 - 8

// udp measures bulk UDP between the same ends.
func (o *Options) udp(scenario string) run.Experiment {
	s := find(scenario)
	s.Pairs = slices.DeleteFunc(s.Pairs, hasTap)
	return o.bulk(s, "udp-"+scenario, datagramLen)
}

// tcpOfTaps has the pods of TAPs that tcp leaves out, and the kernel.
func (o *Options) tcpOfTaps(scenario string) run.Experiment {
	s := find(scenario)
	s.Pairs = slices.DeleteFunc(s.Pairs, func(p bulk.Pair) bool { return !hasTap(p) && kernelEnds(p) < 2 })
	return o.bulk(s, "tcp-"+scenario+"-tap", 0)
}

// find is a copy of the scenario with a name, which there is.
func find(scenario string) bulk.Scenario {
	n := slices.IndexFunc(bulk.Scenarios, func(s bulk.Scenario) bool { return s.Name == scenario })
	s := bulk.Scenarios[n]
	s.Pairs = slices.Clone(s.Pairs)
	return s
}

func hasTap(p bulk.Pair) bool { return p.From == bulk.Tap || p.To == bulk.Tap }

// bulk is an experiment with iperf3: UDP if datagrams have a length, or TCP.
func (o *Options) bulk(s bulk.Scenario, name string, datagrams int) run.Experiment {
	head := scenarios[s.Name]
	head.Name, head.Metric, head.Definition = name, result.Gbits, name
	connections := []int{1, 8}
	unit, about := "connection", " iperf3, default offloads and congestion control."
	if datagrams > 0 {
		connections = []int{1}
		unit, about = "sender", fmt.Sprintf(" iperf3 sends datagrams of %d bytes as fast as it can; what arrives is counted.", datagrams)
		head.Title = strings.Replace(head.Title, "TCP", "UDP", 1)
	}
	if o.quick() {
		connections = []int{1}
	}
	head.About += about
	for _, n := range connections {
		name := fmt.Sprintf("%d %s", n, unit)
		if n > 1 {
			name += "s"
		}
		head.Cases = append(head.Cases, result.Case{Name: name})
		head.Definition += fmt.Sprintf("%s %d %d;", s.Wire, n, datagrams)
	}
	e := run.Experiment{Head: head}
	options := bulk.Options{Bin: o.Bin, Seconds: int(math.Ceil(o.Timing.Duration.Seconds())), WarmUp: 1, Datagrams: datagrams}
	for _, p := range o.pairs(s) {
		e.Subjects = append(e.Subjects, run.Subject{
			Device: p.String(), Takes: setupTime + time.Duration(len(connections)*(options.Seconds+options.WarmUp))*time.Second,
			Check: func() error { return bulk.Check(options, s, p) },
			Turn: func(ctx context.Context, found func(int, run.Finding)) error {
				return bulk.Measure(ctx, options, s, p, connections, func(n int, m bulk.Measurement) {
					found(slices.Index(connections, n), bulkFinding(&m, datagrams > 0))
				})
			},
		})
	}
	return e
}

// pairs are those of the scenario, Culvert's own first; in the quick set only that
// and the kernel's.
func (o *Options) pairs(s bulk.Scenario) []bulk.Pair {
	pairs := slices.Clone(s.Pairs)
	slices.SortStableFunc(pairs, func(a, b bulk.Pair) int { return kernelEnds(a) - kernelEnds(b) })
	if o.quick() {
		pairs = slices.DeleteFunc(pairs, func(p bulk.Pair) bool { return hasTap(p) || p.From != p.To })
	}
	return pairs
}

// kernelEnds is how many ends of a pair the kernel serves.
func kernelEnds(p bulk.Pair) (n int) {
	for _, side := range []bulk.Side{p.From, p.To} {
		if side == bulk.Kernel {
			n++
		}
	}
	return n
}

func bulkFinding(m *bulk.Measurement, datagrams bool) run.Finding {
	f := run.Finding{Values: map[string]float64{
		result.Gbits: m.Gbits, result.CoresBusy: m.CoresBusy, result.DeviceCores: m.AgentCores,
	}}
	var notes []string
	if datagrams {
		f.Values[result.Loss] = m.Lost
	} else {
		f.Values[result.Retransmits] = float64(m.Retransmits)
		notes = append(notes, m.Congestion+" congestion control")
	}
	if len(m.Drops) > 0 {
		notes = append(notes, fmt.Sprintf("dropped: %v", m.Drops))
	}
	f.Note = strings.Join(notes, ", ")
	return f
}
