package dataplane

import (
	"testing"

	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// takeInjected handles what came by mail, as the worker does between two bursts.
func (n *testNode) takeInjected() {
	n.w.takeMail()
	n.w.handleInjected()
}

// A tunnel packet that the kernel has put together is handled as if the uplink had
// received it, whatever its size, and refused for the same reasons.
func TestInject(t *testing.T) {
	n1, _ := pair(t)
	inner := kit.Frame(t, kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(1400))
	wrap := func(src string) []byte {
		return kit.Frame(t, kit.Eth("00:00:00:00:00:00", "00:00:00:00:00:00"), kit.IP4(src, node1), kit.UDP(40000, testPort),
			kit.VXLANHeader(testVNI), kit.Bytes(inner...))
	}
	if !n1.e.Inject(n1.upPort, 7, wrap(node2)) {
		t.Fatal("refused")
	}
	n1.takeInjected()
	got := one(t, n1.pods["a"].dev.TakeSent()).Data
	kit.CheckPacket(t, got, kit.Src(ipB), kit.Dst(ipA), kit.WithTTL(63), kit.WithPayload(kit.Pattern(1400)))

	n1.e.Inject(n1.upPort, 7, wrap("192.168.0.77"))
	n1.e.Inject(n1.upPort, 7, []byte{1, 2, 3})
	n1.e.Inject(4000, 7, wrap(node2)) // a port that has gone
	n1.takeInjected()
	if n1.drops(drop.TunnelUnknownPeer) != 1 || n1.drops(drop.FrameTooShort) != 1 {
		t.Errorf("drops: %+v", n1.e.Drops())
	}

	long := kit.Frame(t, kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(64000))
	f := kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI), kit.Bytes(long...))
	n1.e.Inject(n1.upPort, 7, f)
	n1.takeInjected() // cut to the pod's MTU: 64,008 bytes in fragments of 1,424
	if sent := n1.pods["a"].dev.TakeSent(); len(sent) != 45 {
		t.Errorf("a datagram of 64,000 bytes became %d fragments, want 45", len(sent))
	}
}

// What is injected faster than it is handled is refused and counted.
func TestInjectIsBounded(t *testing.T) {
	n1, _ := pair(t)
	refused := uint64(0)
	for range maxInjected + 10 {
		if !n1.e.Inject(n1.upPort, 0, []byte{1}) {
			refused++
			n1.e.Lost(n1.upPort, 1, drop.OuterFragment)
		}
	}
	n1.takeInjected()
	if refused != 10 || n1.drops(drop.OuterFragment) != 10 || n1.drops(drop.FrameTooShort) != maxInjected {
		t.Errorf("%d refused; drops %+v", refused, n1.e.Drops())
	}
}

// The sender of a packet that met a narrow path is told at once, by the tables that
// are in force now: only a pod of the node, only if the packet is too large, never
// about a packet that can be cut.
func TestTellSender(t *testing.T) {
	n1, n2 := pair(t)
	n1.route("10.244.3.0/24", narrowTo(t, n1, n2, 1300))
	quote := func(src, dst string, df bool, size int) []byte {
		ip := kit.IP4(src, dst)
		if df {
			ip = kit.IP4(src, dst, kit.DF())
		}
		f := kit.Frame(t, kit.Eth(vtep1, vtep2), ip, kit.UDP(4711, 80), kit.Payload(size))
		return f[:min(len(f), 200)] // routers quote the beginning
	}
	tell := func(q []byte) [][]byte {
		n1.e.TellSender(n1.upPort, q)
		n1.takeInjected()
		var out [][]byte
		for _, s := range n1.pods["a"].dev.TakeSent() {
			out = append(out, s.Data)
		}
		return out
	}
	got := tell(quote(ipA, "10.244.3.9", true, 1400))
	if len(got) != 1 {
		t.Fatalf("%d frames, want 1", len(got))
	}
	p := kit.CheckPacket(t, got[0], kit.Src(node1), kit.Dst(ipA), kit.WithICMP(3, 4))
	if mtu := p.Data()[14+20+6 : 14+20+8]; mtu[0] != 1300>>8 || mtu[1] != 1300&0xff {
		t.Errorf("MTU % x, want 1300", mtu)
	}
	for what, q := range map[string][]byte{
		"it fits":                  quote(ipA, "10.244.3.9", true, 1200),
		"it may be cut":            quote(ipA, "10.244.3.9", false, 1400),
		"it is to a wide path":     quote(ipA, ipB, true, 1400),
		"it is no pod's":           quote("10.244.9.9", "10.244.3.9", true, 1400),
		"it is another node's pod": quote(ipB, "10.244.3.9", true, 1400),
		"it is to nobody":          quote(ipA, "10.99.0.1", true, 1400),
		"it ends in its headers":   quote(ipA, "10.244.3.9", true, 1400)[:30],
		"it is nothing":            nil,
	} {
		if got := tell(q); len(got) != 0 {
			t.Errorf("%s: %d frames", what, len(got))
		}
	}
	if sent := n1.uplink.TakeSent(); len(sent) != 0 {
		t.Errorf("%d frames to the wire", len(sent))
	}
}

// narrowTo is an adjacency to a node whose path takes only so much.
func narrowTo(t *testing.T, n, peer *testNode, mtu uint16) fib.Adjacency {
	t.Helper()
	tmpl, err := encap.VXLAN(encap.VXLANParams{
		SrcMAC: n.nic, DstMAC: peer.nic, Src: packet.AddrFrom(n.addr), Dst: packet.AddrFrom(peer.addr),
		DstPort: testPort, VNI: testVNI, InnerSrc: n.mac, InnerDst: peer.mac,
	})
	if err != nil {
		t.Fatal(err)
	}
	return fib.Adjacency{Kind: fib.KindVXLAN, Ready: true, Port: n.upPort, MTU: mtu, Rewrite: tmpl, Via: peer.addr, VNI: testVNI, MAC: peer.mac, Dev: "u0"}
}
