package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	kindA6 = "fd00:10:244:1::2"
	kindC6 = "fd00:10:244:1::3"
	mac6A  = "0a:58:00:00:00:02"
	mac6C  = "0a:58:00:00:00:03"
)

// kinds is node 1 with pods of both families, a peer, and a route of each kind.
func kinds(t *testing.T) (n, n2 *testNode) {
	n, n2 = pair(t)
	n.addPod("a6", kindA6)
	n.addPod("c6", kindC6)
	for prefix, kind := range map[string]fib.Kind{
		"10.99.0.0/16": fib.KindReject, "10.98.0.0/16": fib.KindBlackhole, node1 + "/32": fib.KindLocal,
		"fd00:99::/32": fib.KindReject, "fd00:98::/32": fib.KindBlackhole, "fd00:1::1/128": fib.KindLocal,
	} {
		n.route(prefix, fib.Adjacency{Kind: kind, Ready: true, MTU: 65535})
	}
	n.table.SetNode(fib.Node{
		Addr4: packet.AddrFrom(n.addr), Addr6: packet.AddrFrom(netip.MustParseAddr("fd00:1::1")),
		VTEPs: []fib.LocalVTEP{{Addr: packet.AddrFrom(n.addr), Port: testPort, VNI: testVNI, MAC: n.mac}},
	})
	n.commit()
	return n, n2
}

// udp is a packet that pod a, or a6, sends.
func udp(t *testing.T, dst string) (pod string, f []byte) {
	if netip.MustParseAddr(dst).Is4() {
		return "a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, dst), kit.UDP(4711, 80), kit.Payload(20))
	}
	return "a6", kit.Frame(t, kit.Eth(mac6A, gwMAC), kit.IP6(kindA6, dst), kit.UDP(4711, 80), kit.Payload(20))
}

// A reject route answers as an 'unreachable' route of Linux does: host
// unreachable, and for IPv6 no route; a blackhole says nothing; both are counted
// and neither makes a flow.
func TestRejectAndBlackhole(t *testing.T) {
	for dst, want := range map[string]struct {
		reason    drop.Reason
		typ, code uint8
		from      string
	}{
		"10.99.3.4":  {drop.Reject, 3, 1, node1},
		"fd00:99::7": {drop.Reject, 1, 0, "fd00:1::1"},
		"10.98.3.4":  {reason: drop.Blackhole},
		"fd00:98::7": {reason: drop.Blackhole},
	} {
		t.Run(dst, func(t *testing.T) {
			n, _ := kinds(t)
			pod, f := udp(t, dst)
			sent := n.fromPod(pod, f)
			told := n.pods[pod].dev.TakeSent()
			if len(sent) != 0 {
				t.Errorf("%d frames left the node", len(sent))
			}
			n.wantDrops(want.reason, 1)
			if got := n.e.FlowTable().Len(); got != 0 {
				t.Errorf("%d flows", got)
			}
			if want.reason == drop.Blackhole {
				if len(told) != 0 {
					t.Errorf("a blackhole answered %x", told[0].Data)
				}
				return
			}
			_, again := udp(t, dst)
			kit.CheckPacket(t, one(t, told).Data, kit.SrcMAC(gwMAC), kit.Src(want.from), kit.WithICMP(want.typ, want.code))
			// A second packet is told the same: the verdict is not cached as a flow.
			n.fromPod(pod, again)
			kit.CheckPacket(t, one(t, n.pods[pod].dev.TakeSent()).Data, kit.WithICMP(want.typ, want.code))
			n.wantDrops(want.reason, 2)
		})
	}
}

// An ICMP error is never answered with one (RFC 1122 3.2.2, RFC 4443 2.4 e), and
// answers stay within the burst's budget.
func TestRejectIsBounded(t *testing.T) {
	n, _ := kinds(t)
	quoted := kit.IP(t, kit.IP4("10.99.0.1", ipA), kit.UDP(1, 2), kit.Payload(8))
	n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "10.99.0.1"), kit.ICMP4(3, 3, 0, 0), kit.Bytes(quoted...)))
	if told := n.pods["a"].dev.TakeSent(); len(told) != 0 {
		t.Errorf("an ICMP error was answered: %x", told[0].Data)
	}
	var burst [][]byte
	for range 3 * exceptionBudget {
		_, f := udp(t, "10.99.3.4")
		burst = append(burst, f)
	}
	n.fromPod("a", burst...)
	if told := n.pods["a"].dev.TakeSent(); len(told) != exceptionBudget {
		t.Errorf("%d answers in a burst, want %d", len(told), exceptionBudget)
	}
	n.wantDrops(drop.Reject, 1+3*exceptionBudget)
}

// What came through the tunnel is refused through the tunnel.
func TestRejectOverTheWire(t *testing.T) {
	n, n2 := kinds(t)
	n2.addPeer("10.99.0.0/16", n)
	sent := one(t, n2.fromPod("b", kit.Frame(t, kit.Eth(macB, gwMAC), kit.IP4(ipB, "10.99.0.1"), kit.UDP(1, 2), kit.Payload(8)))).Data
	n.uplink.Inject(sent)
	n.step()
	back := one(t, n.uplink.TakeSent()).Data
	kit.CheckPacket(t, kit.CheckVXLAN(t, back, kit.OuterDst(node2)), kit.Src(node1), kit.Dst(ipB), kit.WithICMP(3, 1))
	n.wantDrops(drop.Reject, 1)
	got := one(t, n2.fromWire("b", back)).Data
	kit.CheckPacket(t, got, kit.Src(node1), kit.WithICMP(3, 1))
}

// The node's own addresses answer pings and refuse the rest.
func TestLocalRoute(t *testing.T) {
	n, _ := kinds(t)
	a, a6 := n.pods["a"].dev, n.pods["a6"].dev
	n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, node1), kit.ICMP4(8, 0, 7, 1), kit.Payload(56)))
	kit.CheckPacket(t, one(t, a.TakeSent()).Data, kit.Src(node1), kit.Dst(ipA), kit.WithICMP(0, 0))
	n.fromPod("a6", kit.Frame(t, kit.Eth(mac6A, gwMAC), kit.IP6(kindA6, "fd00:1::1"), kit.ICMP6(128, 0), kit.Bytes(0, 7, 0, 1, 1, 2, 3, 4)))
	kit.CheckPacket(t, one(t, a6.TakeSent()).Data, kit.Src("fd00:1::1"), kit.Dst(kindA6), kit.WithICMP(129, 0))
	n.wantDrops(drop.None, 0)
	pod, f := udp(t, node1)
	n.fromPod(pod, f)
	kit.CheckPacket(t, one(t, a.TakeSent()).Data, kit.Src(node1), kit.WithICMP(3, 3))
	pod, f = udp(t, "fd00:1::1")
	n.fromPod(pod, f)
	kit.CheckPacket(t, one(t, a6.TakeSent()).Data, kit.Src("fd00:1::1"), kit.WithICMP(1, 4))
	n.wantDrops(drop.HostUnreachable, 2)
}

// IPv6 between pods of the node.
func TestPodRoute6(t *testing.T) {
	n, _ := kinds(t)
	_, f := udp(t, kindC6)
	n.fromPod("a6", f)
	kit.CheckPacket(t, one(t, n.pods["c6"].dev.TakeSent()).Data, kit.SrcMAC(gwMAC), kit.DstMAC(mac6C),
		kit.Src(kindA6), kit.Dst(kindC6), kit.WithTTL(63), kit.WithPorts(4711, 80))
	n.wantDrops(drop.None, 0)
}

// twoWays is node 1 with two uplinks, and a group of a tunnel over each to
// node 2.
type twoWays struct {
	*testNode
	dev   [2]*memport.Device
	port  [2]uint16
	hop   [2]fib.HopID
	adj   [2]fib.AdjID
	group fib.AdjID
}

func newTwoWays(t *testing.T) *twoWays {
	t.Helper()
	w := &twoWays{testNode: newTestNode(t, node1, 1)}
	w.addPod("a", ipA)
	u1 := memport.New(w.e.Pool(0))
	w.port = [2]uint16{w.upPort, w.addPort(PortSpec{Name: "u1", Kind: PortUplink, MAC: packet.MAC{2, 0, 0, 0, 1, 1}, MTU: wireMTU}, u1)}
	w.dev = [2]*memport.Device{w.uplink, u1}
	peer := packet.AddrFrom(netip.MustParseAddr(node2))
	tmpl, err := encap.VXLAN(encap.VXLANParams{
		Src: packet.AddrFrom(w.addr), Dst: peer, DstPort: testPort, VNI: testVNI, InnerSrc: w.mac, InnerDst: packet.MAC{0x66, 0, 0, 0, 0, 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	members := make([]fib.Member, 2)
	for i := range w.port {
		w.hop[i] = w.table.AddHop(w.gateway(i, 1))
		w.adj[i] = w.table.AddAdjacency(fib.Adjacency{
			Kind: fib.KindVXLAN, Ready: true, MTU: podMTU, Hop: w.hop[i], Rewrite: tmpl,
			Via: peer.Netip(), Peer: peer.Fold(), VNI: testVNI, MAC: packet.MAC{0x66, 0, 0, 0, 0, 2},
		})
		members[i] = fib.Member{Adj: w.adj[i], Weight: 1}
	}
	if w.group, err = w.table.AddGroup(members); err != nil {
		t.Fatal(err)
	}
	if err := w.table.SetRoute(fib.Route{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Adj: w.group}); err != nil {
		t.Fatal(err)
	}
	w.commit()
	return w
}

// gateway is the next hop over uplink i; last is the end of its MAC.
func (w *twoWays) gateway(i int, last byte) fib.NextHop {
	return fib.NextHop{
		Ready: true, Port: w.port[i], Dev: fmt.Sprintf("u%d", i), MTU: wireMTU,
		SrcMAC: packet.MAC{2, 0, 0, 0, byte(i), 1}, MAC: packet.MAC{2, 0, 0, 9, byte(i), last},
	}
}

const manyFlows = 400

// send sends a packet of each flow and returns by which uplink each left.
func (w *twoWays) send(last byte) (by [manyFlows]int) {
	w.t.Helper()
	for i := range by {
		w.pods["a"].dev.Inject(kit.Frame(w.t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(uint16(1000+i), 80), kit.Payload(4)))
		w.step()
		out := [2][]memport.Sent{w.dev[0].TakeSent(), w.dev[1].TakeSent()}
		if len(out[0])+len(out[1]) != 1 {
			w.t.Fatalf("flow %d: %d frames by the first uplink, %d by the second", i, len(out[0]), len(out[1]))
		}
		by[i] = len(out[1])
		g := w.gateway(by[i], last)
		kit.CheckVXLAN(w.t, out[by[i]][0].Data, kit.OuterSrcMAC(g.SrcMAC.String()), kit.OuterDstMAC(g.MAC.String()), kit.OuterDst(node2))
	}
	return by
}

func count(by [manyFlows]int) (second int) {
	for _, u := range by {
		second += u
	}
	return second
}

// Flows are spread over a group's members and keep theirs: in established
// flows, after a change elsewhere, and after one in the group unless it is about
// their bucket.
func TestGroupKeepsFlows(t *testing.T) {
	w := newTwoWays(t)
	first := w.send(1)
	if n := count(first); n < manyFlows*35/100 || n > manyFlows*65/100 {
		t.Errorf("%d of %d flows take the second uplink", n, manyFlows)
	}
	if w.send(1) != first {
		t.Error("established flows changed their uplink")
	}
	w.route("10.50.0.0/16", fib.Adjacency{Kind: fib.KindBlackhole})
	if w.send(1) != first {
		t.Error("flows changed their uplink with a route elsewhere")
	}
	for i := range w.hop {
		w.table.UpdateHop(w.hop[i], w.gateway(i, 2))
	}
	w.commit()
	if w.send(2) != first { // and their frames go to the new MAC
		t.Error("flows changed their uplink with the gateways' MACs")
	}
	if got := w.e.FlowTable().Len(); got != manyFlows {
		t.Errorf("%d flows, want %d", got, manyFlows)
	}

	update := func(m ...fib.Member) {
		t.Helper()
		if err := w.table.UpdateGroup(w.group, m); err != nil {
			t.Fatal(err)
		}
		w.commit()
	}
	update(fib.Member{Adj: w.adj[1], Weight: 1})
	if n := count(w.send(2)); n != manyFlows {
		t.Errorf("%d of %d flows take the uplink that is left", n, manyFlows)
	}
	update(fib.Member{Adj: w.adj[0], Weight: 1}, fib.Member{Adj: w.adj[1], Weight: 3})
	last := w.send(2) // 64 of 256 buckets went back
	if n := manyFlows - count(last); n < manyFlows*15/100 || n > manyFlows*35/100 {
		t.Errorf("%d of %d flows take the uplink that came back, want a quarter", n, manyFlows)
	}
	w.wantDrops(drop.None, 0)
	if got := w.e.FlowTable().Len(); got != manyFlows {
		t.Errorf("%d flows, want %d", got, manyFlows)
	}
}

// Answers may come by either uplink, and a trace names the member.
func TestGroupTakesAnswersByAnyMember(t *testing.T) {
	w := newTwoWays(t)
	by := w.send(1)
	for i, dev := range w.dev {
		dev.Inject(kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, 4789), kit.VXLANHeader(testVNI),
			kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(80, uint16(1000+i)), kit.Payload(4)))
		w.step()
		kit.CheckPacket(t, one(t, w.pods["a"].dev.TakeSent()).Data, kit.Src(ipB), kit.Dst(ipA))
	}
	w.wantDrops(drop.None, 0)
	for i := range 8 {
		f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(uint16(1000+i), 80), kit.Payload(4))
		trace, err := w.e.Trace("cva", f)
		if err != nil || trace.Port != fmt.Sprintf("u%d", by[i]) {
			t.Errorf("flow %d: traced to %q, %v; it left by u%d", i, trace.Port, err, by[i])
		}
	}
}
