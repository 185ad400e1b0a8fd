package program

import (
	"net/netip"

	"culvert/ctrl/flavour"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/packet"
)

// rows are what one owner wants in the tables, each key once. Adjacencies go by a name
// that says what they lead to, so that routes can be told from it before it has
// an identifier; no two owners have one of the same name.
type rows struct {
	hops        []hopRow
	adjacencies []adjacencyRow
	groups      []groupRow
	routes      []routeRow
	fdb         []fib.FDBEntry
	neighbours  []fib.Neighbour
}

type hopRow struct {
	key hopKey
	fib.NextHop
}

type adjacencyRow struct {
	name string
	adjacency
}

type groupRow struct {
	name    string
	members []member
}

type routeRow struct {
	prefix netip.Prefix
	route
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

// wantNode is the node itself: its VTEP, its addresses, and a blackhole under
// its pods so that a packet for one that is gone goes nowhere.
func (p *Programmer) wantNode() (r rows, node fib.Node) {
	n := p.desired.Local
	if n == nil || !n.PublicIP.IsValid() {
		return r, node
	}
	for _, ip := range n.TunnelIPs() { // of each family, where there is no better one
		if inside := family(&node.Tunnel4, &node.Tunnel6, ip); *inside == (packet.Addr{}) {
			*inside = packet.AddrFrom(ip)
		}
		*family(&node.Addr4, &node.Addr6, ip) = packet.AddrFrom(ip)
	}
	for _, v6 := range []bool{false, true} {
		e := n.Endpoint(v6)
		if !e.PublicIP.IsValid() {
			continue
		}
		addr := packet.AddrFrom(e.PublicIP)
		*family(&node.Addr4, &node.Addr6, e.PublicIP) = addr
		if p.desired.Takes(flavour.VXLAN) {
			node.VTEPs = append(node.VTEPs, fib.LocalVTEP{Addr: addr, Port: p.desired.Port, VNI: p.desired.VNI, MAC: e.VTEPMAC})
		}
		if p.desired.Takes(flavour.IPIP) && !v6 {
			node.IPIP = addr
		}
	}
	node.Routed = p.desired.Routed()
	for name, kind := range map[string]fib.Kind{"local": fib.KindLocal, "blackhole": fib.KindBlackhole} {
		r.adjacencies = append(r.adjacencies, adjacencyRow{name, adjacency{Adjacency: fib.Adjacency{Kind: kind, Ready: true, MTU: 65535}}})
	}
	routes := map[netip.Prefix]route{} // the node's own addresses go before what is under its pods
	for _, c := range n.PodCIDRs {
		routes[c.Masked()] = route{"blackhole", protoCulvert}
	}
	own := append(n.TunnelIPs(), n.PublicIP)
	if n.V6 != nil {
		own = append(own, n.V6.PublicIP)
	}
	for _, a := range own {
		if a.IsValid() {
			routes[netip.PrefixFrom(a, a.BitLen())] = route{"local", protoKernel}
		}
	}
	for prefix, to := range routes {
		r.routes = append(r.routes, routeRow{prefix, to})
	}
	return r, node
}

// family is the one of two addresses that is of ip's family.
func family(v4, v6 *packet.Addr, ip netip.Addr) *packet.Addr {
	if ip.Is4() {
		return v4
	}
	return v6
}

// wantPod is a pod of this node.
func wantPod(pod *Pod) (r rows) {
	name := "pod " + pod.Dev
	r.adjacencies = []adjacencyRow{{name, adjacency{Adjacency: fib.Adjacency{
		Kind: fib.KindPod, Ready: true, Port: pod.Port, MTU: uint16(pod.MTU), MAC: pod.MAC, Dev: pod.Dev,
		Rewrite: encap.Ethernet(pod.MAC, gatewayMAC, 0),
	}}}}
	for _, a := range pod.Addrs {
		r.routes = append(r.routes, routeRow{netip.PrefixFrom(a, a.BitLen()), route{name, protoCNI}})
	}
	return r
}
