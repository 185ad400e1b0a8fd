package program

import (
	"net/netip"

	"culvert/ctrl/flavour"
	"culvert/fib"
	"culvert/internal/packet"
)

// wantMappings are the ports of node n's own addresses that lead to its pods. One for an
// address that the node does not have, or of a family that the pod does not have, leads
// nowhere.
func (p *Programmer) wantMappings(n *flavour.Node) (all []fib.PortMapping) {
	for _, v6 := range []bool{false, true} {
		own := n.Endpoint(v6).PublicIP
		if !own.IsValid() {
			continue
		}
		for _, pod := range p.pods {
			to := ofFamily(pod.Addrs, own.Is4())
			for _, m := range pod.Ports {
				if !to.IsValid() || !m.holds(own) {
					continue
				}
				all = append(all, fib.PortMapping{
					Proto: m.Proto, Port: m.Port, Addr: packet.AddrFrom(own), To: packet.AddrFrom(to), ToPort: m.ToPort,
				})
			}
		}
	}
	fib.SortMappings(all)
	return all
}

// holds reports whether the mapping is for that address of the node.
func (m *PortMapping) holds(own netip.Addr) bool {
	switch {
	case !m.Addr.IsValid() || m.Addr == own:
		return true
	case m.Addr.IsUnspecified():
		return m.Addr.Is4() == own.Is4()
	}
	return false
}

// ofFamily is the first address of a family, or the invalid one.
func ofFamily(addrs []netip.Addr, v4 bool) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}
