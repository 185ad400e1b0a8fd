package api

import "time"

// Status is the answer to GET /v1/status.
type Status struct {
	// Ready says that the node carries pod traffic as configured.
	Ready bool `json:"ready"`
	// Reasons say what is missing while Ready is false, a sentence each.
	Reasons []string `json:"reasons,omitempty"`
	// Degraded says what is wrong although the node is ready: a bad manifest,
	// two peers that claim one prefix.
	Degraded []string `json:"degraded,omitempty"`
	Node     string   `json:"node"`
	Mode     string   `json:"mode"`  // native, calico or flannel
	Encap    string   `json:"encap"` // vxlan, ipip or none
	// MTU is the pods'.
	MTU     int      `json:"mtu"`
	Workers []Worker `json:"workers"`
	Uplinks []Uplink `json:"uplinks"`
	Intake  *Intake  `json:"intake,omitempty"` // absent where devices have XDP programs of their own
	Outer   Outer    `json:"outer"`
	Peers   int      `json:"peers"`
	Pods    int      `json:"pods"`
	Routes  int      `json:"routes"`
	Flows   int      `json:"flows"`
	// PodCIDRs are the node's own prefixes.
	PodCIDRs []string `json:"podcidrs,omitempty"`
	VTEP     *VTEP    `json:"vtep,omitempty"`
	// Source is where the objects come from: dir:PATH or kube.
	Source string `json:"source"`
	// Objects says, by kind, what has been read of it.
	Objects []SourceObjects `json:"objects"`
	// Stale says that the last reading of the source failed and the tables
	// are those of the reading before.
	Stale   bool      `json:"stale"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

// SourceObjects is what has been read of a kind of object. What only an API server has
// is absent with manifests.
type SourceObjects struct {
	Kind    string `json:"kind"` // Node
	Objects int    `json:"objects"`
	// Version is the newest resource version that was seen, and Heard when the API
	// server last sent something about the kind.
	Version string     `json:"version,omitempty"`
	Heard   *time.Time `json:"heard,omitempty"`
	// Lists counts how often all were read, and Resumes how often a broken watch was
	// taken up where it had been.
	Lists   uint64 `json:"lists,omitempty"`
	Resumes uint64 `json:"resumes,omitempty"`
}

// Intake is what pods' veths share for receiving.
type Intake struct {
	Queues int `json:"queues"`
	// RingFull counts frames that were lost because the ring, or for big frames the
	// socket, had no room (rx), or no free frame (fill).
	RingFull map[string]uint64 `json:"ringfull"`
}

// Outer is what the underlay did to tunnel packets, since the start.
type Outer struct {
	// Errors counts the ICMP errors about them, by kind as in Peer.
	Errors map[string]uint64 `json:"errors"`
	// Narrowed is the number of peers whose path MTU is known from such errors.
	Narrowed int `json:"narrowed"`
	// Fragmented counts the tunnel packets that came in fragments.
	Fragmented uint64 `json:"fragmented"`
}

// VTEP is the node's own tunnel endpoint.
type VTEP struct {
	MAC string `json:"mac,omitempty"`
	// Address is the tunnel address, a member of the node's pod CIDR.
	Address string `json:"address,omitempty"`
	// Local is the underlay address that peers send to.
	Local string `json:"local"`
	VNI   uint32 `json:"vni,omitempty"`
	Port  uint16 `json:"port,omitempty"`
}

// Uplink is a NIC that the node sends tunnel packets through.
type Uplink struct {
	Name    string   `json:"name"`
	Addrs   []string `json:"addrs"`
	MTU     int      `json:"mtu"`
	State   string   `json:"state"` // UP or DOWN
	Queues  int      `json:"queues"`
	XDPMode string   `json:"xdpmode,omitempty"`
	// Merging: the kernel's GRO merges TCP segments inside our tunnel before they
	// reach culvertd; absent where it cannot, with an XDP program at the device.
	Merging *bool `json:"merging,omitempty"`
}

// Worker is one worker thread's share of the work.
type Worker struct {
	ID int `json:"id"`
	// Busy is the part of the last second that it had frames to handle, 0 to 1.
	Busy   float64 `json:"busy"`
	Frames Frames  `json:"frames"`
	// Bursts counts received bursts by the number of frames in them: 1, 2,
	// 3–4, 5–8, and so on in powers of two.
	Bursts []uint64 `json:"bursts,omitempty"`
	// BurstFrames is the number of frames in all of them.
	BurstFrames uint64 `json:"burstframes"`
	// Sleeps is the number of times it waited for input.
	Sleeps uint64    `json:"sleeps"`
	Big    BigFrames `json:"big"`
	// Fragments are the datagrams in fragments that it knows of.
	Fragments Fragments `json:"fragments"`
}

// Fragments counts datagrams in fragments of which not all have come, the frames
// that wait for the first one of theirs, and since the start those datagrams that were
// forgotten to make room for others, or because the rest did not come in time.
type Fragments struct {
	Datagrams int    `json:"datagrams"`
	Held      int    `json:"held"`
	Evicted   uint64 `json:"evicted"`
	Expired   uint64 `json:"expired"`
}

// BigFrames counts frames that stand for many on a wire: those that left as they
// came, those that were cut, and those that were made of segments from the wire.
type BigFrames struct {
	Whole  uint64 `json:"whole"`
	Cut    uint64 `json:"cut"`
	Merged uint64 `json:"merged"`
}

// Frames counts the chunks of a worker's memory.
type Frames struct {
	Free  int `json:"free"`
	Total int `json:"total"`
}

// FlowStats are counts over the whole flow table.
type FlowStats struct {
	// States holds the number of flows by state, in lower case:
	// established, syn_sent, udp, icmp, …
	States         map[string]int `json:"states"`
	Entries        int            `json:"entries"`
	Capacity       int            `json:"capacity"`
	InsertFailures uint64         `json:"insertfailures"`
	Inserts        uint64         `json:"inserts"`
	// Refused holds the flows that were not made, by reason: full, clash, limit.
	Refused map[string]uint64 `json:"refused"`
	// Ended holds the flows that are gone, by reason: expired, flushed, unroutable,
	// and evicted_wire, _embryonic, _closing and _established.
	Ended map[string]uint64 `json:"ended"`
}
