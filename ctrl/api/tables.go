package api

// Port is an element of GET /v1/ports.
type Port struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"` // uplink, veth, tap or host
	Index  uint16  `json:"index"`
	Queues int     `json:"queues"`
	XDP    XDP     `json:"xdp"`
	Rx     Counter `json:"rx"`
	Tx     Counter `json:"tx"`
	// Drops are all frames this port lost, whatever the reason.
	Drops uint64 `json:"drops"`
	// RingFull counts what a full or empty ring cost, by ring: rx, fill, tx.
	// Nil where the port has no rings.
	RingFull map[string]uint64 `json:"ringfull,omitempty"`
	MAC      string            `json:"mac,omitempty"`
	MTU      int               `json:"mtu,omitempty"`
}

// XDP says how frames are taken from a device.
type XDP struct {
	Mode     string `json:"mode"` // native, generic or none
	ZeroCopy bool   `json:"zerocopy"`
}

// Counter counts one direction of a port.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Route is an element of GET /v1/routes, and the answer to GET /v1/route.
// Keys that say nothing are absent.
type Route struct {
	// Dst is the prefix, always with its length.
	Dst  string `json:"dst"`
	Kind string `json:"kind"` // vxlan, ipip, direct, pod, local, blackhole or reject
	// Via is the peer's underlay address for vxlan and ipip, the next hop for
	// direct.
	Via string `json:"via,omitempty"`
	Dev string `json:"dev,omitempty"`
	// MAC is the peer's VTEP, or the pod's, address.
	MAC      string `json:"mac,omitempty"`
	VNI      uint32 `json:"vni,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	MTU      int    `json:"mtu,omitempty"`
	// Unresolved says that the next hop's MAC is not known yet.
	Unresolved bool `json:"unresolved,omitempty"`
	// NextHops are the ways of a multipath route. Dev, MTU and Unresolved are then
	// the first one's.
	NextHops []NextHop `json:"nexthops,omitempty"`
}

// NextHop is one way of a multipath route.
type NextHop struct {
	// Gateway is the underlay's next hop.
	Gateway string `json:"gateway,omitempty"`
	// Via is the peer's underlay address where it is not that of the route.
	Via    string `json:"via,omitempty"`
	Dev    string `json:"dev,omitempty"`
	Weight int    `json:"weight"`
	// Buckets is how many of the 256 parts that flows are spread over go this way.
	Buckets    int  `json:"buckets"`
	Unresolved bool `json:"unresolved,omitempty"`
}

// FDBEntry is an element of GET /v1/fdb.
type FDBEntry struct {
	MAC string `json:"mac"`
	// Dst is the remote VTEP's underlay address.
	Dst   string   `json:"dst"`
	VNI   uint32   `json:"vni"`
	Flags []string `json:"flags"` // self, permanent
}

// Neighbour is an element of GET /v1/neighbours, in the words of 'ip neigh'.
type Neighbour struct {
	Dst    string   `json:"dst"`
	Dev    string   `json:"dev"`
	LLAddr string   `json:"lladdr,omitempty"`
	State  []string `json:"state"` // PERMANENT, REACHABLE, STALE, INCOMPLETE, …
}

// Peer is an element of GET /v1/peers: another node.
type Peer struct {
	Name string `json:"name"`
	// Dst is the node's underlay address.
	Dst   string `json:"dst"`
	Encap string `json:"encap"` // vxlan, ipip or none
	// MAC is the node's VTEP address, with vxlan.
	MAC string `json:"mac,omitempty"`
	// Address is the node's tunnel address, if it has one.
	Address  string   `json:"address,omitempty"`
	PodCIDRs []string `json:"podcidrs"`
	// Via and Dev are how the underlay reaches the node.
	Via   string `json:"via,omitempty"`
	Dev   string `json:"dev,omitempty"`
	State string `json:"state"` // ready, unresolved or conflict
	// MTU is the largest IP packet of a pod that gets to the node.
	MTU int `json:"mtu,omitempty"`
	// PMTU is the largest outer packet that gets there, as routers have said, and
	// Expires the seconds until that is tried again; absent where none has.
	PMTU    int `json:"pmtu,omitempty"`
	Expires int `json:"expires,omitempty"`
	// Errors counts the ICMP errors about packets to the node, by kind: too_big,
	// host_unreachable, port_unreachable, protocol_unreachable, prohibited,
	// time_exceeded, other.
	Errors map[string]uint64 `json:"errors,omitempty"`
	// Fragmented counts tunnel packets from the node that came in fragments, and
	// Fragment is the longest one of the last such packet in bytes.
	Fragmented uint64 `json:"fragmented,omitempty"`
	Fragment   int    `json:"fragment,omitempty"`
}

// Pod is an element of GET /v1/pods: a pod of this node.
type Pod struct {
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	ContainerID string `json:"containerid"`
	// IfName is the interface's name in the pod.
	IfName string `json:"ifname"`
	// Port is the host side's name, as in GET /v1/ports.
	Port  string   `json:"port"`
	Addrs []string `json:"addrs"`
	MAC   string   `json:"mac"`
	NetNS string   `json:"netns,omitempty"`
	// PortMappings are ports of the node that lead to the pod.
	PortMappings []PortMapping `json:"portmappings,omitempty"`

	State string `json:"state"` // ready, adding, gone or detached
	// Error says why a pod is detached.
	Error string `json:"error,omitempty"`
}

// PortMapping is a port of the node that leads to one of a pod.
type PortMapping struct {
	HostPort      uint16 `json:"hostport"`
	ContainerPort uint16 `json:"containerport"`
	Protocol      string `json:"protocol"` // tcp, udp or sctp
	// HostIP is the node's address that it is for; empty, every one.
	HostIP string `json:"hostip,omitempty"`
}

// Drop is an element of GET /v1/drops.
type Drop struct {
	Reason string `json:"reason"`
	// Port is empty for the sum over the ports of that kind that are gone.
	Port    string `json:"port"`
	Kind    string `json:"kind"`
	Packets uint64 `json:"packets"`
}
