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
	Mode  string // native, calico or flannel
	Encap string // VXLAN, IPIP or None: what most traffic takes; each peer says its own
	// Also are further encapsulations that peers may send in.
	Also []string
	VNI  uint32
	Port uint16
	// MTU is the largest packet that the cluster's configuration lets pods send;
	// 0 if it leaves that to the uplinks.
	MTU int
	// Local is this node; nil while the objects do not say enough about it.
	Local *Node
	// Peers are the other nodes, in the order of their names; see Peer.Way.
	Peers     []Peer
	Conflicts []Conflict
	// Pools are Calico's IPPools; none in other modes.
	Pools []Pool
	// Refused says that what is common to all nodes cannot be carried out: a
	// state from before is better than this one, whose Conflicts say why.
	Refused bool
	// Networks are where all of the cluster's pods are, as far as the cluster says; what is
	// for nobody there is for nobody outside either.
	Networks []netip.Prefix
	// NAT is how pods' packets leave the cluster.
	NAT NAT
	// Services are the addresses that the cluster's Services are reached at, in ranges
	// and one by one.
	Services []netip.Prefix
	// Annotations are what this node is to publish on its Node object: what peers
	// need to reach it, and what it must find again after a restart.
	Annotations map[string]string
}

// NAT is source translation: what pods of Sources send out of the cluster, but for what
// goes to Exclude, leaves with the node's own address and a port from Low to High. High is 0
// where nothing does.
type NAT struct {
	Sources, Exclude []netip.Prefix
	Low, High        uint16
}

// Bare reports whether packets of pods of this node leave the cluster with the pods' own
// addresses, at which they are answered.
func (d *Desired) Bare() bool {
	if d.Local == nil {
		return false
	}
	natted := func(c netip.Prefix) bool {
		return slices.ContainsFunc(d.NAT.Sources, func(s netip.Prefix) bool { return s.Bits() <= c.Bits() && s.Contains(c.Addr()) })
	}
	return len(d.NAT.Exclude) > 0 || slices.ContainsFunc(d.Local.PodCIDRs, func(c netip.Prefix) bool { return !natted(c) })
}

// Nodes is the number of other nodes.
func (d *Desired) Nodes() (n int) {
	for i := range d.Peers {
		if i == 0 || d.Peers[i].Name != d.Peers[i-1].Name {
			n++
		}
	}
	return n
}

// How a peer's pods are reached, as the configuration says it.
const (
	VXLAN = "vxlan"
	IPIP  = "ipip"
	None  = "none" // routed, without a tunnel
)

// Routed reports whether packets of a peer's pods come without a tunnel.
func (d *Desired) Routed() bool { return d.Takes(None) }

// Takes reports whether packets of a peer's pods come in that encapsulation.
func (d *Desired) Takes(encap string) bool {
	return encap == d.Encap && encap != None || slices.Contains(d.Also, encap) ||
		slices.ContainsFunc(d.Peers, func(p Peer) bool { return p.Encap == encap })
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
	// TunnelIP is the node's address in the pods' network: the first of the first
	// pod CIDR, in calico mode one that was allocated.
	TunnelIP netip.Addr
	VTEPMAC  packet.MAC
	// V6 is the endpoint of tunnels over IPv6, in modes that have one beside that
	// over IPv4; nil elsewhere.
	V6 *Endpoint
	// HostIPs are further addresses of the node in the pods' network.
	HostIPs []netip.Addr
	// Pools are those PodCIDRs that pods get addresses of; nil: all of them.
	Pools []netip.Prefix
	// Blocks: the pod CIDRs are Calico's blocks, of which every address may be a
	// pod's. Otherwise the first two and the last are not, and the first is the node's.
	Blocks bool
	// Held are addresses in the pools that are not to be given.
	Held []Held
}

// Endpoint is where a node's tunnels of one family end.
type Endpoint struct {
	PublicIP netip.Addr
	TunnelIP netip.Addr // invalid if it has none
	VTEPMAC  packet.MAC
}

// Held is an address that somebody has.
type Held struct {
	Addr netip.Addr
	Why  string // a sentence that begins with "it"
	// Ask: who asks for it by name may have it.
	Ask bool
}

// Endpoint is the one that reaches peers of a family; its PublicIP is invalid if
// the node has none.
func (n *Node) Endpoint(v6 bool) Endpoint {
	first := Endpoint{PublicIP: n.PublicIP, TunnelIP: n.TunnelIP, VTEPMAC: n.VTEPMAC}
	switch {
	case first.PublicIP.IsValid() && first.PublicIP.Is6() == v6:
		return first
	case v6 && n.V6 != nil:
		return *n.V6
	}
	return Endpoint{}
}

// PodPools are the prefixes that pods get addresses of.
func (n *Node) PodPools() []netip.Prefix {
	if n.Pools != nil {
		return n.Pools
	}
	return n.PodCIDRs
}

// TunnelIPs are the node's addresses in the pods' network: TunnelIP, and of the other
// family the first address of its first pod CIDR, or what V6 and HostIPs say.
func (n *Node) TunnelIPs() (all []netip.Addr) {
	if n.V6 == nil && !n.Blocks {
		return tunnelIPs(n.TunnelIP, n.PodCIDRs)
	}
	all = append(all, n.TunnelIP)
	if n.V6 != nil {
		all = append(all, n.V6.TunnelIP)
	}
	all = append(all, n.HostIPs...)
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
}

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

// Peer is another node, as far as it is reached in one way. A node some of whose
// prefixes are carried otherwise than others is several peers with one Name.
type Peer struct {
	Name string
	// Way tells the peers of one node apart: empty, or such as "ipv6" or "direct".
	Way      string
	PublicIP netip.Addr
	PodCIDRs []netip.Prefix
	TunnelIP netip.Addr
	VTEPMAC  packet.MAC
	Encap    string // VXLAN, IPIP or None
}

// Key names the peer among all.
func (p *Peer) Key() string {
	if p.Way == "" {
		return p.Name
	}
	return p.Name + " " + p.Way
}

// Conflict is something in the objects that cannot be carried out.
type Conflict struct {
	Object source.Ref
	Key    string // such as spec.podCIDRs
	Reason Reason // empty: NotFollowed
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

// Options are what a flavour goes by besides the objects.
type Options struct {
	Node string
	// Kept is what this node published before, as in Desired.Annotations. What the
	// Node object says goes before it.
	Kept map[string]string
	// InUse reports whether a pod of this node has an address; nil: none has.
	InUse func(netip.Addr) bool
	// Claims: this node claims blocks and tunnel addresses in Calico's IPAM itself, so
	// that only what a block says is given is a tunnel's address.
	Claims bool

	// Cache, if there is one, goes with the same options from set to set. What comes
	// out is the same with it and without.
	Cache *Cache

	// ServiceCIDRs are the ranges of Services' addresses, as far as they are known.
	ServiceCIDRs []netip.Prefix

	// NAT is how pods' packets leave the cluster, where the cluster does not say that they
	// keep their addresses; its Sources are not looked at.
	NAT NAT

	// The rest is the native mode's.

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
	o := Options{Node: c.Node, ServiceCIDRs: c.ServiceCIDRs, Encap: c.Native.Encap, VNI: c.VXLAN.VNI, Port: c.VXLAN.Port}
	if c.NAT.Outgoing != "off" {
		o.NAT = NAT{Exclude: c.NAT.Exclude, Low: c.NAT.Low, High: c.NAT.High}
	}
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
