package program

import (
	"fmt"
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
	adjacencies map[string]fib.Adjacency
	routes      map[netip.Prefix]route
	fdb         map[fdbKey]fib.FDBEntry
	neighbours  map[neighKey]fib.Neighbour
	node        fib.Node
}

type route struct{ adjacency, protocol string }

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
		adjacencies: map[string]fib.Adjacency{}, routes: map[netip.Prefix]route{},
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
	addr := packet.AddrFrom(n.PublicIP)
	if n.PublicIP.Is4() {
		r.node.Addr4 = addr
	} else {
		r.node.Addr6 = addr
	}
	r.node.VTEPs = []fib.LocalVTEP{{Addr: addr, Port: p.desired.Port, VNI: p.desired.VNI, MAC: n.VTEPMAC}}
	r.adjacencies["local"] = fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535}
	r.adjacencies["blackhole"] = fib.Adjacency{Kind: fib.KindBlackhole, Ready: true, MTU: 65535}
	for _, c := range n.PodCIDRs {
		r.routes[c.Masked()] = route{"blackhole", protoCulvert}
	}
	for _, a := range []netip.Addr{n.PublicIP, n.TunnelIP} {
		if a.IsValid() {
			r.routes[netip.PrefixFrom(a, a.BitLen())] = route{"local", protoKernel}
		}
	}
}

func wantPod(r *rows, pod Pod) {
	name := "pod " + pod.Dev
	r.adjacencies[name] = fib.Adjacency{
		Kind: fib.KindPod, Ready: true, Port: pod.Port, MTU: uint16(pod.MTU), MAC: pod.MAC, Dev: pod.Dev,
		Rewrite: encap.Ethernet(pod.MAC, gatewayMAC, 0),
	}
	for _, a := range pod.Addrs {
		r.routes[netip.PrefixFrom(a, a.BitLen())] = route{name, protoCNI}
	}
}

// wantPeer adds another node: an adjacency that all its prefixes share, the
// FDB entry of its VTEP, and the neighbour that maps its tunnel address to it.
// Its routes are there even while the underlay does not reach it: traffic for
// it must not take a wider route.
func (p *Programmer) wantPeer(r *rows, peer *flavour.Peer) {
	name := "peer " + peer.Name
	adj, err := p.vxlanAdjacency(peer)
	p.complain(peer.Name, err)
	r.adjacencies[name] = adj
	for _, c := range peer.PodCIDRs {
		r.routes[c.Masked()] = route{name, protoCulvert}
	}
	r.fdb[fdbKey{p.desired.VNI, peer.VTEPMAC}] = fib.FDBEntry{
		VNI: p.desired.VNI, MAC: peer.VTEPMAC, Dst: peer.PublicIP, Flags: "self permanent",
	}
	if peer.TunnelIP.IsValid() {
		r.neighbours[neighKey{peer.TunnelIP, vxlanDev}] = fib.Neighbour{
			Addr: peer.TunnelIP, MAC: peer.VTEPMAC, Dev: vxlanDev, State: "PERMANENT",
		}
	}
}

// vxlanAdjacency is the tunnel to a peer. On an error it is the adjacency that
// says so: not ready.
func (p *Programmer) vxlanAdjacency(peer *flavour.Peer) (fib.Adjacency, error) {
	remote := packet.AddrFrom(peer.PublicIP)
	adj := fib.Adjacency{
		Kind: fib.KindVXLAN, Via: peer.PublicIP, Peer: remote.Fold(), VNI: p.desired.VNI, MAC: peer.VTEPMAC, MTU: uint16(p.podMTU),
	}
	local := p.desired.Local
	if local == nil || !local.PublicIP.IsValid() {
		return adj, fmt.Errorf("this node has no address in the cluster yet")
	}
	nh, err := p.underlay.NextHop(peer.PublicIP)
	if err != nil {
		return adj, err
	}
	adj.Dev = nh.Dev
	overhead := encap.OverheadVXLAN4
	if peer.PublicIP.Is6() {
		overhead = encap.OverheadVXLAN6
	}
	if room := nh.MTU - overhead; p.podMTU == 0 || room < p.podMTU {
		adj.MTU = uint16(min(max(room, 0), 65535))
	}
	uplink, ok := p.uplinks[nh.Ifindex]
	if !ok {
		return adj, fmt.Errorf("it is reached through %s, which is no uplink that Culvert holds", nh.Dev)
	}
	adj.Port = uplink.Port
	if !nh.Resolved {
		return adj, fmt.Errorf("the next hop %s does not answer on %s", nh.Via, nh.Dev)
	}
	adj.Rewrite, err = encap.VXLAN(encap.VXLANParams{
		SrcMAC: nh.SrcMAC, DstMAC: nh.MAC, Src: packet.AddrFrom(local.PublicIP), Dst: remote,
		DstPort: p.desired.Port, VNI: p.desired.VNI, InnerSrc: local.VTEPMAC, InnerDst: peer.VTEPMAC,
	})
	if err != nil {
		return adj, err
	}
	adj.Ready = true
	return adj, nil
}

// complain logs when a peer becomes unreachable and when it is reached again.
func (p *Programmer) complain(peer string, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if p.peers[peer] == now {
		return
	}
	p.peers[peer] = now
	if err != nil {
		p.log.Warn("peer is not reachable", "peer", peer, "cause", now)
	} else {
		p.log.Info("peer is reachable", "peer", peer)
	}
}
