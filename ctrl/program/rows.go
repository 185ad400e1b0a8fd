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
	protoNode    = "node"    // other nodes themselves
	protoAddress = "address" // addresses of the node's stack that are not the cluster's
	protoService = "service" // what the cluster's Services are reached at
)

// Beside reports whether a route is beside those of the cluster's pods: to other nodes
// themselves, to Services, to what else the node's stack has, and out of the cluster.
func Beside(r fib.Route, s *fib.Snapshot) bool {
	return r.Protocol == protoNode || r.Protocol == protoService || r.Protocol == protoAddress || s.Adjacency(r.Adj).Outside
}

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
	node.Routed = p.desired.Routed() || p.desired.Bare()
	node.Networks, node.NAT = p.desired.Networks, fib.NAT(p.desired.NAT)
	node.Mappings = p.wantMappings(n)
	r.adjacencies = []adjacencyRow{
		{"local", p.toHost(false)},
		{"blackhole", adjacency{Adjacency: fib.Adjacency{Kind: fib.KindBlackhole, Ready: true, MTU: 65535}}},
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

// wantServices leads what Services are reached at to the node's own stack, where kube-proxy
// translates it. Without a port to it they lead nowhere.
func (p *Programmer) wantServices() (r rows) {
	if p.host.Dev == "" || len(p.desired.Services) == 0 {
		return r
	}
	r.adjacencies = []adjacencyRow{{"services", p.toHost(false)}}
	for _, s := range p.desired.Services {
		r.routes = append(r.routes, routeRow{s, route{"services", protoService}})
	}
	return r
}

// toHost is the way to the node's own stack, or, without a port to it, to the
// dataplane, which answers in its place what it can.
func (p *Programmer) toHost(outside bool) adjacency {
	to := fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535, Outside: outside}
	if h := &p.host; h.Dev != "" {
		to.Port, to.Dev, to.MTU, to.Rewrite = h.Port, h.Dev, uint16(h.MTU), encap.Ethernet(h.MAC, gatewayMAC, 0)
	}
	return adjacency{Adjacency: to}
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
