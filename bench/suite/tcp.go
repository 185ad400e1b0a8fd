package suite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"culvert/bench/result"
	"culvert/bench/run"
	"culvert/bench/tcp"
)

// scenarios say of package tcp's scenarios what they are.
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
	if s.Wire != tcp.NoWire {
		s.Pairs = slices.DeleteFunc(s.Pairs, hasTap)
	}
	return o.tcpOf(s, "tcp-"+scenario)
}

// tcpOfTaps has the pods of TAPs that tcp leaves out, and the kernel.
func (o *Options) tcpOfTaps(scenario string) run.Experiment {
	s := find(scenario)
	s.Pairs = slices.DeleteFunc(s.Pairs, func(p tcp.Pair) bool { return !hasTap(p) && kernelEnds(p) < 2 })
	return o.tcpOf(s, "tcp-"+scenario+"-tap")
}

// find is a copy of the scenario with a name, which there is.
func find(scenario string) tcp.Scenario {
	n := slices.IndexFunc(tcp.Scenarios, func(s tcp.Scenario) bool { return s.Name == scenario })
	s := tcp.Scenarios[n]
	s.Pairs = slices.Clone(s.Pairs)
	return s
}

func hasTap(p tcp.Pair) bool { return p.From == tcp.Tap || p.To == tcp.Tap }

func (o *Options) tcpOf(s tcp.Scenario, name string) run.Experiment {
	head := scenarios[s.Name]
	head.Name, head.Metric = name, result.Gbits
	head.Definition = name
	head.About += " iperf3, default offloads and congestion control."
	connections := []int{1, 8}
	if o.quick() {
		connections = []int{1}
	}
	for _, n := range connections {
		name := fmt.Sprintf("%d connections", n)
		if n == 1 {
			name = "1 connection"
		}
		head.Cases = append(head.Cases, result.Case{Name: name})
		head.Definition += fmt.Sprintf("%s %d;", s.Wire, n)
	}
	e := run.Experiment{Head: head}
	options := tcp.Options{Bin: o.Bin, Seconds: int(math.Ceil(o.Timing.Duration.Seconds())), WarmUp: 1}
	for _, p := range o.pairs(s) {
		e.Subjects = append(e.Subjects, run.Subject{
			Device: p.String(), Takes: setupTime + time.Duration(len(connections)*(options.Seconds+options.WarmUp))*time.Second,
			Check: func() error { return tcp.Check(options, s, p) },
			Turn: func(ctx context.Context, found func(int, run.Finding)) error {
				return tcp.Measure(ctx, options, s, p, connections, func(n int, m tcp.Measurement) {
					found(slices.Index(connections, n), tcpFinding(&m))
				})
			},
		})
	}
	return e
}

// pairs are those of the scenario, Culvert's own first; in the quick set only that
// and the kernel's.
func (o *Options) pairs(s tcp.Scenario) []tcp.Pair {
	pairs := slices.Clone(s.Pairs)
	slices.SortStableFunc(pairs, func(a, b tcp.Pair) int { return kernelEnds(a) - kernelEnds(b) })
	if o.quick() {
		pairs = slices.DeleteFunc(pairs, func(p tcp.Pair) bool { return hasTap(p) || p.From != p.To })
	}
	return pairs
}

// kernelEnds is how many ends of a pair the kernel serves.
func kernelEnds(p tcp.Pair) (n int) {
	for _, side := range []tcp.Side{p.From, p.To} {
		if side == tcp.Kernel {
			n++
		}
	}
	return n
}

func tcpFinding(m *tcp.Measurement) run.Finding {
	f := run.Finding{
		Note: m.Congestion + " congestion control",
		Values: map[string]float64{
			result.Gbits: m.Gbits, result.Retransmits: float64(m.Retransmits),
			result.CoresBusy: m.CoresBusy, result.DeviceCores: m.AgentCores,
		},
	}
	if len(m.Drops) > 0 {
		f.Note += fmt.Sprintf(", dropped: %v", m.Drops)
	}
	return f
}
