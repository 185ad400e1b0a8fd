package program

import (
	"fmt"
	"slices"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/encap"
	"culvert/fib"
)

// wantOutside is how pods' packets leave the cluster: where the kernel's routes lead. To
// gateways on uplinks by the uplinks' ports; all else, such as what is on the link or
// reached by another device, by way of the node's own stack, which knows how. So is what a
// gateway is to have that does not answer: the kernel asks for it, too.
func (p *Programmer) wantOutside() (r rows) {
	if !isKnown(p.desired) {
		return r
	}
	known := map[string]bool{}
	for _, out := range p.underlay.Routes() {
		ready := slices.DeleteFunc(slices.Clone(out.Hops), func(nh underlay.NextHop) bool { return p.problem(nh) != nil })
		to, protocol := "outside by the host", protoKernel
		switch {
		case len(ready) > 0:
			to = p.wantGateways(&r, known, ready)
		case p.host.Dev == "":
			continue
		case out.Own: // of any device, and Services' in kube-proxy's IPVS mode: not out of the cluster
			to, protocol = "own addresses", protoAddress
		}
		if len(ready) == 0 && !known[to] {
			known[to] = true
			r.adjacencies = append(r.adjacencies, adjacencyRow{to, p.toHost(!out.Own)})
		}
		r.routes = append(r.routes, routeRow{out.Dst.Masked(), route{to, protocol}})
	}
	return r
}

// isKnown reports whether the cluster says who this node is. Before, as while culvertd
// starts, nobody knows which pods' packets are translated, nor to what.
func isKnown(d *flavour.Desired) bool { return d.Local != nil && d.Local.PublicIP.IsValid() }

// wantGateways adds the gateways of a route, which others may have as well, and returns
// what the route leads to.
func (p *Programmer) wantGateways(r *rows, known map[string]bool, ready []underlay.NextHop) string {
	ready = ready[:min(len(ready), fib.MaxMembers)]
	group := groupRow{name: "outside"}
	for _, nh := range ready {
		name := fmt.Sprintf("outside via %s dev %s mtu %d", nh.Via, nh.Dev, nh.MTU)
		weight := uint16(min(max(nh.Weight, 1), fib.MaxWeight))
		group.name += fmt.Sprintf(" via %s dev %s mtu %d weight %d", nh.Via, nh.Dev, nh.MTU, weight)
		group.members = append(group.members, member{name, weight})
		if known[name] {
			continue
		}
		known[name] = true
		r.adjacencies = append(r.adjacencies, adjacencyRow{name, adjacency{fib.Adjacency{
			Kind: fib.KindDirect, Ready: true, MTU: 65535, Outside: true, Via: nh.Via, Rewrite: encap.Ethernet([6]byte{}, [6]byte{}, 0),
		}, p.wantHop(r, nh)}})
	}
	if len(ready) == 1 {
		return group.members[0].adjacency
	}
	if !known[group.name] {
		known[group.name] = true
		r.groups = append(r.groups, group)
	}
	return group.name
}
