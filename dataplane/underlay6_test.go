package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	node1v6 = "fd50::1"
	node2v6 = "fd50::2"
	ipA6    = "fd44:0:0:1::2"
	ipB6    = "fd44:0:0:2::2"
	macA6   = "0a:58:00:00:00:02"
)

// pairOver6 is two nodes with IPv6 addresses, with pods of both families.
func pairOver6(t *testing.T) (n1, n2 *testNode) {
	n1, n2 = newTestNode(t, node1v6, 1), newTestNode(t, node2v6, 2)
	n1.addPod("a", ipA)
	n2.addPod("b", ipB)
	n1.addPod("a6", ipA6)
	n2.addPod("b6", ipB6)
	for _, p := range []string{"10.244.2.0/24", "fd44:0:0:2::/64"} {
		n1.addPeer(p, n2)
	}
	for _, p := range []string{"10.244.1.0/24", "fd44:0:0:1::/64"} {
		n2.addPeer(p, n1)
	}
	return n1, n2
}

// VPP's test_vxlan6 test_encap and test_decap: ten flows each of IPv4 and IPv6 leave
// with right headers and checksums, from several source ports, and arrive as they
// were sent but for a hop.
func TestVXLAN6CarriesBothFamilies(t *testing.T) {
	n1, n2 := pairOver6(t)
	for _, pod := range []struct {
		name, to, src, dst, mac string
		frame                   func(port uint16, size int) []byte
	}{
		{"a", "b", ipA, ipB, macA, func(port uint16, size int) []byte {
			return kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(port, 80), kit.Payload(size))
		}},
		{"a6", "b6", ipA6, ipB6, macA6, func(port uint16, size int) []byte {
			return kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, ipB6), kit.UDP(port, 80), kit.Payload(size))
		}},
	} {
		ports := map[string]bool{}
		for flow := range uint16(10) {
			size := 11 + 97*int(flow) // odd and even
			out := one(t, n1.fromPod(pod.name, pod.frame(1000+flow, size))).Data
			inner := kit.CheckVXLAN(t, out, // which wants a valid checksum
				kit.OuterSrc(node1v6), kit.OuterDst(node2v6), kit.OuterSrcMAC(nic1), kit.OuterDstMAC(nic2),
				kit.OuterTTL(64), kit.OuterTOS(0), kit.OuterDstPort(testPort), kit.VNI(testVNI),
				kit.Src(pod.src), kit.Dst(pod.dst), kit.WithTTL(63), kit.SrcMAC(vtep1), kit.DstMAC(vtep2))
			if want := len(pod.frame(1, size)); len(inner) != want || len(out) != want+70 {
				t.Errorf("%d bytes, %d of them the inner frame: want %d", len(out), len(inner), want)
			}
			ports[string(out[54:56])] = true
			got := one(t, n2.fromWire(pod.to, out)).Data
			kit.CheckPacket(t, got, kit.SrcMAC(gwMAC), kit.Src(pod.src), kit.Dst(pod.dst), kit.WithTTL(62),
				kit.WithPorts(1000+flow, 80), kit.WithPayload(kit.Pattern(size)))
		}
		if len(ports) < 2 {
			t.Errorf("%s: ten flows have %d source ports", pod.name, len(ports))
		}
	}
	n1.wantDrops(drop.None, 0)
	n2.wantDrops(drop.None, 0)
}

// VPP's negative cases of test_vxlan6, and what Linux asks of the outer checksum.
func TestVXLAN6Refuses(t *testing.T) {
	valid := func(t *testing.T) []byte {
		return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP6(node2v6, node1v6), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
			kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(33))
	}
	// set overwrites bytes and makes the outer checksum right again.
	set := func(f []byte, at int, b ...byte) []byte {
		f = kit.Corrupt(f, at, b...)
		f = kit.Corrupt(f, 60, 0, 0)
		src, dst := packet.AddrFrom(netip.AddrFrom16([16]byte(f[22:38]))), packet.AddrFrom(netip.AddrFrom16([16]byte(f[38:54])))
		packet.StoreChecksum(f[60:], packet.Sum(f[54:], packet.PseudoSum6(&src, &dst, packet.ProtoUDP, uint32(len(f)-54))))
		return f
	}
	for _, c := range []struct {
		name   string
		reason drop.Reason
		frame  func(f []byte) []byte
	}{
		{"another's address", drop.TunnelNotOurs, func(f []byte) []byte { return set(f, 53, 9) }},
		{"another port", drop.TunnelNotOurs, func(f []byte) []byte { return set(f, 56, 0x21, 0x18) }},
		{"an unknown source", drop.TunnelUnknownPeer, func(f []byte) []byte { return set(f, 37, 9) }},
		{"no I flag", drop.VXLANFlags, func(f []byte) []byte { return set(f, 62, 0) }},
		{"another flag", drop.VXLANFlags, func(f []byte) []byte { return set(f, 62, 0x88) }},
		{"a reserved bit", drop.VXLANFlags, func(f []byte) []byte { return set(f, 69, 1) }},
		{"another VNI", drop.VXLANUnknownVNI, func(f []byte) []byte { return set(f, 68, 1) }},
		{"no checksum", drop.OuterChecksum, func(f []byte) []byte { return kit.Corrupt(f, 60, 0, 0) }},
		{"a wrong checksum", drop.OuterChecksum, func(f []byte) []byte { return kit.Corrupt(f, 60, f[60]^1) }},
		{"a wrong byte at the end", drop.OuterChecksum, func(f []byte) []byte { return kit.Corrupt(f, len(f)-1, 0xff) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n1, _ := pairOver6(t)
			if got := n1.fromWire("a", c.frame(valid(t))); len(got) != 0 {
				t.Errorf("%d frames reached the pod", len(got))
			}
			n1.wantDrops(c.reason, 1)
			one(t, n1.fromWire("a", valid(t)))
		})
	}
}

// Checksums that a veth underlay leaves to be completed: the inner one, so that the
// outer one is right once it is; the outer one; none of both.
func TestVXLAN6PartialChecksums(t *testing.T) {
	n1, n2 := pairOver6(t)
	for _, size := range []int{0, 1, 333, 1000} {
		plain := kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, ipB6), kit.TCP(1, 80, kit.Flags("S"), kit.Seq(uint32(size))), kit.Payload(size))
		n1.uplink.Complete = false
		out := one(t, n1.fromPod("a6", kit.SetPartial(plain)))
		if out.CsumStart != 84+40 {
			t.Fatalf("the inner checksum is not left to the device: %+v", out)
		}
		one(t, n2.fromWire("b6", out.Data)) // as a veth would hand it over

		n1.uplink.Complete = true // as a NIC does
		out = one(t, n1.fromPod("a6", kit.SetPartial(plain)))
		kit.CheckVXLAN(t, out.Data, kit.WithPayload(kit.Pattern(size)))

		src, dst := packet.AddrFrom(netip.MustParseAddr(node1v6)), packet.AddrFrom(netip.MustParseAddr(node2v6))
		seed := packet.Fold(packet.PseudoSum6(&src, &dst, packet.ProtoUDP, uint32(len(out.Data)-54)))
		one(t, n2.fromWire("b6", kit.Corrupt(out.Data, 60, byte(seed>>8), byte(seed))))
	}
	n1.wantDrops(drop.None, 0)
	n2.wantDrops(drop.None, 0)
}

// VPP's test_encap_big_packet: what does not fit is never fragmented outside. An IPv4
// packet without DF is cut inside, any other is answered.
func TestVXLAN6BigPackets(t *testing.T) {
	n1, n2 := pairOver6(t)
	big := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(1, 2), kit.Payload(1450))
	var got []byte
	for _, s := range n1.fromPod("a", big) {
		if len(s.Data) > 14+wireMTU {
			t.Errorf("%d bytes on a wire of %d", len(s.Data), wireMTU)
		}
		kit.CheckVXLAN(t, s.Data)
		for _, d := range n2.fromWire("b", s.Data) {
			got = append(got, d.Data[34:]...)
		}
	}
	if want := big[34:]; string(got) != string(want) {
		t.Errorf("%d bytes arrived in fragments, want %d", len(got), len(want))
	}
	big = kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, ipB6), kit.UDP(1, 2), kit.Payload(1450))
	if sent := n1.fromPod("a6", big); len(sent) != 0 {
		t.Errorf("%d frames left", len(sent))
	}
	answer := kit.CheckPacket(t, one(t, n1.pods["a6"].dev.TakeSent()).Data, kit.Src(node1v6), kit.Dst(ipA6), kit.WithICMP(2, 0))
	if mtu := answer.NetworkLayer().LayerPayload()[4:8]; fmt.Sprintf("%x", mtu) != fmt.Sprintf("%08x", wireMTU-70) {
		t.Errorf("told an MTU of %x", mtu)
	}
}

// A big frame goes whole to a device that makes the outer checksum of each segment. It is
// cut for one that does not, and every segment's checksums are right.
func TestVXLAN6BigFrames(t *testing.T) {
	payload := kit.Pattern(60000)
	big := kit.SetPartial(kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, ipB6), kit.TCP(1, 80, kit.Flags("A")), kit.Bytes(payload...)))
	const size = wireMTU - 70 - 60
	for _, offload := range []frame.Offload{0, frame.OffloadOuterSum} {
		n1, n2 := pairOver6(t)
		limits := bigUplink
		limits.Offload |= offload
		n1.limit(n1.upPort, limits)
		n1.uplink.Complete = offload == 0
		n1.pods["a6"].dev.InjectBig(big, size, frame.SegTCP6)
		n1.step()
		sent := n1.uplink.TakeSent()
		if offload == 0 {
			var got []byte
			for _, s := range sent {
				kit.CheckVXLAN(t, s.Data)
				got = append(got, one(t, n2.fromWire("b6", s.Data)).Data[74:]...)
			}
			if string(got) != string(payload) {
				t.Errorf("%d bytes arrived, want %d", len(got), len(payload))
			}
			continue
		}
		s := one(t, sent)
		src, dst := packet.AddrFrom(n1.addr), packet.AddrFrom(n2.addr)
		seed := packet.Fold(packet.PseudoSum6(&src, &dst, packet.ProtoUDP, uint32(len(s.Data)-54)))
		if s.SegSize != size || s.OuterL4 != 54 || s.Flags&frame.SegOuterSum == 0 || s.CsumStart != 84+40 || binary.BigEndian.Uint16(s.Data[60:]) != seed {
			t.Errorf("sent as %s, its outer checksum %x, want %x", offloads(s), s.Data[60:62], seed)
		}
	}
}

// Neither way through a tunnel over IPv6 allocates anything.
func TestVXLAN6DoesNotAllocate(t *testing.T) {
	n1, n2 := pairOver6(t)
	plain := kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, ipB6), kit.UDP(4711, 80), kit.Payload(99))
	wire := one(t, n1.fromPod("a6", plain)).Data
	one(t, n2.fromWire("b6", wire))
	partial := kit.SetPartial(append([]byte(nil), plain...))
	for _, c := range []struct {
		n      *testNode
		in     uint16
		frames [][]byte
	}{{n1, n1.pods["a6"].port, [][]byte{plain, partial}}, {n2, n2.upPort, [][]byte{wire}}} {
		q := c.n.w.ports[c.in]
		was := q.dev
		for _, p := range c.n.w.ports {
			if p != nil {
				p.dev = &loop{pool: c.n.w.pool}
			}
		}
		q.dev = &loop{pool: c.n.w.pool, frames: c.frames}
		if got := testing.AllocsPerRun(100, func() { c.n.w.handle(q) }); got != 0 {
			t.Errorf("%v allocations a burst", got)
		}
		c.n.wantDrops(drop.None, 0)
		q.dev = was
	}
}

// VPP's churn of tunnels: two hundred peers come and go, and each has its own route.
func TestVXLAN6ManyPeers(t *testing.T) {
	n1, _ := pairOver6(t)
	for i := range 200 {
		addr := netip.MustParseAddr(fmt.Sprintf("fd50::1:%x", i))
		n1.addKernelPeer(fmt.Sprintf("fd44:0:1:%x::/64", i), addr, packet.MAC{0x66, 1, byte(i)}, packet.MAC{2, 1, byte(i)})
	}
	for i := range 200 {
		to := fmt.Sprintf("fd44:0:1:%x::2", i)
		out := one(t, n1.fromPod("a6", kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, to), kit.UDP(1, 2)))).Data
		kit.CheckVXLAN(t, out, kit.OuterDst(fmt.Sprintf("fd50::1:%x", i)), kit.DstMAC(fmt.Sprintf("66:01:%02x:00:00:00", i)))
	}
	for i := range 200 {
		if !n1.table.DeleteRoute(netip.MustParsePrefix(fmt.Sprintf("fd44:0:1:%x::/64", i))) {
			t.Errorf("route %d was not there", i)
		}
	}
	n1.commit()
	if sent := n1.fromPod("a6", kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, "fd44:0:1:7::2"), kit.UDP(1, 2))); len(sent) != 0 {
		t.Error("a packet left for a peer that is gone")
	}
	n1.wantDrops(drop.NoRoute, 1)
}

// A pod pings its gateway from its link-local address, which nothing routes to; it
// may not use it for anything else.
func TestGatewayAnswersLinkLocal(t *testing.T) {
	n1, _ := pairOver6(t)
	const own = "fe80::858:ff:fe00:2"
	ping := kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(own, "fe80::ecee:eeff:feee:eeee"), kit.ICMP6(128, 0), kit.Payload(60))
	n1.fromPod("a6", ping)
	kit.CheckPacket(t, one(t, n1.pods["a6"].dev.TakeSent()).Data, kit.SrcMAC(gwMAC), kit.DstMAC(macA6),
		kit.Src("fe80::ecee:eeff:feee:eeee"), kit.Dst(own), kit.WithICMP(129, 0))
	n1.wantDrops(drop.None, 0)
	if sent := n1.fromPod("a6", kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(own, ipB6), kit.ICMP6(128, 0), kit.Payload(60))); len(sent) != 0 {
		t.Error("a packet left from a link-local address")
	}
	n1.wantDrops(drop.SpoofedSource, 1)
}
