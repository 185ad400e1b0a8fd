package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const outside6 = "2001:db8::5"

// natNode6 is a node of IPv6 whose pod a6 leaves the cluster by ports 61000 to 61009, and
// whose UDP port 8080 is the pod's port 80.
func natNode6(t *testing.T) *testNode {
	t.Helper()
	n := newTestNode(t, node1v6, 1)
	n.addPod("a6", ipA6)
	n.route("::/0", fib.Adjacency{Kind: fib.KindDirect, Ready: true, Port: n.upPort, MTU: wireMTU, Dev: "u0", Outside: true,
		Rewrite: encap.Ethernet(packet.MAC{2, 0, 0, 0, 0, 9}, n.nic, 0)})
	n.route(node1v6+"/128", fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535})
	own := packet.AddrFrom(n.addr)
	n.table.SetNode(fib.Node{
		Addr6: own, Networks: []netip.Prefix{netip.MustParsePrefix("fd44::/32")},
		NAT:      fib.NAT{Sources: []netip.Prefix{netip.MustParsePrefix("fd44::/32")}, Low: 61000, High: 61009},
		Mappings: []fib.PortMapping{{Proto: packet.ProtoUDP, Port: 8080, Addr: own, To: packet.AddrFrom(netip.MustParseAddr(ipA6)), ToPort: 80}},
	})
	n.commit()
	return n
}

// echo6 is an ICMPv6 echo.
func echo6(t *testing.T, src, dst string, eth kit.Layer, typ uint8, id uint16) []byte {
	t.Helper()
	return kit.Frame(t, eth, kit.IP6(src, dst), kit.ICMP6(typ, 0), &layers.ICMPv6Echo{Identifier: id, SeqNumber: 1}, kit.Payload(33))
}

// IPv6 is translated as IPv4 is, its checksums, which cover the addresses, too.
func TestSourceNAT6(t *testing.T) {
	n := natNode6(t)
	fromPod, fromWire := kit.Eth(macA6, gwMAC), kit.Eth(routerMAC, nic1)
	for name, l4 := range map[string]func(src, dst uint16) kit.Layer{
		"udp": func(src, dst uint16) kit.Layer { return kit.UDP(src, dst) },
		"tcp": func(src, dst uint16) kit.Layer {
			if dst == 80 {
				return kit.TCP(src, dst, kit.Flags("S"))
			}
			return kit.TCP(src, dst, kit.Flags("SA"), kit.Ack(1))
		},
	} {
		out := one(t, n.fromPod("a6", kit.Frame(t, fromPod, kit.IP6(ipA6, outside6), l4(4711, 80), kit.Payload(33)))).Data
		kit.CheckPacket(t, out, kit.Src(node1v6), kit.Dst(outside6), kit.WithTTL(63))
		good(t, out)
		src := binary.BigEndian.Uint16(out[54:])
		if src < 61000 || src > 61009 {
			t.Errorf("%s leaves from port %d", name, src)
		}
		got := one(t, n.fromWire("a6", kit.Frame(t, fromWire, kit.IP6(outside6, node1v6), l4(80, src), kit.Payload(33)))).Data
		kit.CheckPacket(t, got, kit.Src(outside6), kit.Dst(ipA6), kit.WithPorts(80, 4711), kit.WithTTL(63))
		good(t, got)
	}
	out := one(t, n.fromPod("a6", echo6(t, ipA6, outside6, fromPod, 128, 7))).Data
	kit.CheckPacket(t, out, kit.Src(node1v6), kit.WithICMP(128, 0))
	good(t, out)
	id := binary.BigEndian.Uint16(out[58:])
	if id < 61000 || id > 61009 {
		t.Errorf("an echo leaves with identifier %d", id)
	}
	got := one(t, n.fromWire("a6", echo6(t, outside6, node1v6, fromWire, 129, id))).Data
	kit.CheckPacket(t, got, kit.Dst(ipA6), kit.WithICMP(129, 0))
	good(t, got)
	if id := binary.BigEndian.Uint16(got[58:]); id != 7 {
		t.Errorf("the answer has identifier %d", id)
	}
	n.wantDrops(drop.None, 0)
}

// A router's error finds the pod, with the pod's own packet in it.
func TestErrorsAreTranslated6(t *testing.T) {
	n := natNode6(t)
	out := one(t, n.fromPod("a6", kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, outside6), kit.UDP(4711, 53), kit.Payload(1200)))).Data
	tooBig := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP6("2001:db8::1", node1v6), kit.ICMP6(2, 0), kit.Bytes(kit.Join([]byte{0, 0, 5, 0}, out[14:])...))
	got := one(t, n.fromWire("a6", tooBig)).Data
	kit.CheckPacket(t, got, kit.Src("2001:db8::1"), kit.Dst(ipA6), kit.WithICMP(2, 0))
	good(t, got)
	inner := gopacket.NewPacket(got[14+40+8:], layers.LayerTypeIPv6, gopacket.Default)
	ip, udp := inner.NetworkLayer().(*layers.IPv6), inner.TransportLayer().(*layers.UDP)
	if ip.SrcIP.String() != ipA6 || ip.DstIP.String() != outside6 || udp.SrcPort != 4711 || udp.DstPort != 53 {
		t.Errorf("the pod is told of %s:%d > %s:%d", ip.SrcIP, udp.SrcPort, ip.DstIP, udp.DstPort)
	}
	good(t, kit.Join(kit.Frame(t, kit.EthType(macA6, gwMAC, 0x86dd)), got[14+40+8:]))
	n.wantDrops(drop.None, 0)
}

// A mapped port over IPv6.
func TestMappedPort6(t *testing.T) {
	n := natNode6(t)
	got := one(t, n.fromWire("a6", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP6(outside6, node1v6), kit.UDP(4711, 8080), kit.Payload(33)))).Data
	kit.CheckPacket(t, got, kit.Src(outside6), kit.Dst(ipA6), kit.WithPorts(4711, 80))
	good(t, got)
	out := one(t, n.fromPod("a6", kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, outside6), kit.UDP(80, 4711), kit.Payload(33)))).Data
	kit.CheckPacket(t, out, kit.Src(node1v6), kit.Dst(outside6), kit.WithPorts(8080, 4711))
	good(t, out)
	n.wantDrops(drop.None, 0)
}

// ICMP in an IPv6 packet, and the other way round, is a protocol without ports: it is translated by address alone.
func TestSourceNATOfOtherProtocols(t *testing.T) {
	n := natNode6(t)
	for _, payload := range []int{0, 3, 40} {
		f := kit.Frame(t, kit.Eth(macA6, gwMAC), kit.IP6(ipA6, outside6, kit.NextHeader(1)), kit.Payload(payload))
		out := one(t, n.fromPod("a6", f)).Data
		want := kit.Frame(t, kit.Eth(nic1, routerMAC), kit.IP6(node1v6, outside6, kit.NextHeader(1), kit.HopLimit(63)), kit.Payload(payload))
		if string(out) != string(want) {
			t.Errorf("it leaves as\n%x, want\n%x", out, want)
		}
		back := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP6(outside6, node1v6, kit.NextHeader(1)), kit.Payload(payload))
		got := one(t, n.fromWire("a6", back)).Data
		want = kit.Frame(t, kit.Eth(gwMAC, macA6), kit.IP6(outside6, ipA6, kit.NextHeader(1), kit.HopLimit(63)), kit.Payload(payload))
		if string(got) != string(want) {
			t.Errorf("the answer arrives as\n%x, want\n%x", got, want)
		}
	}
	n.wantDrops(drop.None, 0)
}
