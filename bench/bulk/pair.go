package bulk

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

// baseline is the pair that does without Culvert.
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

// Scenarios are all there are.
var Scenarios = []Scenario{
	{"local", NoWire, []Pair{baseline, {Culvert, Culvert}, {Tap, Tap}}},
	{"local-mixed", NoWire, []Pair{baseline, {Culvert, Tap}, {Tap, Culvert}}},
	{"gso-wire", GSO, across},
	{"mtu-wire", MTU, across},
	{"mtu-wire-gro", MTUGRO, across},
}
