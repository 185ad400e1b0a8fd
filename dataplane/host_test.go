package dataplane

import (
	"testing"

	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	hostMAC = "02:00:00:00:00:fe"
	vip     = "10.96.0.10" // of a Service, which the node's stack knows
	outside = "203.0.113.5"
)

// testHost is the node's own stack behind a port.
type testHost struct {
	*testNode
	dev  *memport.Device
	port uint16
}

// addHost gives a node a port to its stack: its own address and the Service's lead
// there, and all that is unknown to the wire.
func (n *testNode) addHost() *testHost {
	n.t.Helper()
	h := &testHost{testNode: n, dev: memport.New(n.e.Pool(0))}
	h.port = n.addPort(PortSpec{Name: "culvert0", Kind: PortHost, MTU: podMTU}, h.dev)
	mac := packet.MAC{2, 0, 0, 0, 0, 0xfe}
	for _, prefix := range []string{n.addr.String() + "/32", vip + "/32"} {
		n.route(prefix, fib.Adjacency{Kind: fib.KindLocal, Ready: true, Port: h.port, MTU: podMTU, Dev: "culvert0",
			Rewrite: encap.Ethernet(mac, mac, 0)})
	}
	n.route("0.0.0.0/0", fib.Adjacency{Kind: fib.KindDirect, Ready: true, Port: n.upPort, MTU: wireMTU, Dev: "u0", Outside: true,
		Rewrite: encap.Ethernet(packet.MAC{2, 0, 0, 0, 0, 9}, n.nic, 0)})
	return h
}

// send is what the stack sends; frames that are answered are in its device.
func (h *testHost) send(ls ...kit.Layer) {
	h.t.Helper()
	h.dev.Inject(kit.Frame(h.t, append([]kit.Layer{kit.Eth(hostMAC, hostMAC)}, ls...)...))
	h.step()
}

func (h *testHost) received() memport.Sent {
	h.t.Helper()
	return one(h.t, h.dev.TakeSent())
}

// What a pod sends to the node arrives at the node's stack, and the answer at the pod;
// neither is a hop, and even a packet of the last hop arrives.
func TestPodToItsNode(t *testing.T) {
	n1, _ := pair(t)
	h := n1.addHost()
	for _, ttl := range []uint8{64, 1} {
		n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1, kit.TTL(ttl)), kit.TCP(4711, 10250, kit.Flags("S")), kit.Payload(0)))
		kit.CheckPacket(t, h.received().Data, kit.DstMAC(hostMAC), kit.Src(ipA), kit.Dst(node1), kit.WithTTL(ttl), kit.WithPorts(4711, 10250))
	}
	h.send(kit.IP4(node1, ipA), kit.TCP(10250, 4711, kit.Flags("SA"), kit.Ack(1)), kit.Payload(0))
	kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.SrcMAC(gwMAC), kit.DstMAC(macA), kit.Src(node1), kit.WithTTL(64))
	n1.wantDrops(drop.None, 0)
}

// kubelet's probe of a pod on this node, and the node's own connection to a pod of
// another one by its tunnel address.
func TestHostToPod(t *testing.T) {
	n1, n2 := pair(t)
	h := n1.addHost()
	h.send(kit.IP4(node1, ipA), kit.TCP(40000, 8080, kit.Flags("S")), kit.Payload(0))
	kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.DstMAC(macA), kit.Src(node1), kit.WithTTL(64))
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1), kit.TCP(8080, 40000, kit.Flags("SA"), kit.Ack(1)), kit.Payload(0)))
	kit.CheckPacket(t, h.received().Data, kit.Src(ipA), kit.WithPorts(8080, 40000))

	n1.route("10.244.1.0/32", fib.Adjacency{Kind: fib.KindLocal, Ready: true, Port: h.port, MTU: podMTU, Rewrite: encap.Ethernet(packet.MAC{2, 0, 0, 0, 0, 0xfe}, packet.MAC{}, 0)})
	h.send(kit.IP4("10.244.1.0", ipB), kit.UDP(40001, 53), kit.Payload(20))
	out := one(t, n1.uplink.TakeSent()).Data
	kit.CheckPacket(t, kit.CheckVXLAN(t, out, kit.OuterDst(node2)), kit.Src("10.244.1.0"), kit.WithTTL(64))
	got := one(t, n2.fromWire("b", out)).Data
	kit.CheckPacket(t, got, kit.Src("10.244.1.0"), kit.WithTTL(63)) // one hop: the other node
	n2.fromPod("b")
	n2.pods["b"].dev.Inject(kit.Frame(t, kit.Eth(macB, gwMAC), kit.IP4(ipB, "10.244.1.0"), kit.UDP(53, 40001), kit.Payload(20)))
	wire(n1, n2)
	kit.CheckPacket(t, h.received().Data, kit.Dst("10.244.1.0"), kit.WithPorts(53, 40001))
	n1.wantDrops(drop.None, 0)
	n2.wantDrops(drop.None, 0)
}

// A pod's connection to a Service is translated in the node's stack (kube-proxy):
// what comes back from there has the pod's source, and the endpoint's answer must
// pass there again, be the endpoint of this node or of another.
func TestServiceThroughTheHost(t *testing.T) {
	for _, endpoint := range []string{ipC, ipB} {
		t.Run(endpoint, func(t *testing.T) {
			n1, n2 := pair(t)
			h := n1.addHost()
			at, name, mac := n1, "c", "0a:58:0a:f4:01:03"
			if endpoint == ipB {
				at, name, mac = n2, "b", macB
			}
			exchange := func(flags string, answer string, ack uint32) {
				t.Helper()
				n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, vip), kit.TCP(4711, 80, kit.Flags(flags), kit.Ack(ack)), kit.Payload(0)))
				kit.CheckPacket(t, h.received().Data, kit.Src(ipA), kit.Dst(vip))
				h.send(kit.IP4(ipA, endpoint, kit.TTL(63)), kit.TCP(4711, 8080, kit.Flags(flags), kit.Ack(ack)), kit.Payload(0))
				wire(n1, n2)
				kit.CheckPacket(t, one(t, at.pods[name].dev.TakeSent()).Data, kit.Src(ipA), kit.WithPorts(4711, 8080))
				at.pods[name].dev.Inject(kit.Frame(t, kit.Eth(mac, gwMAC), kit.IP4(endpoint, ipA), kit.TCP(8080, 4711, kit.Flags(answer), kit.Ack(1)), kit.Payload(0)))
				wire(n1, n2)
				if stray := n1.pods["a"].dev.TakeSent(); len(stray) != 0 {
					t.Fatal("the endpoint's answer went past the node's stack to a pod that knows nothing of it")
				}
				kit.CheckPacket(t, h.received().Data, kit.Src(endpoint), kit.Dst(ipA), kit.WithPorts(8080, 4711))
				h.send(kit.IP4(vip, ipA, kit.TTL(62)), kit.TCP(80, 4711, kit.Flags(answer), kit.Ack(1)), kit.Payload(0))
				kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.Src(vip), kit.WithPorts(80, 4711))
			}
			exchange("S", "SA", 0)
			exchange("A", "A", 1)
			n1.wantDrops(drop.None, 0)
			n2.wantDrops(drop.None, 0)

			// The endpoint refuses: its error quotes what the stack sent.
			quote := kit.IP(t, kit.IP4(ipA, endpoint, kit.TTL(62)), kit.TCP(4711, 8080, kit.Flags("A"), kit.Ack(1)), kit.Payload(0))
			at.pods[name].dev.Inject(kit.Frame(t, kit.Eth(mac, gwMAC), kit.IP4(endpoint, ipA), kit.ICMP4(3, 3, 0, 0), kit.Bytes(quote...)))
			wire(n1, n2)
			if stray := n1.pods["a"].dev.TakeSent(); len(stray) != 0 {
				t.Error("the endpoint's error went past the node's stack")
			}
			kit.CheckPacket(t, h.received().Data, kit.Src(endpoint), kit.Dst(ipA), kit.WithICMP(3, 3))
		})
	}
}

// What the stack sends in vain is answered to the stack, whoever's address it sent for.
func TestHostGetsTheErrors(t *testing.T) {
	n1, _ := pair(t)
	h := n1.addHost()
	h.send(kit.IP4(ipA, ipB, kit.DF()), kit.UDP(1, 2), kit.Payload(1460))
	kit.CheckPacket(t, h.received().Data, kit.Dst(ipA), kit.WithICMP(3, 4))
	if stray := n1.pods["a"].dev.TakeSent(); len(stray) != 0 {
		t.Error("the error went to the pod")
	}
	h.send(kit.IP4(node1, outside), kit.UDP(1, 2), kit.Payload(10))
	kit.CheckPacket(t, h.received().Data, kit.Dst(node1), kit.WithICMP(3, 0))
	h.send(kit.IP4(ipA, vip), kit.UDP(1, 2), kit.Payload(10))
	kit.CheckPacket(t, h.received().Data, kit.Dst(ipA), kit.WithICMP(3, 0)) // and no loop
	if n := len(n1.uplink.TakeSent()); n != 0 {
		t.Errorf("%d frames left the node", n)
	}
	if got := n1.drops(drop.NoRoute); got != 2 {
		t.Errorf("no_route: %d, want 2", got)
	}
}

// A fragmented datagram of the node arrives, and one for it.
func TestHostFragments(t *testing.T) {
	n1, _ := pair(t)
	h := n1.addHost()
	whole := kit.IP(t, kit.IP4(node1, ipA, kit.ID(7)), kit.UDP(4000, 53), kit.Payload(24))[20:]
	h.send(kit.IP4(node1, ipA, kit.ID(7), kit.Fragment(0, true), kit.Proto(17)), kit.Bytes(whole[:16]...))
	h.send(kit.IP4(node1, ipA, kit.ID(7), kit.Fragment(16, false), kit.Proto(17)), kit.Bytes(whole[16:]...))
	if got := len(n1.pods["a"].dev.TakeSent()); got != 2 {
		t.Errorf("%d fragments arrived at the pod, want 2", got)
	}
	first := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1, kit.ID(8), kit.Fragment(0, true), kit.Proto(17)), kit.Bytes(whole[:16]...))
	last := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1, kit.ID(8), kit.Fragment(16, false), kit.Proto(17)), kit.Bytes(whole[16:]...))
	n1.fromPod("a", last, first)
	if got := len(h.dev.TakeSent()); got != 2 {
		t.Errorf("%d fragments arrived at the node, want 2", got)
	}
	n1.wantDrops(drop.None, 0)
}

// Frames that are nobody's: the device has neighbours neither to ask nor to tell.
func TestHostNoise(t *testing.T) {
	n1, _ := pair(t)
	h := n1.addHost()
	h.dev.Inject(kit.Frame(t, kit.EthType(hostMAC, "ff:ff:ff:ff:ff:ff", 0x0806), kit.ARPRequest(hostMAC, node1, ipA)))
	h.dev.Inject(kit.Frame(t, kit.Eth(hostMAC, "33:33:00:00:00:02"), kit.IP6("fe80::1", "ff02::2"), kit.ICMP6(133, 0), kit.Payload(8)))
	h.step()
	if n := len(h.dev.TakeSent()) + len(n1.uplink.TakeSent()); n != 0 {
		t.Errorf("%d frames were sent", n)
	}
	if n1.drops(drop.ARPIgnored) != 1 || n1.drops(drop.Multicast) != 1 {
		t.Errorf("drops: %+v", n1.e.Drops())
	}
}

// The node's stack loses its port: its address is the dataplane's to answer again.
func TestWithoutHostPort(t *testing.T) {
	n1, _ := pair(t)
	n1.route(node1+"/32", fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535})
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1), kit.ICMP4(8, 0, 1, 1), kit.Payload(8)))
	kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.Src(node1), kit.WithICMP(0, 0))
}
