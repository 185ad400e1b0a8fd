package program

import (
	"net/netip"
	"testing"

	"culvert/internal/packet"
)

// A path that is known to be narrow makes the tunnel to that peer narrow, by each of
// its ways, and no other; and it becomes as wide again.
func TestPathMTU(t *testing.T) {
	n := network{addr("192.168.0.2"): resolved("192.168.0.2"), addr("192.168.0.3"): {
		{Dev: "eth0", Ifindex: 7, Via: addr("10.0.0.1"), MTU: 1500, Resolved: true, Weight: 1},
		{Dev: "eth0", Ifindex: 7, Via: addr("10.0.0.2"), MTU: 1400, Resolved: true, Weight: 1},
	}}
	p, _ := newTest(n)
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24"), peer("n3", "192.168.0.3", "10.244.3.0/24")))
	mtus := func() (out [3]uint16) {
		_, adj := p.Snapshot().Find(ptr(packet.AddrFrom(addr("10.244.2.9"))))
		out[0] = adj.MTU
		r, _ := p.Snapshot().Route(prefix("10.244.3.0/24"))
		for i, m := range p.Snapshot().Members(r.Adj) {
			var k packet.Key
			for port := range uint16(1000) { // until a flow takes that member
				k = packet.Key{Src: packet.AddrFrom(addr("10.244.1.9")), Dst: packet.AddrFrom(addr("10.244.3.9")), SrcPort: port, Proto: 17, Family: 4}
				if _, adj := p.Snapshot().FindFlow(&k); adj.Gateway == m.Gateway {
					out[1+i] = adj.MTU
					break
				}
			}
		}
		return out
	}
	want := func(what string, w [3]uint16) {
		t.Helper()
		if got := mtus(); got != w {
			t.Errorf("%s: %v, want %v", what, got, w)
		}
	}
	want("before", [3]uint16{1450, 1450, 1350})
	p.SetPathMTUs(map[netip.Addr]int{addr("192.168.0.3"): 1300})
	want("one is narrow", [3]uint16{1450, 1250, 1250})
	p.SetPathMTUs(map[netip.Addr]int{addr("192.168.0.2"): 576, addr("192.168.0.3"): 1420})
	want("both are", [3]uint16{526, 1370, 1350})
	p.SetPathMTUs(map[netip.Addr]int{addr("192.168.0.2"): 9000, addr("192.168.0.77"): 1300})
	want("wider than the link, and nobody", [3]uint16{1450, 1450, 1350})
	gen := p.Snapshot().Gen()
	p.SetPathMTUs(nil)
	if want("none", [3]uint16{1450, 1450, 1350}); p.Snapshot().Gen() != gen {
		t.Error("nothing changed, and tables were published")
	}
}

func ptr[T any](v T) *T { return &v }
