package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const routerMAC = "02:00:00:00:00:09"

// natNode is a node with a host port whose pods leave the cluster by ports 61000 on.
func natNode(t *testing.T, high uint16) *testHost {
	t.Helper()
	n1, _ := pair(t)
	h := n1.addHost()
	n1.table.SetNode(fib.Node{
		Addr4: packet.AddrFrom(n1.addr), VTEPs: []fib.LocalVTEP{{Addr: packet.AddrFrom(n1.addr), Port: testPort, VNI: testVNI, MAC: n1.mac}},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		NAT: fib.NAT{Sources: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
			Exclude: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Low: 61000, High: high},
	})
	n1.commit()
	return h
}

// ports are the transport ports of a frame, or twice its echo's identifier.
func ports(t *testing.T, f []byte) (src, dst uint16) {
	t.Helper()
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		return uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.UDP:
		return uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.SCTP:
		return uint16(l.SrcPort), uint16(l.DstPort)
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		return l.Id, l.Id
	}
	t.Fatalf("no ports in\n%s", kit.Dump(f))
	return 0, 0
}

// A pod's packets leave with the node's address and a port of the range, whatever they
// are of, every checksum right; the answers find the pod.
func TestSourceNAT(t *testing.T) {
	h := natNode(t, 61009)
	for name, l4 := range map[string]func(src, dst uint16, back bool) kit.Layer{
		"tcp": func(src, dst uint16, back bool) kit.Layer {
			if back {
				return kit.TCP(src, dst, kit.Flags("SA"), kit.Ack(1))
			}
			return kit.TCP(src, dst, kit.Flags("S"))
		},
		"udp":  func(src, dst uint16, _ bool) kit.Layer { return kit.UDP(src, dst) },
		"sctp": func(src, dst uint16, _ bool) kit.Layer { return kit.SCTP(src, dst) },
		"icmp": func(src, dst uint16, back bool) kit.Layer {
			if back {
				return kit.ICMP4(0, 0, dst, 1)
			}
			return kit.ICMP4(8, 0, src, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			payload := kit.Payload(33)
			if name == "sctp" { // one DATA chunk
				payload = kit.Bytes(0, 3, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4)
			}
			out := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), l4(4711, 80, false), payload))).Data
			kit.CheckPacket(t, out, kit.SrcMAC(nic1), kit.DstMAC(routerMAC), kit.Src(node1), kit.Dst(outside), kit.WithTTL(63))
			if bad := kit.CheckSums(out); bad != "" {
				t.Errorf("leaves with %s\n%s", bad, kit.Dump(out))
			}
			src, dst := ports(t, out)
			if src < 61000 || src > 61009 || name != "icmp" && dst != 80 {
				t.Fatalf("leaves from port %d to %d", src, dst)
			}
			back := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, node1), l4(80, src, true), payload)
			got := one(t, h.fromWire("a", back)).Data
			kit.CheckPacket(t, got, kit.DstMAC(macA), kit.Src(outside), kit.Dst(ipA), kit.WithTTL(63))
			if bad := kit.CheckSums(got); bad != "" {
				t.Errorf("arrives with %s\n%s", bad, kit.Dump(got))
			}
			if _, port := ports(t, got); port != 4711 {
				t.Errorf("arrives at port %d", port)
			}
			again := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), l4(4711, 80, false), payload))).Data
			if s, _ := ports(t, again); s != src {
				t.Errorf("the next packet leaves from port %d, the first did from %d", s, src)
			}
		})
	}
	h.wantDrops(drop.None, 0)
}

// Partial checksums stay partial and right, that of a big frame too, and one that is not
// there stays away.
func TestSourceNATOfChecksums(t *testing.T) {
	h := natNode(t, 61009)
	f := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.UDP(4711, 80), kit.Payload(40)))
	h.uplink.Complete = true
	out := one(t, h.fromPod("a", f))
	if bad := kit.CheckSums(out.Data); bad != "" {
		t.Errorf("a partial checksum, completed by the device: %s\n%s", bad, kit.Dump(out.Data))
	}
	none := one(t, h.fromPod("a", kit.ZeroL4Checksum(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.UDP(4711, 80), kit.Payload(40))))).Data
	if none[34+6] != 0 || none[34+7] != 0 {
		t.Errorf("a checksum came to be: %x", none[34+6:34+8])
	}
	big := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.TCP(4712, 80, kit.Flags("A"), kit.Ack(1)), kit.Payload(3000)))
	h.pods["a"].dev.InjectBig(big, 1000, frame.SegTCP4)
	h.step()
	sent := h.uplink.TakeSent()
	if len(sent) != 3 {
		t.Fatalf("%d segments", len(sent))
	}
	for _, s := range sent {
		kit.CheckPacket(t, s.Data, kit.Src(node1), kit.Dst(outside))
		if bad := kit.CheckSums(s.Data); bad != "" {
			t.Errorf("a segment has %s", bad)
		}
	}
	h.wantDrops(drop.None, 0)
}

// What stays in the cluster, is excluded, or is not of a translated pool, keeps its source.
func TestNotTranslated(t *testing.T) {
	h := natNode(t, 61009)
	kit.CheckVXLAN(t, one(t, h.fromPod("a", udpAB(t, 10))).Data, kit.OuterSrc(node1))
	out := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "198.51.100.7"), kit.UDP(1, 2), kit.Payload(8)))).Data
	kit.CheckPacket(t, out, kit.Src(ipA), kit.Dst("198.51.100.7"))
	back := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4("198.51.100.7", ipA), kit.UDP(2, 1), kit.Payload(8))
	n := *h.w.snap.Node()
	n.Routed = true // the program brings what is for pods
	h.table.SetNode(n)
	h.commit()
	kit.CheckPacket(t, one(t, h.fromWire("a", back)).Data, kit.Src("198.51.100.7"), kit.Dst(ipA))
	h.wantDrops(drop.None, 0)
	h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, ipA), kit.UDP(2, 1), kit.Payload(8)))
	h.wantDrops(drop.RoutedSource, 1) // the pod would answer with the node's address
	h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "10.244.77.7"), kit.UDP(1, 2), kit.Payload(8)))
	if n := h.drops(drop.NoRoute); n != 1 { // nobody's: it does not leave the node as if it were the world's
		t.Errorf("no_route: %d drops, want 1", n)
	}
}

// What no flow is kept for does not leave with a pod's address.
func TestUntrackedDoesNotLeave(t *testing.T) {
	h := natNode(t, 61009)
	for _, l4 := range []kit.Layer{kit.TCP(4711, 80, kit.Flags("R")), kit.TCP(4711, 80, kit.Flags("SA"), kit.Ack(1)), kit.ICMP4(13, 0, 1, 1)} {
		if sent := h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), l4, kit.Payload(12))); len(sent) != 0 {
			t.Errorf("it leaves as\n%s", kit.Dump(sent[0].Data))
		}
		out := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, client), l4, kit.Payload(12)))).Data
		kit.CheckPacket(t, out, kit.Src(ipA))
	}
	h.wantDrops(drop.NATUntracked, 3)
}

// One port serves many destinations; to one of them every connection has its own, until
// there is none left.
func TestPortsRunOut(t *testing.T) {
	h := natNode(t, 61003)
	seen := map[string]bool{}
	for i := range 6 {
		for _, to := range []string{outside, "203.0.113.6"} {
			sent := h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, to), kit.UDP(uint16(1000+i), 80), kit.Payload(8)))
			if i >= 4 {
				if len(sent) != 0 {
					t.Errorf("connection %d to %s left with\n%s", i, to, kit.Dump(sent[0].Data))
				}
				continue
			}
			src, _ := ports(t, one(t, sent).Data)
			if key := fmt.Sprint(to, src); seen[key] {
				t.Errorf("%s twice from port %d", to, src)
			} else {
				seen[key] = true
			}
		}
	}
	h.wantDrops(drop.NATExhausted, 4)
	keeps := natNode(t, 61009)
	src, _ := ports(t, one(t, keeps.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.UDP(61007, 80), kit.Payload(8)))).Data)
	if src != 61007 {
		t.Errorf("a port of the range that is free became %d", src)
	}
}

// What comes to the node's address and is no answer is the node's own.
func TestNotOursIsTheHosts(t *testing.T) {
	h := natNode(t, 61009)
	for range 2 {
		h.uplink.Inject(kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, node1), kit.TCP(443, 61002, kit.Flags("A"), kit.Ack(5)), kit.Payload(100)))
		h.step()
		kit.CheckPacket(t, h.received().Data, kit.Src(outside), kit.Dst(node1), kit.WithTTL(64), kit.WithPorts(443, 61002))
	}
	quote := kit.IP(t, kit.IP4(node1, outside), kit.UDP(61003, 53), kit.Payload(8))
	h.uplink.Inject(kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4("192.0.2.1", node1), kit.ICMP4(3, 1, 0, 0), kit.Bytes(quote...)))
	h.step()
	kit.CheckPacket(t, h.received().Data, kit.Src("192.0.2.1"), kit.Dst(node1), kit.WithICMP(3, 1))
	h.wantDrops(drop.None, 0)
	if n := h.e.FlowTable().Len(); n != 0 {
		t.Errorf("%d flows of connections of which one direction is seen", n)
	}
}

// A router on the way tells of a packet that it cannot forward: the pod hears of its own
// packet. And a pod that refuses what it gets tells of what its peer has sent.
func TestErrorsAreTranslated(t *testing.T) {
	for _, whole := range []bool{true, false} {
		h := natNode(t, 61009)
		first := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside, kit.DF()), kit.UDP(4711, 53), kit.Payload(200))
		out := one(t, h.fromPod("a", first)).Data
		src, _ := ports(t, out)
		quote := out[14:]
		if !whole {
			quote = quote[:28]
		}
		tooBig := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4("192.0.2.1", node1), kit.ICMP4(3, 4, 0, 1400), kit.Bytes(quote...))
		got := one(t, h.fromWire("a", tooBig)).Data
		kit.CheckPacket(t, got, kit.DstMAC(macA), kit.Src("192.0.2.1"), kit.Dst(ipA), kit.WithICMP(3, 4))
		inner := gopacket.NewPacket(got[14+20+8:], layers.LayerTypeIPv4, gopacket.Default)
		ip, udp := inner.NetworkLayer().(*layers.IPv4), inner.TransportLayer().(*layers.UDP)
		if ip.SrcIP.String() != ipA || ip.DstIP.String() != outside || udp.SrcPort != 4711 || udp.DstPort != 53 {
			t.Errorf("the pod is told of %s:%d > %s:%d", ip.SrcIP, udp.SrcPort, ip.DstIP, udp.DstPort)
		}
		if sum := kit.Sum16(got[14+20+8:14+20+8+20], 0); sum != 0xffff {
			t.Errorf("the quoted header's checksum is wrong: sum %04x", sum)
		}
		if bad := kit.CheckSums(got); bad != "" {
			t.Errorf("the error has %s", bad)
		}
		if whole {
			kit.CheckPacket(t, append(append([]byte{}, first[:14]...), got[42:]...), kit.WithPayload(kit.Pattern(200)))
			if bad := kit.CheckSums(append(append([]byte{}, first[:14]...), got[42:]...)); bad != "" {
				t.Errorf("the quoted packet has %s", bad)
			}
		}

		answer := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, node1), kit.UDP(53, src), kit.Payload(20))
		arrived := one(t, h.fromWire("a", answer)).Data
		refused := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.ICMP4(3, 3, 0, 0), kit.Bytes(arrived[14:]...))
		told := one(t, h.fromPod("a", refused)).Data
		kit.CheckPacket(t, told, kit.Src(node1), kit.Dst(outside), kit.WithICMP(3, 3))
		inner = gopacket.NewPacket(told[14+20+8:], layers.LayerTypeIPv4, gopacket.Default)
		ip, udp = inner.NetworkLayer().(*layers.IPv4), inner.TransportLayer().(*layers.UDP)
		if ip.DstIP.String() != node1 || uint16(udp.DstPort) != src {
			t.Errorf("the peer is told of a packet to %s:%d, it sent to %s:%d", ip.DstIP, udp.DstPort, node1, src)
		}
		if bad := kit.CheckSums(told); bad != "" {
			t.Errorf("the pod's error has %s", bad)
		}
		h.wantDrops(drop.None, 0)
	}
}

// Fragments of a datagram leave with one address, in whatever order they come.
func TestSourceNATOfFragments(t *testing.T) {
	h := natNode(t, 61009)
	whole := kit.IP(t, kit.IP4(ipA, outside, kit.ID(7)), kit.UDP(4000, 53), kit.Payload(24))[20:]
	first := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside, kit.ID(7), kit.Fragment(0, true), kit.Proto(17)), kit.Bytes(whole[:16]...))
	last := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside, kit.ID(7), kit.Fragment(16, false), kit.Proto(17)), kit.Bytes(whole[16:]...))
	sent := h.fromPod("a", last, first)
	if len(sent) != 2 {
		t.Fatalf("%d fragments left", len(sent))
	}
	datagram := append(append([]byte{}, sent[0].Data[34:]...), sent[1].Data[34:]...)
	for _, s := range sent {
		kit.CheckPacket(t, s.Data, kit.Src(node1), kit.Dst(outside), kit.WithID(7))
	}
	again := kit.Frame(t, kit.Eth(nic1, routerMAC), kit.IP4(node1, outside), kit.Bytes(datagram...))
	again = kit.FixIP4(kit.Corrupt(again, 23, 17))
	if bad := kit.CheckSums(again); bad != "" {
		t.Errorf("put together they have %s", bad)
	}
	h.wantDrops(drop.None, 0)
}

// By way of the node's stack, where the next hop is not a gateway.
func TestSourceNATByTheHost(t *testing.T) {
	h := natNode(t, 61009)
	_, host := hostAdjacency(h.e.Tables(), false)
	way := *host
	way.Outside = true
	h.route("203.0.113.0/24", way)
	h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.UDP(4711, 80), kit.Payload(8)))
	out := h.received().Data
	kit.CheckPacket(t, out, kit.Src(node1), kit.Dst(outside), kit.WithTTL(64))
	src, _ := ports(t, out)
	got := one(t, h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, node1), kit.UDP(80, src), kit.Payload(8)))).Data
	kit.CheckPacket(t, got, kit.Src(outside), kit.Dst(ipA), kit.WithPorts(80, 4711))
	h.wantDrops(drop.None, 0)
}
