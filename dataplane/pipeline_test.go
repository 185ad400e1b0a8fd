package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	gwMAC = "ee:ee:ee:ee:ee:ee"
	macA  = "0a:58:0a:f4:01:02"
	macB  = "0a:58:0a:f4:02:02"
	ipA   = "10.244.1.2"
	ipB   = "10.244.2.2"
	ipC   = "10.244.1.3"
	vtep1 = "66:00:00:00:00:01"
	vtep2 = "66:00:00:00:00:02"
	node1 = "192.168.0.1"
	node2 = "192.168.0.2"
	nic1  = "02:00:00:00:00:01"
	nic2  = "02:00:00:00:00:02"
)

// one fails unless exactly one frame was sent, and returns it.
func one(t *testing.T, sent []memport.Sent) memport.Sent {
	t.Helper()
	if len(sent) != 1 {
		t.Fatalf("%d frames were sent, want 1", len(sent))
	}
	return sent[0]
}

func udpAB(t *testing.T, size int) []byte {
	return kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(4711, 80), kit.Payload(size))
}

// The life of one packet: out of a pod, over the wire, into another pod, and
// the answer back; every header checked at each hop.
func TestPodToPodAcrossNodes(t *testing.T) {
	n1, n2 := pair(t)
	out := one(t, n1.fromPod("a", udpAB(t, 100))).Data
	inner := kit.CheckVXLAN(t, out,
		kit.OuterSrc(node1), kit.OuterDst(node2), kit.OuterSrcMAC(nic1), kit.OuterDstMAC(nic2),
		kit.OuterTTL(64), kit.OuterTOS(0), kit.OuterDF(false), kit.OuterDstPort(4789), kit.VNI(testVNI))
	kit.CheckPacket(t, inner, kit.SrcMAC(vtep1), kit.DstMAC(vtep2), kit.Src(ipA), kit.Dst(ipB),
		kit.WithTTL(63), kit.WithPorts(4711, 80), kit.WithPayload(kit.Pattern(100)))

	got := one(t, n2.fromWire("b", out)).Data
	kit.CheckPacket(t, got, kit.SrcMAC(gwMAC), kit.DstMAC(macB), kit.Src(ipA), kit.Dst(ipB),
		kit.WithTTL(62), kit.WithPorts(4711, 80), kit.WithPayload(kit.Pattern(100)))

	reply := kit.Frame(t, kit.Eth(macB, gwMAC), kit.IP4(ipB, ipA), kit.UDP(80, 4711), kit.Payload(7))
	back := one(t, n2.fromPod("b", reply)).Data
	kit.CheckVXLAN(t, back, kit.OuterSrc(node2), kit.OuterDst(node1))
	got = one(t, n1.fromWire("a", back)).Data
	kit.CheckPacket(t, got, kit.DstMAC(macA), kit.Src(ipB), kit.WithTTL(62), kit.WithPayload(kit.Pattern(7)))
	n1.wantDrops(drop.None, 0)
	n2.wantDrops(drop.None, 0)
	if got := n1.e.FlowTable().Len(); got != 1 {
		t.Errorf("node 1 has %d flows, want the one connection", got)
	}
}

func TestPodToPodOnOneNode(t *testing.T) {
	n1, _ := pair(t)
	f := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipC), kit.TCP(4711, 80), kit.Payload(10)))
	if sent := n1.fromPod("a", f); len(sent) != 0 {
		t.Fatalf("%d frames left on the uplink", len(sent))
	}
	got := one(t, n1.pods["c"].dev.TakeSent())
	if got.Flags&frame.CsumPartial == 0 || got.CsumStart != 34 || got.CsumOffset != 16 {
		t.Errorf("a partial checksum must stay the device's to complete: %+v", got)
	}
	n1.pods["c"].dev.Complete = true
	n1.fromPod("a", f)
	kit.CheckPacket(t, one(t, n1.pods["c"].dev.TakeSent()).Data, kit.SrcMAC(gwMAC), kit.Src(ipA), kit.Dst(ipC), kit.WithTTL(63))
}

// A partial checksum inside a tunnel is completed by the device, too.
func TestPartialChecksumOverTheWire(t *testing.T) {
	n1, n2 := pair(t)
	n1.uplink.Complete = true
	f := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(4711, 80), kit.Payload(999)))
	out := one(t, n1.fromPod("a", f)).Data
	kit.CheckPacket(t, kit.CheckVXLAN(t, out), kit.WithPayload(kit.Pattern(999)))

	// A veth underlay leaves it partial on the way: it must arrive so.
	n1.uplink.Complete = false
	out = one(t, n1.fromPod("a", f)).Data
	if got := one(t, n2.fromWire("b", out)); got.Flags&frame.CsumPartial == 0 {
		t.Error("the checksum that arrived partial was passed on as if it were complete")
	}
}

// Ethernet padding, inside and outside of the tunnel, is not part of the packet.
func TestPaddingIsCutOff(t *testing.T) {
	n1, n2 := pair(t)
	f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(1, 2), kit.Payload(3))
	const size = 14 + 20 + 8 + 3
	out := one(t, n1.fromPod("a", f)).Data // 60 bytes: Ethernet's least
	if want := 50 + size; len(out) != want {
		t.Errorf("left with %d bytes, want %d", len(out), want)
	}
	got := one(t, n2.fromWire("b", kit.Pad(out, 9))).Data
	if len(got) != size {
		t.Errorf("arrived with %d bytes, want %d", len(got), size)
	}
}

func TestTracerouteShowsBothNodes(t *testing.T) {
	n1, n2 := pair(t)
	for ttl, hop := range map[uint8]string{1: node1, 2: node2} {
		probe := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.TTL(ttl)), kit.UDP(4711, 33434), kit.Payload(12))
		n1.pods["a"].dev.Inject(probe)
		wire(n1, n2)
		got := one(t, n1.pods["a"].dev.TakeSent()).Data
		kit.CheckPacket(t, got, kit.SrcMAC(gwMAC), kit.DstMAC(macA), kit.Src(hop), kit.Dst(ipA), kit.WithICMP(11, 0))
	}
	if n1.drops(drop.TTLExceeded) != 1 || n2.drops(drop.TTLExceeded) != 1 {
		t.Error("each node must count one ttl_exceeded")
	}
}

func TestGatewayAnswersARPAndPing(t *testing.T) {
	n1, _ := pair(t)
	a := n1.pods["a"].dev
	for _, target := range []string{"169.254.1.1", ipC, ipB} {
		n1.fromPod("a", kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macA, ipA, target)))
		want := kit.Frame(t, kit.Eth(gwMAC, macA), kit.ARPReply(gwMAC, target, macA, ipA))
		if got := one(t, a.TakeSent()).Data; !bytes.Equal(got, want) {
			t.Errorf("who has %s:\n got %x\nwant %x", target, got, want)
		}
	}
	n1.wantDrops(drop.None, 0)
	for _, target := range []string{ipA, "203.0.113.9"} { // its own address, and one that leads nowhere
		n1.fromPod("a", kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macA, ipA, target)))
		if got := a.TakeSent(); len(got) != 0 {
			t.Errorf("a request for %s was answered", target)
		}
	}
	n1.wantDrops(drop.ARPIgnored, 2)
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "169.254.1.1"), kit.ICMP4(8, 0, 7, 1), kit.Payload(56)))
	kit.CheckPacket(t, one(t, a.TakeSent()).Data, kit.Src("169.254.1.1"), kit.Dst(ipA), kit.WithICMP(0, 0))
}

// A flood of exceptions is answered within the budget of a burst; flows in the
// same burst are not touched.
func TestExceptionFloodLeavesFlowsAlone(t *testing.T) {
	n1, _ := pair(t)
	ping := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "169.254.1.1"), kit.ICMP4(8, 0, 7, 1))
	var burst [][]byte
	for range frame.BurstSize - 1 {
		burst = append(burst, ping)
	}
	burst = append(burst, udpAB(t, 10))
	one(t, n1.fromPod("a", burst...))
	if got := len(n1.pods["a"].dev.TakeSent()); got != exceptionBudget {
		t.Errorf("%d answers in one burst, want %d", got, exceptionBudget)
	}
	n1.wantDrops(drop.ExceptionBudget, frame.BurstSize-1-exceptionBudget)
}

// The drop reasons of the decision, each with the frame that provokes it. The
// parser's own are tested in internal/packet; two stand here for all.
func TestDropReasons(t *testing.T) {
	eth := kit.Eth(macA, gwMAC)
	vx := func(t *testing.T, inner ...kit.Layer) []byte {
		return kit.Frame(t, append([]kit.Layer{kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, 4789),
			kit.VXLANHeader(testVNI)}, inner...)...)
	}
	fromB := func(t *testing.T) []byte {
		return vx(t, kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(4))
	}
	tests := []struct {
		name   string
		reason drop.Reason
		port   string // pod name, or "" for the wire
		frame  func(t *testing.T) []byte
		answer bool // the sender is told by ICMP
	}{
		{"short", drop.FrameTooShort, "a", func(t *testing.T) []byte { return make([]byte, 10) }, false},
		{"bad IP checksum", drop.IPv4Checksum, "a", func(t *testing.T) []byte { return kit.Corrupt(udpAB(t, 4), 24, 0xde, 0xad) }, false},
		{"LLDP", drop.EthertypeUnsupported, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.EthType(macA, "01:80:c2:00:00:0e", 0x88cc), kit.Payload(50))
		}, false},
		{"tagged", drop.EthertypeUnsupported, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.VLAN(7), kit.IP4(ipA, ipB), kit.UDP(1, 2), kit.Payload(20))
		}, false},
		{"spoofed MAC", drop.SpoofedMAC, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(macB, gwMAC), kit.IP4(ipA, ipB), kit.UDP(1, 2))
		}, false},
		{"spoofed source", drop.SpoofedSource, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipC, ipB), kit.UDP(1, 2))
		}, false},
		{"spoofed ARP", drop.SpoofedSource, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macA, ipC, "169.254.1.1"))
		}, false},
		{"forged ARP sender", drop.ARPInvalid, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macB, ipA, "169.254.1.1"))
		}, false},
		{"gratuitous ARP", drop.ARPIgnored, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macA, ipA, ipA))
		}, false},
		{"wrong gateway MAC", drop.NotForUs, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(macA, macB), kit.IP4(ipA, ipB), kit.UDP(1, 2))
		}, false},
		{"multicast", drop.Multicast, "a", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(macA, "01:00:5e:00:00:fb"), kit.IP4(ipA, "224.0.0.251"), kit.UDP(5353, 5353))
		}, false},
		{"no route", drop.NoRoute, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "203.0.113.1"), kit.UDP(1, 2), kit.Payload(8))
		}, true},
		{"own pod CIDR without pod", drop.Blackhole, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "10.244.1.99"), kit.UDP(1, 2))
		}, false},
		{"rejected", drop.Reject, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "10.99.0.1"), kit.UDP(1, 2), kit.Payload(8))
		}, true},
		{"unresolved next hop", drop.NeighbourUnresolved, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "10.244.3.1"), kit.UDP(1, 2), kit.Payload(8))
		}, true},
		{"port that is gone", drop.PortGone, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "10.244.1.98"), kit.UDP(1, 2))
		}, false},
		{"TCP to the gateway", drop.HostUnreachable, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "169.254.1.1"), kit.TCP(1, 22))
		}, true},
		{"ICMP error to the gateway", drop.ICMPIgnored, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "169.254.1.1"), kit.ICMP4(3, 3, 0, 0), kit.Payload(28))
		}, false},
		{"fragmented ping to the gateway", drop.FragmentToNode, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, "169.254.1.1", kit.Fragment(0, true), kit.Proto(1)), kit.ICMP4(8, 0, 1, 1), kit.Payload(64))
		}, false},
		{"ping with a bad checksum", drop.L4Checksum, "a", func(t *testing.T) []byte {
			return kit.Corrupt(kit.Frame(t, eth, kit.IP4(ipA, "169.254.1.1"), kit.ICMP4(8, 0, 1, 1), kit.Payload(8)), 44, 0xff)
		}, false},
		{"TTL 1", drop.TTLExceeded, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, ipB, kit.TTL(1)), kit.UDP(1, 2), kit.Payload(8))
		}, true},
		{"too big", drop.TooBig, "a", func(t *testing.T) []byte {
			return kit.Frame(t, eth, kit.IP4(ipA, ipB, kit.DF()), kit.UDP(1, 2), kit.Payload(1450))
		}, true},

		{"outer fragment", drop.OuterFragment, "", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Fragment(0, true)), kit.UDP(40000, 4789), kit.Payload(40))
		}, false},
		{"another node's VTEP", drop.TunnelNotOurs, "", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, "192.168.0.9"), kit.UDP(40000, 4789), kit.VXLANHeader(testVNI),
				kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2))
		}, false},
		{"unknown VNI", drop.VXLANUnknownVNI, "", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, 4789), kit.VXLANHeader(99),
				kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2))
		}, false},
		{"reserved VXLAN bits", drop.VXLANFlags, "", func(t *testing.T) []byte { return kit.Corrupt(fromB(t), 42, 0x88) }, false},
		{"truncated tunnel", drop.TunnelTruncated, "", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, 4789), kit.Payload(10))
		}, false},
		{"inner MAC of another node", drop.VXLANInnerMAC, "", func(t *testing.T) []byte {
			return vx(t, kit.Eth(vtep2, macA), kit.IP4(ipB, ipA), kit.UDP(1, 2))
		}, false},
		{"our own MAC as inner source", drop.VXLANLoop, "", func(t *testing.T) []byte {
			return vx(t, kit.Eth(vtep1, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2))
		}, false},
		{"unknown peer", drop.TunnelUnknownPeer, "", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4("192.168.0.77", node1), kit.UDP(40000, 4789), kit.VXLANHeader(testVNI),
				kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2))
		}, false},
		{"inner source of another peer", drop.TunnelSourceMismatch, "", func(t *testing.T) []byte {
			return vx(t, kit.Eth(vtep2, vtep1), kit.IP4("10.244.3.7", ipA), kit.UDP(1, 2))
		}, false},
		{"outer CE on Not-ECT", drop.TunnelECN, "", func(t *testing.T) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.TOS(3)), kit.UDP(40000, 4789), kit.VXLANHeader(testVNI),
				kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2))
		}, false},
		{"ARP in the tunnel", drop.ARPIgnored, "", func(t *testing.T) []byte {
			return vx(t, kit.Eth(vtep2, vtep1), kit.ARPRequest(vtep2, ipB, ipA))
		}, false},
		{"inner garbage", drop.IPVersion, "", func(t *testing.T) []byte {
			return vx(t, kit.EthType(vtep2, vtep1, 0x0800), kit.Payload(60))
		}, false},
		{"transit", drop.NoRoute, "", func(t *testing.T) []byte {
			return vx(t, kit.Eth(vtep2, vtep1), kit.IP4(ipB, "10.244.3.1"), kit.UDP(1, 2))
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := dropNode(t)
			in := n.uplink
			if tt.port != "" {
				in = n.pods[tt.port].dev
			}
			in.Inject(tt.frame(t))
			n.step()
			n.wantDrops(tt.reason, 1)
			told := in.TakeSent()
			if tt.answer != (len(told) == 1) {
				t.Errorf("%d answers, want an ICMP error: %v", len(told), tt.answer)
			}
			for _, s := range told {
				kit.CheckPacket(t, s.Data, kit.WithProto(1))
			}
			if flows := n.e.FlowTable().Len(); flows > 1 {
				t.Errorf("a refused packet made %d flows", flows)
			}
		})
	}
}

// dropNode is node 1 with every kind of route.
func dropNode(t *testing.T) *testNode {
	n, n2 := newTestNode(t, node1, 1), newTestNode(t, node2, 2)
	n.addPod("a", ipA)
	n.addPeer("10.244.2.0/24", n2)
	n.addKernelPeer("10.244.3.0/24", netip.MustParseAddr("192.168.0.3"), packet.MAC{0x66, 0, 0, 0, 0, 3}, packet.MAC{2, 0, 0, 0, 0, 3})
	n.route("10.244.3.1/32", fib.Adjacency{Kind: fib.KindVXLAN, Port: n.upPort, MTU: podMTU})
	n.route("10.244.1.0/24", fib.Adjacency{Kind: fib.KindBlackhole})
	n.route("10.99.0.0/16", fib.Adjacency{Kind: fib.KindReject})
	n.route("10.244.1.98/32", fib.Adjacency{Kind: fib.KindPod, Ready: true, Port: 77, MTU: podMTU})
	return n
}

// Truncated at every length, a frame costs one counter and nothing else.
func TestTruncationIsCounted(t *testing.T) {
	n1, n2 := pair(t)
	whole := one(t, n1.fromPod("a", udpAB(t, 30))).Data
	for cut := 1; cut < len(whole); cut++ {
		n2.uplink.Inject(whole[:cut])
	}
	for cut := 1; cut < len(whole)-50; cut++ {
		n2.pods["b"].dev.Inject(kit.Frame(t, kit.Eth(macB, gwMAC), kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(30))[:cut])
	}
	n2.step()
	if got := n2.pods["b"].dev.TakeSent(); len(got) != 0 {
		t.Errorf("%d truncated frames were delivered", len(got))
	}
	var dropped uint64
	for _, d := range n2.e.Drops() {
		dropped += d.Packets
	}
	if want := uint64(len(whole)-1) + uint64(len(whole)-51); dropped != want {
		t.Errorf("%d drops for %d truncated frames", dropped, want)
	}
	one(t, n2.fromWire("b", whole))
}

// A full ring costs the frames that find it full, at the port whose ring it is.
func TestFullRingDropsAtTheEgressPort(t *testing.T) {
	n1, _ := pair(t)
	n1.uplink.Limit.Store(3)
	var burst [][]byte
	for range 10 {
		burst = append(burst, udpAB(t, 10))
	}
	if sent := n1.fromPod("a", burst...); len(sent) != 3 {
		t.Errorf("%d sent, want 3", len(sent))
	}
	for _, d := range n1.e.Drops() {
		if d.Reason != drop.TxRingFull || d.Port != "u0" || d.Packets != 7 {
			t.Errorf("drop %+v, want 7 × tx_ring_full at u0", d)
		}
	}
}

// A pod that takes nothing any more loses its own frames and nobody else's, from the
// wire and from the node.
func TestFullRingOfOnePodIsItsOwn(t *testing.T) {
	n1, _ := pair(t)
	stuck, fine := n1.pods["a"], n1.pods["c"]
	stuck.dev.Limit.Store(1)
	var frames [][]byte
	for i := range uint16(frame.BurstSize / 2) {
		for _, dst := range []string{ipA, ipC} {
			frames = append(frames, kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
				kit.Eth(vtep2, vtep1), kit.IP4(ipB, dst), kit.UDP(1000+i, 80)))
		}
	}
	n1.uplink.Inject(frames...)
	n1.step()
	if got := len(fine.dev.TakeSent()); got != frame.BurstSize/2 {
		t.Errorf("%d frames reached the other pod, want %d", got, frame.BurstSize/2)
	}
	for _, d := range n1.e.Drops() {
		if d.Port != "cva" || d.Reason != drop.TxRingFull || d.Packets != frame.BurstSize/2-1 {
			t.Errorf("dropped: %+v", d)
		}
	}
}

// Removing a pod loses its own frames only and gives its chunks back.
func TestRemovePort(t *testing.T) {
	n1, _ := pair(t)
	free := n1.e.Pool(0).FreeChunks()
	one(t, n1.fromPod("a", udpAB(t, 10)))
	if err := n1.e.RemovePort(n1.pods["a"].port); err != nil {
		t.Fatal(err)
	}
	if !n1.pods["a"].dev.Closed() {
		t.Error("the device was not closed")
	}
	if got := n1.e.Pool(0).FreeChunks(); got != free {
		t.Errorf("%d free chunks, want %d", got, free)
	}
	if err := n1.e.RemovePort(n1.pods["a"].port); err == nil {
		t.Error("a port was removed twice")
	}
	n1.fromPod("c", kit.Frame(t, kit.Eth("0a:58:0a:f4:01:03", gwMAC), kit.IP4(ipC, ipA), kit.UDP(1, 2)))
	n1.wantDrops(drop.PortGone, 1)
}

// A change of the tables reaches established flows at their next packet, and
// the flow keeps its counters.
func TestTableChangeReachesEstablishedFlows(t *testing.T) {
	n1, _ := pair(t)
	one(t, n1.fromPod("a", udpAB(t, 10)))
	n3 := newTestNode(t, "192.168.0.3", 3)
	n1.addPeer("10.244.2.0/24", n3)
	out := one(t, n1.fromPod("a", udpAB(t, 10))).Data
	kit.CheckVXLAN(t, out, kit.OuterDst("192.168.0.3"))
	if got := n1.e.FlowTable().Len(); got != 1 {
		t.Errorf("%d flows, want 1", got)
	}
	n1.table.DeleteRoute(netip.MustParsePrefix("10.244.2.0/24"))
	n1.commit()
	if sent := n1.fromPod("a", udpAB(t, 10)); len(sent) != 0 {
		t.Error("a flow without a route was forwarded")
	}
	n1.wantDrops(drop.NoRoute, 1)
}
