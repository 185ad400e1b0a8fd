package dataplane

import (
	"testing"

	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const client = "198.51.100.7" // in the world; pods' packets to it keep their source

// mapPorts is a node whose port 8080 of TCP, UDP and SCTP is pod a's port 80.
func mapPorts(t *testing.T) *testHost {
	t.Helper()
	h := natNode(t, 61009)
	n := *h.table.Commit().Node()
	for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP} {
		n.Mappings = append(n.Mappings, fib.PortMapping{
			Proto: proto, Port: 8080, Addr: n.Addr4, To: packet.AddrFrom(h.pods["a"].addr), ToPort: 80,
		})
	}
	fib.SortMappings(n.Mappings)
	h.table.SetNode(n)
	h.commit()
	return h
}

// good fails if a checksum of f is wrong.
func good(t *testing.T, f []byte) {
	t.Helper()
	if bad := kit.CheckSums(f); bad != "" {
		t.Errorf("it has %s\n%s", bad, kit.Dump(f))
	}
}

// What the world sends to a mapped port arrives at the pod with its sender's address, and the
// pod's answers leave from the mapped port.
func TestMappedPort(t *testing.T) {
	h := mapPorts(t)
	sctpData := kit.Bytes(0, 3, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4)
	for name, c := range map[string]struct {
		ask, answer func(src, dst uint16) kit.Layer
		payload     kit.Layer
	}{
		"tcp": {func(s, d uint16) kit.Layer { return kit.TCP(s, d, kit.Flags("S")) },
			func(s, d uint16) kit.Layer { return kit.TCP(s, d, kit.Flags("SA"), kit.Ack(1)) }, kit.Payload(0)},
		"udp":  {func(s, d uint16) kit.Layer { return kit.UDP(s, d) }, func(s, d uint16) kit.Layer { return kit.UDP(s, d) }, kit.Payload(33)},
		"sctp": {func(s, d uint16) kit.Layer { return kit.SCTP(s, d) }, func(s, d uint16) kit.Layer { return kit.SCTP(s, d) }, sctpData},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the first packet, and one of a known flow
				got := one(t, h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(client, node1), c.ask(4711, 8080), c.payload))).Data
				kit.CheckPacket(t, got, kit.DstMAC(macA), kit.Src(client), kit.Dst(ipA), kit.WithTTL(63), kit.WithPorts(4711, 80))
				good(t, got)
				out := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, client), c.answer(80, 4711), c.payload))).Data
				kit.CheckPacket(t, out, kit.Src(node1), kit.Dst(client), kit.WithTTL(63), kit.WithPorts(8080, 4711))
				good(t, out)
			}
		})
	}
	h.wantDrops(drop.None, 0)
	if sent := h.dev.TakeSent(); len(sent) != 0 {
		t.Errorf("the node's stack got\n%s", kit.Dump(sent[0].Data))
	}
}

// What is for other ports, of other protocols, or no beginning of a connection, is the
// node's own.
func TestUnmappedIsTheHosts(t *testing.T) {
	h := mapPorts(t)
	for _, l4 := range []kit.Layer{
		kit.TCP(443, 8081, kit.Flags("S")), kit.UDP(53, 80), kit.TCP(443, 8080, kit.Flags("SA"), kit.Ack(1)), kit.TCP(443, 8080, kit.Flags("R")),
	} {
		h.uplink.Inject(kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(client, node1), l4))
		h.step()
		kit.CheckPacket(t, h.received().Data, kit.Src(client), kit.Dst(node1))
	}
	h.wantDrops(drop.None, 0)
	if n := h.e.FlowTable().Len(); n != 0 {
		t.Errorf("%d flows", n)
	}
}

// Pods of the node reach a mapped port, too; a pod that reaches itself by one sees the node.
func TestMappedPortFromPods(t *testing.T) {
	h := mapPorts(t)
	to := func(name string) []byte {
		t.Helper()
		return one(t, h.pods[name].dev.TakeSent()).Data
	}
	c := h.pods["c"]
	h.fromPod("c", kit.Frame(t, kit.Eth(c.mac.String(), gwMAC), kit.IP4(c.addr.String(), node1), kit.UDP(4711, 8080), kit.Payload(8)))
	kit.CheckPacket(t, to("a"), kit.Src(c.addr.String()), kit.Dst(ipA), kit.WithPorts(4711, 80), kit.WithTTL(63))
	h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, c.addr.String()), kit.UDP(80, 4711), kit.Payload(8)))
	kit.CheckPacket(t, to("c"), kit.Src(node1), kit.Dst(c.addr.String()), kit.WithPorts(8080, 4711))

	// It is connected to the pod itself from the same port.
	h.fromPod("c", kit.Frame(t, kit.Eth(c.mac.String(), gwMAC), kit.IP4(c.addr.String(), ipA), kit.UDP(4712, 80), kit.Payload(8)))
	kit.CheckPacket(t, to("a"), kit.Src(c.addr.String()), kit.WithPorts(4712, 80))
	h.fromPod("c", kit.Frame(t, kit.Eth(c.mac.String(), gwMAC), kit.IP4(c.addr.String(), node1), kit.UDP(4712, 8080), kit.Payload(8)))
	kit.CheckPacket(t, to("a"), kit.Src(node1), kit.Dst(ipA))

	for range 2 {
		h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1), kit.UDP(4711, 8080), kit.Payload(8)))
		got := to("a")
		kit.CheckPacket(t, got, kit.Src(node1), kit.Dst(ipA))
		good(t, got)
		src, dst := ports(t, got)
		if dst != 80 || src < 61000 || src > 61009 {
			t.Errorf("a pod reaches itself from port %d at %d", src, dst)
		}
		h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1), kit.UDP(80, src), kit.Payload(8)))
		got = to("a")
		kit.CheckPacket(t, got, kit.Src(node1), kit.Dst(ipA), kit.WithPorts(8080, 4711))
		good(t, got)
	}
	h.wantDrops(drop.None, 0)
}

// A pod of another node comes by the tunnel, and is answered by it; the other node itself
// comes without, and is answered by the node's stack, which knows the way.
func TestMappedPortFromOtherNodes(t *testing.T) {
	n1 := mapPorts(t)
	n2 := newTestNode(t, "192.168.0.2", 2)
	n2.addPod("b", "10.244.2.2")
	n2.addPeer("10.244.1.0/24", n1.testNode)
	n2.addPeer(node1+"/32", n1.testNode)
	n1.addPeer("192.168.0.2/32", n2)
	b := n2.pods["b"]
	b.dev.Inject(kit.Frame(t, kit.Eth(b.mac.String(), gwMAC), kit.IP4(b.addr.String(), node1), kit.UDP(4711, 8080), kit.Payload(8)))
	wire(n1.testNode, n2)
	kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.Src(b.addr.String()), kit.Dst(ipA), kit.WithPorts(4711, 80))
	n1.pods["a"].dev.Inject(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, b.addr.String()), kit.UDP(80, 4711), kit.Payload(8)))
	wire(n1.testNode, n2)
	kit.CheckPacket(t, one(t, b.dev.TakeSent()).Data, kit.Src(node1), kit.Dst(b.addr.String()), kit.WithPorts(8080, 4711))

	got := one(t, n1.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4("192.168.0.2", node1), kit.UDP(4711, 8080), kit.Payload(8)))).Data
	kit.CheckPacket(t, got, kit.Src("192.168.0.2"), kit.Dst(ipA), kit.WithPorts(4711, 80))
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "192.168.0.2"), kit.UDP(80, 4711), kit.Payload(8)))
	kit.CheckPacket(t, n1.received().Data, kit.Src(node1), kit.Dst("192.168.0.2"), kit.WithPorts(8080, 4711))
	n1.wantDrops(drop.None, 0)
	n2.wantDrops(drop.None, 0)
}

// Errors about what passes a mapped port name what their receivers know: the client the
// node's port, the pod its own.
func TestMappedPortErrors(t *testing.T) {
	h := mapPorts(t)
	asked := one(t, h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(client, node1), kit.UDP(4711, 8080), kit.Payload(20)))).Data
	told := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, client), kit.ICMP4(3, 3, 0, 0), kit.Bytes(asked[14:]...)))).Data
	kit.CheckPacket(t, told, kit.Src(node1), kit.Dst(client), kit.WithICMP(3, 3))
	good(t, told)
	wantQuote(t, told, client, 4711, node1, 8080)

	answer := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, client, kit.DF()), kit.UDP(80, 4711), kit.Payload(1200)))).Data
	got := one(t, h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4("192.0.2.1", node1), kit.ICMP4(3, 4, 0, 1100), kit.Bytes(answer[14:]...)))).Data
	kit.CheckPacket(t, got, kit.Src("192.0.2.1"), kit.Dst(ipA), kit.WithICMP(3, 4))
	good(t, got)
	wantQuote(t, got, ipA, 80, client, 4711)
	h.wantDrops(drop.None, 0)
}

// A connection by a mapped port goes on when nothing is known of it any more, whoever of
// the two speaks first; what the pod begins from its port is a connection of its own.
func TestMappedPortAfterARestart(t *testing.T) {
	for _, podFirst := range []bool{true, false} {
		h := mapPorts(t)
		n := *h.table.Commit().Node()
		n.NAT.Exclude = nil
		h.table.SetNode(n)
		h.commit()
		toPod := kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(client, node1), kit.TCP(4711, 8080, kit.Flags("A"), kit.Seq(500), kit.Ack(1000)), kit.Payload(20))
		toClient := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, client), kit.TCP(80, 4711, kit.Flags("A"), kit.Seq(1000), kit.Ack(500)), kit.Payload(20))
		for i := range 4 {
			if podFirst == (i%2 == 0) {
				kit.CheckPacket(t, one(t, h.fromPod("a", toClient)).Data, kit.Src(node1), kit.Dst(client), kit.WithPorts(8080, 4711))
			} else {
				kit.CheckPacket(t, one(t, h.fromWire("a", toPod)).Data, kit.Src(client), kit.Dst(ipA), kit.WithPorts(4711, 80))
			}
		}
		own := one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, client), kit.TCP(80, 4712, kit.Flags("S"))))).Data
		if src, _ := ports(t, own); src < 61000 || src > 61009 {
			t.Errorf("a connection of the pod's own leaves from port %d", src)
		}
		h.wantDrops(drop.None, 0)
	}
}

// wantQuote checks the UDP packet that an ICMP error quotes.
func wantQuote(t *testing.T, f []byte, src string, sport uint16, dst string, dport uint16) {
	t.Helper()
	p := gopacket.NewPacket(f[14+20+8:], layers.LayerTypeIPv4, gopacket.Default)
	ip, udp := p.NetworkLayer().(*layers.IPv4), p.TransportLayer().(*layers.UDP)
	if ip.SrcIP.String() != src || ip.DstIP.String() != dst || uint16(udp.SrcPort) != sport || uint16(udp.DstPort) != dport {
		t.Errorf("quoted: %s:%d > %s:%d, want %s:%d > %s:%d", ip.SrcIP, udp.SrcPort, ip.DstIP, udp.DstPort, src, sport, dst, dport)
	}
}

// Fragments of a pod's datagram to a mapped port follow their first.
func TestMappedPortFragments(t *testing.T) {
	h := mapPorts(t)
	c := h.pods["c"]
	whole := kit.IP(t, kit.IP4(c.addr.String(), node1), kit.UDP(4711, 8080), kit.Payload(40))[20:]
	part := func(at int, more bool, b []byte) []byte {
		return kit.Frame(t, kit.Eth(c.mac.String(), gwMAC), kit.IP4(c.addr.String(), node1, kit.ID(9), kit.Fragment(at, more), kit.Proto(17)), kit.Bytes(b...))
	}
	h.fromPod("c", part(16, false, whole[16:]), part(0, true, whole[:16]))
	sent := h.pods["a"].dev.TakeSent()
	if len(sent) != 2 {
		t.Fatalf("%d fragments arrive", len(sent))
	}
	for _, s := range sent {
		kit.CheckPacket(t, s.Data, kit.Src(c.addr.String()), kit.Dst(ipA), kit.WithID(9))
	}
	h.wantDrops(drop.None, 0)
}
