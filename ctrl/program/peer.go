package program

import (
	"fmt"
	"net/netip"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/packet"
)

// wantPeer is another node: what all its prefixes lead to, and in VXLAN the FDB
// entry of its VTEP and the neighbour that maps its tunnel address to it. Its routes are
// there even while the underlay does not reach it: traffic for it must not take
// a wider route.
func (p *Programmer) wantPeer(peer *flavour.Peer) (r rows) {
	to, err := p.wantWays(&r, peer)
	p.complain(peer.Key(), err)
	r.routes = make([]routeRow, 0, len(peer.PodCIDRs)+1)
	for _, c := range peer.PodCIDRs {
		r.routes = append(r.routes, routeRow{c.Masked(), route{to, protoCulvert}})
	}
	// What pods send to the node itself goes the way that its pods' packets go: the answers
	// come back that way, on which strict rp_filter there and firewalls between insist.
	r.routes = append(r.routes, routeRow{netip.PrefixFrom(peer.PublicIP, peer.PublicIP.BitLen()), route{to, protoNode}})
	if peer.Encap != flavour.VXLAN {
		return r
	}
	r.fdb = []fib.FDBEntry{{VNI: p.desired.VNI, MAC: peer.VTEPMAC, Dst: peer.PublicIP, Flags: "self permanent"}}
	for _, ip := range peer.TunnelIPs() {
		r.neighbours = append(r.neighbours, fib.Neighbour{Addr: ip, MAC: peer.VTEPMAC, Dev: vxlanDev, State: "PERMANENT"})
	}
	return r
}

// wantWays adds the tunnel to a peer, or its next hop where there is no tunnel, or a
// group of them where the underlay has several ways to it, and returns the name. Of
// several ways those that are not ready are left out. On an error it is not ready.
func (p *Programmer) wantWays(r *rows, peer *flavour.Peer) (string, error) {
	name := "peer " + peer.Key()
	to, err := p.adjacency(peer)
	p.narrow(&to)
	var all []underlay.NextHop
	if err == nil {
		all, err = p.underlay.NextHops(peer.PublicIP)
	}
	var ready []underlay.NextHop
	for _, nh := range all {
		if problem := p.problem(nh); problem == nil {
			ready = append(ready, nh)
		} else if err == nil {
			err = problem
		}
	}
	switch {
	case len(ready) > 0:
		all, err = ready, nil
	case len(all) > 0:
		all = all[:1]
	default:
		to.Ready = false
		r.adjacencies = []adjacencyRow{{name, adjacency{Adjacency: to}}}
		return name, err
	}
	all = all[:min(len(all), fib.MaxMembers)]
	if len(all) == 1 {
		r.adjacencies = []adjacencyRow{{name, adjacency{by(to, all[0]), p.wantHop(r, all[0])}}}
		return name, err
	}
	group := groupRow{name: "ways to " + peer.Key()}
	for _, nh := range all {
		one := fmt.Sprintf("%s via %s dev %s", name, nh.Via, nh.Dev)
		r.adjacencies = append(r.adjacencies, adjacencyRow{one, adjacency{by(to, nh), p.wantHop(r, nh)}})
		group.members = append(group.members, member{one, uint16(min(max(nh.Weight, 1), fib.MaxWeight))})
	}
	r.groups = []groupRow{group}
	return group.name, err
}

// by is the adjacency over one of the ways: without a tunnel, Via is its next hop.
func by(to fib.Adjacency, nh underlay.NextHop) fib.Adjacency {
	if to.Kind == fib.KindDirect {
		to.Via = nh.Via
	}
	return to
}

// problem says why a next hop cannot be sent to.
func (p *Programmer) problem(nh underlay.NextHop) error {
	if _, ok := p.uplinks[nh.Ifindex]; !ok {
		return fmt.Errorf("it is reached through %s, which is no uplink that Culvert holds", nh.Dev)
	}
	if !nh.Resolved {
		return fmt.Errorf("the next hop %s does not answer on %s", nh.Via, nh.Dev)
	}
	return nil
}

// wantHop adds a next hop, which the tunnels to many peers share.
func (p *Programmer) wantHop(r *rows, nh underlay.NextHop) hopKey {
	key := hopKey{nh.Ifindex, nh.Via, nh.MTU}
	r.hops = append(r.hops, hopRow{key, fib.NextHop{
		Ready: p.problem(nh) == nil, Port: p.uplinks[nh.Ifindex].Port, Dev: nh.Dev,
		MTU: uint16(min(max(nh.MTU, 0), 65535)), SrcMAC: nh.SrcMAC, MAC: nh.MAC, Gateway: nh.Via,
	}})
	return key
}

// adjacency is how a peer is reached, whatever the way there. On an error it is not
// ready.
func (p *Programmer) adjacency(peer *flavour.Peer) (adj fib.Adjacency, err error) {
	remote := packet.AddrFrom(peer.PublicIP)
	adj = fib.Adjacency{Via: peer.PublicIP, Peer: remote.Fold(), MTU: uint16(p.podMTU)}
	if p.podMTU == 0 {
		adj.MTU = 65535 // what the next hop allows
	}
	switch peer.Encap {
	case flavour.None:
		adj.Kind, adj.Via, adj.Remote = fib.KindDirect, netip.Addr{}, peer.PublicIP
		adj.MTU = 65535 // nothing is added to a packet: the underlay's
	case flavour.IPIP:
		adj.Kind = fib.KindIPIP
	default:
		adj.Kind, adj.VNI, adj.MAC = fib.KindVXLAN, p.desired.VNI, peer.VTEPMAC
	}
	var local flavour.Endpoint
	if p.desired.Local != nil {
		local = p.desired.Local.Endpoint(peer.PublicIP.Is6())
	}
	if !local.PublicIP.IsValid() {
		return adj, fmt.Errorf("this node has no address in the cluster yet, or none of the family of %s", peer.PublicIP)
	}
	own := packet.AddrFrom(local.PublicIP)
	switch adj.Kind {
	case fib.KindDirect:
		adj.Rewrite = encap.Ethernet(packet.MAC{}, packet.MAC{}, 0) // the MACs are the next hop's part
	case fib.KindIPIP:
		adj.Rewrite, err = encap.IPIP(encap.IPIPParams{Src: own, Dst: remote})
	default:
		adj.Rewrite, err = encap.VXLAN(encap.VXLANParams{
			Src: own, Dst: remote, DstPort: p.desired.Port, VNI: p.desired.VNI, InnerSrc: local.VTEPMAC, InnerDst: peer.VTEPMAC,
		})
	}
	adj.Ready = err == nil
	return adj, err
}

// narrow makes a tunnel as small as the path to its peer is known to be.
func (p *Programmer) narrow(tunnel *fib.Adjacency) {
	if mtu := p.paths[tunnel.Via]; mtu != 0 {
		tunnel.MTU = uint16(min(int(tunnel.MTU), max(0, mtu-tunnel.Rewrite.Overhead())))
	}
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
