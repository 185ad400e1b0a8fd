// Package flavour turns Kubernetes objects into desired state: which nodes
// there are, how each is reached, and which pods' prefixes are behind it.
//
// Its functions are pure: the same objects and options give the same state,
// whatever was there before. What cannot be had at the same time is reported as
// a conflict, object by object, and costs only the objects that lose.
package flavour

import (
	"crypto/sha1"
	"fmt"
	"net/netip"
	"slices"

	"culvert/ctrl/config"
	"culvert/ctrl/source"
	"culvert/internal/packet"
)

// Desired is what the tables are to say. It is immutable.
type Desired struct {
	Mode  string // native
	Encap string // VXLAN, IPIP or None; peers of the same subnet may have None beside
	VNI   uint32
	Port  uint16
	// Local is this node; nil while the objects do not say enough about it.
	Local *Node
	// Peers are the other nodes, in the order of their names.
	Peers     []Peer
	Conflicts []Conflict
}

// How a peer's pods are reached, as the configuration says it.
const (
	VXLAN = "vxlan"
	IPIP  = "ipip"
	None  = "none" // routed, without a tunnel
)

// Routed reports whether packets of a peer's pods come without a tunnel.
func (d *Desired) Routed() bool {
	return slices.ContainsFunc(d.Peers, func(p Peer) bool { return p.Encap == None })
}

// Node is this node.
type Node struct {
	Name string
	// PublicIP is what peers send to: the InternalIP, or what the annotation
	// says; invalid if neither is there.
	PublicIP netip.Addr
	// PodCIDRs are where this node's pods get addresses of; the first one
	// decides about TunnelIP.
	PodCIDRs []netip.Prefix
	// TunnelIP is the first address of the first pod CIDR.
	TunnelIP netip.Addr
	VTEPMAC  packet.MAC
}

// TunnelIPs are the node's tunnel addresses: TunnelIP, and of the other family the
// first address of its first pod CIDR.
func (n *Node) TunnelIPs() []netip.Addr { return tunnelIPs(n.TunnelIP, n.PodCIDRs) }

// TunnelIPs are the peer's tunnel addresses, as those of a Node.
func (p *Peer) TunnelIPs() []netip.Addr { return tunnelIPs(p.TunnelIP, p.PodCIDRs) }

func tunnelIPs(first netip.Addr, cidrs []netip.Prefix) []netip.Addr {
	if !first.IsValid() {
		return nil
	}
	all := []netip.Addr{first}
	for _, c := range cidrs {
		if c.Addr().Is4() != first.Is4() {
			return append(all, c.Addr())
		}
	}
	return all
}

// Peer is another node.
type Peer struct {
	Name     string
	PublicIP netip.Addr
	PodCIDRs []netip.Prefix
	TunnelIP netip.Addr
	VTEPMAC  packet.MAC
	Encap    string // VXLAN, IPIP or None
}

// Conflict is something in the objects that cannot be carried out.
type Conflict struct {
	Object source.Ref
	Key    string // such as spec.podCIDRs
	// What is wrong, what it costs, and what to do, on one line.
	What string
	// Place is where the object is written, if it is in a file.
	Place source.Place
}

// String is FILE:LINE: Node worker-2: key: what.
func (c Conflict) String() string {
	s := fmt.Sprintf("%s: %s: %s", c.Object, c.Key, c.What)
	if c.Place.File != "" {
		s = fmt.Sprintf("%s:%d: %s", c.Place.File, c.Place.Line, s)
	}
	return s
}

// Options is what the configuration says about the native mode.
type Options struct {
	Node  string
	Encap string
	VNI   uint32
	Port  uint16
	// ClusterCIDRs hold every pod CIDR; none: anything goes.
	ClusterCIDRs []netip.Prefix
	// CrossSubnet: peers whose address is in the subnet of the node's own one are
	// reached without a tunnel. Subnets are the uplinks' addresses with their
	// lengths.
	CrossSubnet bool
	Subnets     []netip.Prefix
}

// OptionsFrom takes what the configuration says, and the prefixes of the uplinks'
// addresses. The default of
// native.clusterCIDRs binds nobody: only what somebody wrote does.
func OptionsFrom(c *config.Config, subnets []netip.Prefix) Options {
	o := Options{Node: c.Node, Encap: c.Native.Encap, VNI: c.VXLAN.VNI, Port: c.VXLAN.Port}
	if o.CrossSubnet = c.Native.CrossSubnet; o.CrossSubnet {
		o.Subnets = subnets
	}
	if c.ClusterCIDRsGiven() {
		o.ClusterCIDRs = c.Native.ClusterCIDRs
	}
	return o
}

// VTEPMAC is the address of a node's tunnel endpoint: 66: and the first five
// bytes of SHA-1 of the node's name, as Calico's Felix has it (felix/calc/vxlan_resolver.go).
func VTEPMAC(node string) packet.MAC {
	sum := sha1.Sum([]byte(node))
	return packet.MAC{0x66, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// Detect says which mode the objects look like: flannel by annotations, calico
// by IP pools, else native.
func Detect(objs *source.Objects) string {
	for _, n := range objs.Nodes {
		if n.Annotations["flannel.alpha.coreos.com/kube-subnet-manager"] == "true" {
			return "flannel"
		}
	}
	if len(objs.IPPools) > 0 {
		return "calico"
	}
	return "native"
}
