package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	node3  = "192.168.0.3"
	nic3   = "02:00:00:00:00:03"
	ipD    = "10.244.3.2"
	ipD6   = "fd00:10:244:3::2"
	router = "198.51.100.1"
)

// mixedNode is node 1 with pods a and a6, one peer in IPIP, node 2 with 10.244.2.0/24,
// and one without a tunnel, node 3 with 10.244.3.0/24 and a prefix of IPv6.
func mixedNode(t *testing.T) *testNode {
	t.Helper()
	n := newTestNode(t, node1, 1)
	n.addPod("a", ipA)
	n.addPod("a6", kindA6)
	own := packet.AddrFrom(n.addr)
	n.table.SetNode(fib.Node{Addr4: own, IPIP: own, Routed: true})
	remote := netip.MustParseAddr(node2)
	tmpl, err := encap.IPIP(encap.IPIPParams{SrcMAC: n.nic, DstMAC: packet.MAC{2, 0, 0, 0, 0, 2}, Src: own, Dst: packet.AddrFrom(remote)})
	if err != nil {
		t.Fatal(err)
	}
	n.route("10.244.2.0/24", fib.Adjacency{
		Kind: fib.KindIPIP, Ready: true, Port: n.upPort, MTU: wireMTU - encap.OverheadIPIP, Rewrite: tmpl,
		Via: remote, Peer: ptr(packet.AddrFrom(remote)).Fold(), Dev: "u0",
	})
	remote = netip.MustParseAddr(node3)
	for _, prefix := range []string{"10.244.3.0/24", "fd00:10:244:3::/64"} {
		n.route(prefix, fib.Adjacency{
			Kind: fib.KindDirect, Ready: true, Port: n.upPort, MTU: wireMTU, Rewrite: encap.Ethernet(packet.MAC{2, 0, 0, 0, 0, 3}, n.nic, 0),
			Via: remote, Remote: remote, Peer: ptr(packet.AddrFrom(remote)).Fold(), Dev: "u0",
		})
	}
	n.route("10.244.1.0/24", fib.Adjacency{Kind: fib.KindBlackhole})
	n.route(node1+"/32", fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535})
	return n
}

// inIPIP is a frame from node 2 to node 1 that holds a packet.
func inIPIP(t *testing.T, tos uint8, inner ...kit.Layer) []byte {
	t.Helper()
	return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Proto(4), kit.TOS(tos)), kit.Bytes(kit.IP(t, inner...)...))
}

// To a peer in IPIP: outer TTL and DF are the packet's, ECN is (RFC 3168 9.1.1), DSCP
// is not (net/ipv4/ip_tunnel.c, ip_tunnel_xmit of a device with TTL and TOS 0).
func TestIPIPLeaves(t *testing.T) {
	for _, c := range []struct {
		tos, outer uint8
		df         bool
	}{{0, 0, false}, {0xb8, 0, true}, {0xb9, 1, false}, {2, 2, true}, {3, 2, false}} {
		n := mixedNode(t)
		opts := []func(*layers.IPv4){kit.TOS(c.tos), kit.TTL(17)}
		if c.df {
			opts = append(opts, kit.DF())
		}
		out := one(t, n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, opts...), kit.UDP(4711, 80), kit.Payload(30)))).Data
		kit.CheckIPIP(t, out, kit.OuterSrcMAC(nic1), kit.OuterDstMAC(nic2), kit.OuterSrc(node1), kit.OuterDst(node2),
			kit.OuterTTL(16), kit.OuterTOS(c.outer), kit.OuterDF(c.df),
			kit.Src(ipA), kit.Dst(ipB), kit.WithTTL(16), kit.WithTOS(c.tos), kit.WithDF(c.df), kit.WithPorts(4711, 80), kit.WithPayload(kit.Pattern(30)))
		n.wantDrops(drop.None, 0)
	}
}

// From a peer in IPIP, behind IP options, VLAN tags and with padding behind; ECN is
// joined (RFC 6040 4.2).
func TestIPIPArrives(t *testing.T) {
	packetTo := []kit.Layer{kit.IP4(ipB, ipA, kit.TTL(60), kit.TOS(2)), kit.UDP(80, 4711), kit.Payload(30)}
	inner := kit.Bytes(kit.IP(t, packetTo...)...)
	plain := inIPIP(t, 0, packetTo...)
	for name, c := range map[string]struct {
		f   []byte
		tos uint8
	}{
		"plain":   {plain, 2},
		"padded":  {kit.Pad(plain, 11), 2},
		"CE":      {inIPIP(t, 3, packetTo...), 3},
		"options": {kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Proto(4), kit.Option(1), kit.Option(1), kit.Option(1), kit.Option(1)), inner), 2},
		"tagged":  {kit.Frame(t, kit.Eth(nic2, nic1), kit.VLAN(7), kit.IP4(node2, node1, kit.Proto(4)), inner), 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := mixedNode(t)
			got := one(t, n.fromWire("a", c.f)).Data
			kit.CheckPacket(t, got, kit.SrcMAC(gwMAC), kit.DstMAC(macA), kit.Src(ipB), kit.Dst(ipA), kit.WithTTL(59), kit.WithTOS(c.tos),
				kit.WithPorts(80, 4711), kit.WithPayload(kit.Pattern(30)))
			if len(got) != 14+20+8+30 {
				t.Errorf("%d bytes arrived", len(got))
			}
			n.wantDrops(drop.None, 0)
		})
	}
}

// Without a tunnel nothing but the hop changes, in both families.
func TestRoutedGoesAsItIs(t *testing.T) {
	n := mixedNode(t)
	out := one(t, n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipD, kit.TOS(0xb9), kit.DF()), kit.UDP(4711, 80), kit.Payload(1472)))).Data
	kit.CheckPacket(t, out, kit.SrcMAC(nic1), kit.DstMAC(nic3), kit.Src(ipA), kit.Dst(ipD), kit.WithTTL(63), kit.WithTOS(0xb9), kit.WithDF(true), kit.WithPayload(kit.Pattern(1472)))
	got := one(t, n.fromWire("a", kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(ipD, ipA, kit.TOS(3)), kit.UDP(80, 4711), kit.Payload(9)))).Data
	kit.CheckPacket(t, got, kit.SrcMAC(gwMAC), kit.DstMAC(macA), kit.Src(ipD), kit.WithTTL(63), kit.WithTOS(3), kit.WithPayload(kit.Pattern(9)))
	if flows := n.e.FlowTable().Len(); flows != 1 {
		t.Errorf("%d flows, want the one connection", flows)
	}

	out = one(t, n.fromPod("a6", kit.Frame(t, kit.Eth(mac6A, gwMAC), kit.IP6(kindA6, ipD6), kit.UDP(4711, 80), kit.Payload(9)))).Data
	kit.CheckPacket(t, out, kit.SrcMAC(nic1), kit.DstMAC(nic3), kit.Src(kindA6), kit.Dst(ipD6), kit.WithTTL(63))
	got = one(t, n.fromWire("a6", kit.Frame(t, kit.Eth(nic3, nic1), kit.IP6(ipD6, kindA6), kit.UDP(80, 4711), kit.Payload(9)))).Data
	kit.CheckPacket(t, got, kit.DstMAC(mac6A), kit.Src(ipD6), kit.WithTTL(63))

	// A peer's own address, and one more VLAN tag than the intake would leave.
	one(t, n.fromWire("a", kit.Frame(t, kit.Eth(nic3, nic1), kit.VLAN(7), kit.IP4(node3, ipA), kit.UDP(80, 4712), kit.Payload(9))))
	n.wantDrops(drop.None, 0)
}

// A partial checksum stays the device's to complete, and a big frame of TCP goes whole
// where the device takes it: both ways, and in IPIP cut.
func TestBigFramesByKind(t *testing.T) {
	big := func(src, dst, srcMAC, dstMAC string) []byte {
		return kit.SetPartial(kit.Frame(t, kit.Eth(srcMAC, dstMAC), kit.IP4(src, dst), kit.TCP(4711, 80, kit.Flags("A")), kit.Payload(3000)))
	}
	for dst, frames := range map[string]int{ipD: 1, ipB: 3} {
		n := mixedNode(t)
		n.limit(n.upPort, frame.Limits{Offload: frame.OffloadTCP, Chunks: frame.MaxChunks, Bytes: 65535 + 14})
		n.pods["a"].dev.InjectBig(big(ipA, dst, macA, gwMAC), 1400, frame.SegTCP4)
		n.step()
		sent := n.uplink.TakeSent()
		if len(sent) != frames {
			t.Errorf("to %s went %d frames, want %d", dst, len(sent), frames)
			continue
		}
		if frames == 1 && (sent[0].SegSize != 1400 || sent[0].Flags&frame.SegTCP4 == 0 || sent[0].CsumStart != 34 || sent[0].OuterL4 != 0) {
			t.Errorf("the frame left as %+v", sent[0])
		}
	}
}

// What is refused of what the wire brings, with its reason. No reason tells the sender.
func TestWireDropReasons(t *testing.T) {
	udp := func(src, dst string) []kit.Layer {
		return []kit.Layer{kit.IP4(src, dst), kit.UDP(1, 2), kit.Payload(8)}
	}
	routed := func(src, dst string) []byte {
		return kit.Frame(t, append([]kit.Layer{kit.Eth(nic3, nic1)}, udp(src, dst)...)...)
	}
	outer := func(src, dst string) []byte {
		return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(src, dst, kit.Proto(4)), kit.Bytes(kit.IP(t, udp(ipB, ipA)...)...))
	}
	routedError := func(src string) []byte {
		return kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(src, ipA), kit.ICMP4(3, 4, 0, 1400), kit.Bytes(kit.IP(t, udp(ipA, ipD)...)...))
	}
	for _, c := range []struct {
		name   string
		reason drop.Reason
		f      []byte
	}{
		{"IPIP from a stranger", drop.TunnelUnknownPeer, outer("192.168.0.77", node1)},
		{"IPIP to another node", drop.RoutedSource, outer(node2, "192.168.0.9")},
		{"IPIP with a source of another peer", drop.TunnelSourceMismatch, inIPIP(t, 0, udp(ipD, ipA)...)},
		{"IPIP with a source of this node's", drop.TunnelSourceMismatch, inIPIP(t, 0, udp(ipC, ipA)...)},
		{"IPIP with a source of nobody's", drop.TunnelSourceMismatch, inIPIP(t, 0, udp("203.0.113.1", ipA)...)},
		{"IPIP for another peer", drop.NoRoute, inIPIP(t, 0, udp(ipB, ipD)...)},
		{"IPIP with CE on Not-ECT", drop.TunnelECN, inIPIP(t, 3, udp(ipB, ipA)...)},
		{"IPIP that holds IPv6", drop.IPVersion, kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Proto(4)), kit.Bytes(kit.IP(t, kit.IP6(ipD6, kindA6), kit.UDP(1, 2))...))},
		{"IPIP that ends early", drop.TunnelTruncated, kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Proto(4)), kit.Payload(19))},
		{"IPIP in fragments", drop.OuterFragment, kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Proto(4), kit.Fragment(0, true)), kit.Payload(40))},
		{"IPv6 in IPv4", drop.TunnelNotOurs, kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1, kit.Proto(41)), kit.Payload(60))},

		{"another MAC", drop.NotForUs, kit.Frame(t, append([]kit.Layer{kit.Eth(nic3, nic2)}, udp(ipD, ipA)...)...)},
		{"a source of this node's", drop.RoutedSource, routed(ipC, ipA)},
		{"the receiver as the source", drop.RoutedSource, routed(ipA, ipA)},
		{"this node as the source", drop.RoutedSource, routed(node1, ipA)},
		{"a source of a peer with a tunnel", drop.RoutedSource, routed(ipB, ipA)},
		{"a peer with a tunnel itself", drop.RoutedSource, routed(node2, ipA)},
		{"a stranger", drop.RoutedSource, routed("203.0.113.1", ipA)},
		{"a stranger's fragment", drop.RoutedSource, kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4("203.0.113.1", ipA, kit.Fragment(64, true), kit.Proto(17)), kit.Payload(64))},
		{"a fragment of a peer with a tunnel", drop.RoutedSource, kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(ipB, ipA, kit.Fragment(64, true), kit.Proto(17)), kit.Payload(64))},
		{"for another peer", drop.NoRoute, routed(ipD, ipB)},
		{"for no pod", drop.Blackhole, routed(ipD, "10.244.1.99")},
		{"an error of a router about nothing known", drop.ICMPUnrelated, routedError(router)},
		{"an error of another peer's pod", drop.RoutedSource, routedError(ipB)},
		{"cut short", drop.IPLength, routed(ipD, ipA)[:40]},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := mixedNode(t)
			n.uplink.Inject(c.f)
			n.step()
			n.wantDrops(c.reason, 1)
			if sent := n.uplink.TakeSent(); len(sent) != 0 {
				t.Errorf("%d frames left by the uplink", len(sent))
			}
			if sent := n.pods["a"].dev.TakeSent(); len(sent) != 0 {
				t.Errorf("%d frames reached the pod", len(sent))
			}
			if flows := n.e.FlowTable().Len(); flows != 0 {
				t.Errorf("%d flows were made", flows)
			}
		})
	}
}

// A node with VXLAN alone takes neither IPIP nor packets as they are.
func TestOtherKindsAreNotTaken(t *testing.T) {
	for _, f := range [][]byte{
		inIPIP(t, 0, kit.IP4(ipB, ipA), kit.UDP(1, 2)),
		kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(ipB, ipA), kit.TCP(1, 2)),
	} {
		n, _ := pair(t)
		n.uplink.Inject(f)
		n.step()
		n.wantDrops(drop.TunnelNotOurs, 1)
	}
}

// An error of a router between the nodes reaches the pod whose packet it quotes, as
// path MTU discovery needs it (RFC 1191).
func TestRoutersErrorsArrive(t *testing.T) {
	n := mixedNode(t)
	sent := one(t, n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipD, kit.DF()), kit.UDP(4711, 80), kit.Payload(100)))).Data
	got := one(t, n.fromWire("a", kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(router, ipA), kit.ICMP4(3, 4, 0, 1300), kit.Bytes(sent[14:]...)))).Data
	kit.CheckPacket(t, got, kit.Src(router), kit.Dst(ipA), kit.WithICMP(3, 4))
	n.wantDrops(drop.None, 0)
}

// Fragments without a tunnel follow their first one, whichever comes first, and what
// was stale in a worker's record of a tunnel before does not count.
func TestRoutedFragments(t *testing.T) {
	n := mixedNode(t)
	one(t, n.fromWire("a", inIPIP(t, 0, kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(8))))
	whole := kit.IP(t, kit.IP4(ipD, ipA, kit.ID(77)), kit.UDP(80, 4711), kit.Payload(120))[20:]
	frag := func(offset int, more bool, b []byte) []byte {
		return kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(ipD, ipA, kit.ID(77), kit.Fragment(offset, more), kit.Proto(17)), kit.Bytes(b...))
	}
	if sent := n.fromWire("a", frag(64, false, whole[64:])); len(sent) != 0 {
		t.Fatal("a later fragment went before the first")
	}
	sent := n.fromWire("a", frag(0, true, whole[:64]))
	if len(sent) != 2 {
		t.Fatalf("%d fragments arrived, want 2", len(sent))
	}
	kit.CheckPacket(t, sent[0].Data, kit.Src(ipD), kit.WithFragment(0, true))
	kit.CheckPacket(t, sent[1].Data, kit.Src(ipD), kit.WithFragment(64, false))
	n.wantDrops(drop.None, 0)
}

// A flow whose packets came without a tunnel does not carry packets of a tunnel's with
// the same addresses, nor the other way round.
func TestVerdictIsOfTheWay(t *testing.T) {
	n := mixedNode(t)
	layers := []kit.Layer{kit.IP4(ipD, ipA), kit.UDP(80, 4711), kit.Payload(8)}
	one(t, n.fromWire("a", kit.Frame(t, append([]kit.Layer{kit.Eth(nic3, nic1)}, layers...)...)))
	if sent := n.fromWire("a", inIPIP(t, 0, layers...)); len(sent) != 0 {
		t.Error("another peer's packet took the flow's verdict")
	}
	n.wantDrops(drop.TunnelSourceMismatch, 1)

	n = mixedNode(t)
	layers[0] = kit.IP4(ipB, ipA)
	one(t, n.fromWire("a", inIPIP(t, 0, layers...)))
	if sent := n.fromWire("a", kit.Frame(t, append([]kit.Layer{kit.Eth(nic3, nic1)}, layers...)...)); len(sent) != 0 {
		t.Error("a packet without the tunnel took the flow's verdict")
	}
	n.wantDrops(drop.RoutedSource, 1)
}

// Established flows allocate nothing in IPIP and without a tunnel either, nor does what
// is refused.
func TestOtherKindsDoNotAllocate(t *testing.T) {
	n := mixedNode(t)
	pod, wire := &loop{pool: n.w.pool}, &loop{pool: n.w.pool}
	podQueue, wireQueue := n.w.ports[n.pods["a"].port], n.w.ports[n.upPort]
	podQueue.dev, wireQueue.dev = pod, wire
	for i := range 500 {
		port := uint16(1000 + i)
		pod.frames = append(pod.frames,
			kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(port, 9)),
			kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipD), kit.UDP(port, 9)))
		wire.frames = append(wire.frames,
			inIPIP(t, 0, kit.IP4(ipB, ipA), kit.UDP(9, port)),
			kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(ipD, ipA), kit.UDP(9, port)))
	}
	run := func(q *portQueue) float64 {
		return testing.AllocsPerRun(100, func() {
			n.w.handle(q)
			n.w.flows.Quiesce(0)
		})
	}
	if out, in := run(podQueue), run(wireQueue); out != 0 || in != 0 {
		t.Errorf("%v allocations a burst to the wire, %v from it", out, in)
	}
	n.wantDrops(drop.None, 0)
	wire.frames = [][]byte{
		kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4("203.0.113.1", ipA), kit.UDP(9, 9)),
		inIPIP(t, 0, kit.IP4(ipD, ipA), kit.UDP(9, 9)),
	}
	wire.next = 0
	if got := run(wireQueue); got != 0 {
		t.Errorf("%v allocations a burst of what is refused", got)
	}
	if n.drops(drop.RoutedSource) == 0 || n.drops(drop.TunnelSourceMismatch) == 0 {
		t.Error("nothing was refused")
	}
}

// FuzzWire gives a node that takes all kinds any bytes from the wire: no frame is lost
// or used twice (the engine is checked), and nothing goes back to the wire but errors
// and answers to peers.
func FuzzWire(f *testing.F) {
	t := &testing.T{}
	for _, b := range [][]byte{
		inIPIP(t, 0, kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(8)),
		inIPIP(t, 3, kit.IP4(ipB, ipA, kit.TTL(1)), kit.TCP(1, 2)),
		kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(ipD, ipA), kit.TCP(1, 2), kit.Payload(8)),
		kit.Frame(t, kit.Eth(nic3, nic1), kit.IP6(ipD6, kindA6), kit.ICMP6(128, 0), kit.Payload(8)),
		kit.Frame(t, kit.Eth(nic3, nic1), kit.VLAN(3), kit.IP4(ipD, ipA, kit.Fragment(8, true), kit.Proto(17)), kit.Payload(16)),
		kit.Frame(t, kit.Eth(nic3, nic1), kit.IP4(router, ipA), kit.ICMP4(3, 4, 0, 1300), kit.Bytes(kit.IP(t, kit.IP4(ipA, ipD), kit.UDP(1, 2))...)),
	} {
		f.Add(b)
	}
	n := mixedNode(t) // one for all: it takes longer to make than thousands of frames
	f.Cleanup(func() { n.e.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2000 {
			return
		}
		n.clock += time.Second // fragments and flows end, and the engine's hold on memory with them
		n.uplink.Inject(b)
		n.step()
		n.w.expireFragments()
		if n.drops(drop.Bug) != 0 {
			t.Fatal("the worker panicked")
		}
		if err := n.w.checkLeaks(); err != nil {
			t.Fatal(err)
		}
		for _, s := range n.uplink.TakeSent() {
			if dst := packet.Ethernet(s.Data).Dst(); dst != (packet.MAC{2, 0, 0, 0, 0, 2}) && dst != (packet.MAC{2, 0, 0, 0, 0, 3}) {
				t.Errorf("a frame went to %s", dst)
			}
		}
		for _, s := range n.pods["a"].dev.TakeSent() {
			if src := s.Data[26:30]; s.Data[12] == 8 && s.Data[13] == 0 && len(s.Data) > 34 && [4]byte(src) == [4]byte{10, 244, 1, 2} {
				t.Errorf("the pod got a packet from its own address: %x", s.Data)
			}
		}
	})
}
