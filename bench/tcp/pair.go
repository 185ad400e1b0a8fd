package tcp

import (
	"fmt"
	"slices"
	"strings"
)

// Side is what serves the pod at one end of a connection.
type Side string

// The sides.
const (
	Kernel  Side = "kernel"  // the kernel; the pod has a routed veth, as Calico makes it
	Culvert Side = "culvert" // culvertd; the pod has a veth
	Tap     Side = "tap"     // culvertd; the pod has a tap
)

// agent reports whether the side's node runs culvertd.
func (s Side) agent() bool { return s != Kernel }

// Pair are the two ends of a connection. The data goes from From to To.
type Pair struct {
	From Side `json:"from"`
	To   Side `json:"to"`
}

// String is how flags and reports name the pair: culvert-kernel.
func (p Pair) String() string { return string(p.From) + "-" + string(p.To) }

// baseline is the pair that all others are compared with.
var baseline = Pair{Kernel, Kernel}

// Wire is what joins the nodes.
type Wire string

// The wires.
const (
	NoWire Wire = ""        // both pods are on one node
	GSO    Wire = "gso"     // veths as they are: frames of up to 64 KB cross whole
	MTU    Wire = "mtu"     // no segmentation offload: no frame is longer than the MTU
	MTUGRO Wire = "mtu-gro" // the same, but the receiver merges, as a NIC's driver does
)

// Scenario is what lies between the pods, and which pairs are measured there.
type Scenario struct {
	Name  string
	Wire  Wire
	Pairs []Pair
}

// across are the pairs of two nodes.
var across = []Pair{
	baseline, {Culvert, Culvert}, {Culvert, Kernel}, {Kernel, Culvert},
	{Tap, Tap}, {Tap, Kernel}, {Kernel, Tap},
}

// standard are the scenarios of a run, in their order.
var standard = []Scenario{
	{"local", NoWire, []Pair{baseline, {Culvert, Culvert}, {Tap, Tap}}},
	{"local-mixed", NoWire, []Pair{baseline, {Culvert, Tap}, {Tap, Culvert}}},
	{"gso-wire", GSO, across},
	{"mtu-wire", MTU, across},
}

// extra are scenarios that run only when they are asked for.
var extra = []Scenario{{"mtu-wire-gro", MTUGRO, across}}

// Choose picks the named scenarios, the standard ones without names, and of
// their pairs those that pairs names, all without names, and that need no kind
// of pod but those in pods. All three are separated by commas. A scenario that
// has only the kernel left is left out, unless that was asked for.
func Choose(scenarios, pairs, pods string) ([]Scenario, error) {
	chosen := standard
	if scenarios != "" {
		chosen = nil
		for name := range strings.SplitSeq(scenarios, ",") {
			s, err := find(slices.Concat(standard, extra), name, func(s Scenario) string { return s.Name })
			if err != nil {
				return nil, fmt.Errorf("scenario %w", err)
			}
			chosen = append(chosen, s)
		}
	}
	keep, err := filter(pairs, pods)
	if err != nil {
		return nil, err
	}
	var all []Scenario
	for _, s := range chosen {
		s.Pairs = slices.DeleteFunc(slices.Clone(s.Pairs), func(p Pair) bool { return !keep(p) })
		alone := len(s.Pairs) == 1 && s.Pairs[0] == baseline && pairs == ""
		if len(s.Pairs) > 0 && !alone {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no scenario of %q has pairs of %q with pods of %q", scenarios, pairs, pods)
	}
	return all, nil
}

// filter says which pairs are wanted.
func filter(pairs, pods string) (func(Pair) bool, error) {
	named := make(map[Pair]bool)
	known := slices.Concat(across, standard[1].Pairs)
	for name := range strings.SplitSeq(pairs, ",") {
		if pairs == "" {
			break
		}
		p, err := find(known, name, Pair.String)
		if err != nil {
			return nil, fmt.Errorf("pair %w", err)
		}
		named[p] = true
	}
	sides := map[Side]bool{Kernel: true}
	for kind := range strings.SplitSeq(pods, ",") {
		switch kind {
		case "veth":
			sides[Culvert] = true
		case "tap":
			sides[Tap] = true
		default:
			return nil, fmt.Errorf("pods %q: a pod has a veth or a tap", kind)
		}
	}
	return func(p Pair) bool {
		return (len(named) == 0 || named[p]) && sides[p.From] && sides[p.To]
	}, nil
}

// find is the element with a name. Its error lists what there is.
func find[T any](all []T, name string, of func(T) string) (T, error) {
	i := slices.IndexFunc(all, func(x T) bool { return of(x) == name })
	if i >= 0 {
		return all[i], nil
	}
	var names []string
	for _, x := range all {
		if !slices.Contains(names, of(x)) {
			names = append(names, of(x))
		}
	}
	var none T
	return none, fmt.Errorf("%q is unknown: there are %s", name, strings.Join(names, ", "))
}
