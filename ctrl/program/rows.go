package program

import (
	"net/netip"

	"culvert/ctrl/flavour"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/packet"
)

// rows are the contents of all tables, by their keys. Adjacencies go by a name
// that says what they lead to, so that routes can be told from it before it
// has an identifier.
type rows struct {
	hops        map[hopKey]fib.NextHop
	adjacencies map[string]adjacency
	groups      map[string][]member
	routes      map[netip.Prefix]route
	fdb         map[fdbKey]fib.FDBEntry
	neighbours  map[neighKey]fib.Neighbour
	node        fib.Node
}

// hopKey is a way out of the node: a neighbour of a device, and how large a
// packet gets that way. The zero hopKey is none.
type hopKey struct {
	ifindex int
	via     netip.Addr
	mtu     int
}

// adjacency is one with its next hop, for which fib.Adjacency.Hop is yet to be
// found.
type adjacency struct {
	fib.Adjacency
	by hopKey
}

// member is one adjacency of a group.
type member struct {
	adjacency string
	weight    uint16
}

// route leads to an adjacency or to a group.
type route struct{ to, protocol string }

type fdbKey struct {
	vni uint32
	mac packet.MAC
}

type neighKey struct {
	addr netip.Addr
	dev  string
}

func newRows() rows {
	return rows{
		hops: map[hopKey]fib.NextHop{}, adjacencies: map[string]adjacency{}, groups: map[string][]member{}, routes: map[netip.Prefix]route{},
		fdb: map[fdbKey]fib.FDBEntry{}, neighbours: map[neighKey]fib.Neighbour{},
	}
}

// The protocols of routes, as iproute2 would print them.
const (
	protoCulvert = "culvert" // from the cluster's objects
	protoKernel  = "kernel"  // the node's own addresses
	protoCNI     = "cni"     // pods of this node
)

// vxlanDev is the device that FDB and neighbour entries of the overlay are
// shown with: Culvert has none, its tables take the place.
const vxlanDev = "vxlan"

// gatewayMAC is the source of what pods get: what they know the gateway by.
var gatewayMAC = packet.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

// want builds the rows that the inputs ask for. The order of the steps says
// whose route wins a prefix: pods over the node's own, that over peers'.
func (p *Programmer) want() rows {
	r := newRows()
	for i := range p.desired.Peers {
		p.wantPeer(&r, &p.desired.Peers[i])
	}
	if p.desired.Local != nil {
		p.wantNode(&r, p.desired.Local)
	}
	for _, pod := range p.pods {
		wantPod(&r, pod)
	}
	return r
}

// wantNode adds the node itself: its VTEP, its addresses, and a blackhole under
// its pods so that a packet for one that is gone goes nowhere.
func (p *Programmer) wantNode(r *rows, n *flavour.Node) {
	if !n.PublicIP.IsValid() {
		return
	}
	for _, ip := range n.TunnelIPs() { // of each family, where there is no better one
		if inside := family(&r.node.Tunnel4, &r.node.Tunnel6, ip); *inside == (packet.Addr{}) {
			*inside = packet.AddrFrom(ip)
		}
		*family(&r.node.Addr4, &r.node.Addr6, ip) = packet.AddrFrom(ip)
	}
	for _, v6 := range []bool{false, true} {
		e := n.Endpoint(v6)
		if !e.PublicIP.IsValid() {
			continue
		}
		addr := packet.AddrFrom(e.PublicIP)
		*family(&r.node.Addr4, &r.node.Addr6, e.PublicIP) = addr
		if p.desired.Takes(flavour.VXLAN) {
			r.node.VTEPs = append(r.node.VTEPs, fib.LocalVTEP{Addr: addr, Port: p.desired.Port, VNI: p.desired.VNI, MAC: e.VTEPMAC})
		}
		if p.desired.Takes(flavour.IPIP) && !v6 {
			r.node.IPIP = addr
		}
	}
	r.node.Routed = p.desired.Routed()
	r.adjacencies["local"] = adjacency{Adjacency: fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535}}
	r.adjacencies["blackhole"] = adjacency{Adjacency: fib.Adjacency{Kind: fib.KindBlackhole, Ready: true, MTU: 65535}}
	for _, c := range n.PodCIDRs {
		r.routes[c.Masked()] = route{"blackhole", protoCulvert}
	}
	own := append(n.TunnelIPs(), n.PublicIP)
	if n.V6 != nil {
		own = append(own, n.V6.PublicIP)
	}
	for _, a := range own {
		r.routes[netip.PrefixFrom(a, a.BitLen())] = route{"local", protoKernel}
	}
}

// family is the one of two addresses that is of ip's family.
func family(v4, v6 *packet.Addr, ip netip.Addr) *packet.Addr {
	if ip.Is4() {
		return v4
	}
	return v6
}

func wantPod(r *rows, pod Pod) {
	name := "pod " + pod.Dev
	r.adjacencies[name] = adjacency{Adjacency: fib.Adjacency{
		Kind: fib.KindPod, Ready: true, Port: pod.Port, MTU: uint16(pod.MTU), MAC: pod.MAC, Dev: pod.Dev,
		Rewrite: encap.Ethernet(pod.MAC, gatewayMAC, 0),
	}}
	for _, a := range pod.Addrs {
		r.routes[netip.PrefixFrom(a, a.BitLen())] = route{name, protoCNI}
	}
}
