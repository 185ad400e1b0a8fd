package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
)

// A whole node in memory: an engine whose ports are memports and whose worker
// is stepped by hand, so that a test sees every burst.
//
//	pod a ── cva ──┐                      ┌── cvb ── pod b
//	pod c ── cvc ──┤ node 1 ── u0 ~ u0 ── node 2
type testNode struct {
	t      *testing.T
	e      *Engine
	w      *worker
	table  *fib.Table
	uplink *memport.Device
	upPort uint16
	pods   map[string]*testPod
	clock  time.Duration

	addr netip.Addr
	mac  packet.MAC // of the VTEP
	nic  packet.MAC
}

type testPod struct {
	addr netip.Addr
	mac  packet.MAC
	dev  *memport.Device
	port uint16
}

const (
	testVNI  = 4096
	testPort = 4789
	podMTU   = 1450
	wireMTU  = 1500
)

func newTestNode(t *testing.T, addr string, last byte) *testNode {
	t.Helper()
	n := &testNode{
		t: t, addr: netip.MustParseAddr(addr), pods: map[string]*testPod{}, table: fib.NewTable(),
		mac: packet.MAC{0x66, 0, 0, 0, 0, last}, nic: packet.MAC{2, 0, 0, 0, 0, last},
	}
	e, err := New(Config{
		Workers: 1, FrameSize: 4096, RingSize: 256, Chunks: 4096, FlowCapacity: 65536, Checked: true,
		Clock: func() time.Duration { return n.clock },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.e, n.w = e, e.workers[0]
	t.Cleanup(func() {
		if err := n.w.checkLeaks(); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	n.uplink = memport.New(e.Pool(0))
	n.upPort = n.addPort(PortSpec{Name: "u0", Kind: PortUplink, MAC: n.nic, MTU: wireMTU}, n.uplink)
	node := fib.Node{
		VTEPs: []fib.LocalVTEP{{Addr: packet.AddrFrom(n.addr), Port: testPort, VNI: testVNI, MAC: n.mac}},
	}
	if n.addr.Is4() {
		node.Addr4 = packet.AddrFrom(n.addr)
	} else {
		node.Addr6 = packet.AddrFrom(n.addr)
	}
	n.table.SetNode(node)
	n.commit()
	return n
}

func (n *testNode) addPort(spec PortSpec, dev *memport.Device) uint16 {
	n.t.Helper()
	spec.Queues = 1
	port, err := n.e.AddPort(spec, func(int, int) (frame.Device, error) { return dev, nil })
	if err != nil {
		n.t.Fatal(err)
	}
	return port
}

// addPod attaches a pod and routes its address to it.
func (n *testNode) addPod(name, addr string) *testPod {
	n.t.Helper()
	p := &testPod{addr: netip.MustParseAddr(addr), dev: memport.New(n.e.Pool(0))}
	a := p.addr.As16()
	p.mac = packet.MAC{0x0a, 0x58, a[12], a[13], a[14], a[15]}
	p.port = n.addPort(PortSpec{
		Name: "cv" + name, Kind: PortVeth, MAC: GatewayMAC, PeerMAC: p.mac,
		Addrs: []netip.Addr{p.addr}, MTU: podMTU,
	}, p.dev)
	n.route(netip.PrefixFrom(p.addr, p.addr.BitLen()).String(), fib.Adjacency{
		Kind: fib.KindPod, Ready: true, Port: p.port, MTU: podMTU, MAC: p.mac, Dev: "cv" + name,
		Rewrite: encap.Ethernet(p.mac, GatewayMAC, 0),
	})
	n.pods[name] = p
	return p
}

// addPeer routes a prefix to another node through VXLAN.
func (n *testNode) addPeer(prefix string, peer *testNode) {
	n.t.Helper()
	n.addKernelPeer(prefix, peer.addr, peer.mac, peer.nic)
}

func (n *testNode) addKernelPeer(prefix string, addr netip.Addr, vtep, nic packet.MAC) {
	n.t.Helper()
	tmpl, err := encap.VXLAN(encap.VXLANParams{
		SrcMAC: n.nic, DstMAC: nic, Src: packet.AddrFrom(n.addr), Dst: packet.AddrFrom(addr),
		DstPort: testPort, VNI: testVNI, InnerSrc: n.mac, InnerDst: vtep,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.route(prefix, fib.Adjacency{
		Kind: fib.KindVXLAN, Ready: true, Port: n.upPort, MTU: uint16(wireMTU - tmpl.Overhead()), Rewrite: tmpl,
		Via: addr, Peer: ptr(packet.AddrFrom(addr)).Fold(), VNI: testVNI, MAC: vtep, Dev: "u0",
	})
}

func ptr[T any](v T) *T { return &v }

// route sets a route and publishes it.
func (n *testNode) route(prefix string, adj fib.Adjacency) fib.AdjID {
	n.t.Helper()
	id := n.table.AddAdjacency(adj)
	if err := n.table.SetRoute(fib.Route{Prefix: netip.MustParsePrefix(prefix), Adj: id, Protocol: "culvert"}); err != nil {
		n.t.Fatal(err)
	}
	n.commit()
	return id
}

func (n *testNode) commit() { n.e.Publish(n.table.Commit()) }

// step handles every frame that waits at any port, burst by burst.
func (n *testNode) step() {
	for again := true; again; {
		again = false
		for _, q := range n.w.active {
			if n.w.handle(q) > 0 {
				again = true
			}
		}
		n.w.now = n.e.Now()
		n.w.flows.Quiesce(0)
	}
}

// fromPod injects frames at a pod and returns what left on the uplink.
func (n *testNode) fromPod(name string, frames ...[]byte) []memport.Sent {
	n.pods[name].dev.Inject(frames...)
	n.step()
	return n.uplink.TakeSent()
}

// fromWire injects frames at the uplink and returns what reached the pod.
func (n *testNode) fromWire(name string, frames ...[]byte) []memport.Sent {
	n.uplink.Inject(frames...)
	n.step()
	return n.pods[name].dev.TakeSent()
}

// drops is the number of frames dropped for a reason, all ports together.
func (n *testNode) drops(r drop.Reason) (sum uint64) {
	for _, d := range n.e.Drops() {
		if d.Reason == r {
			sum += d.Packets
		}
	}
	return sum
}

// wantDrops fails unless exactly n frames were dropped, all for reason r.
func (n *testNode) wantDrops(r drop.Reason, count uint64) {
	n.t.Helper()
	for _, d := range n.e.Drops() {
		if d.Reason != r {
			n.t.Errorf("unexpected drop at %s: %s ×%d", d.Port, d.Reason, d.Packets)
		}
	}
	if got := n.drops(r); got != count {
		n.t.Errorf("%s: %d drops, want %d", r, got, count)
	}
}

// pair is two nodes with a pod each, routed to each other.
func pair(t *testing.T) (n1, n2 *testNode) {
	n1, n2 = newTestNode(t, "192.168.0.1", 1), newTestNode(t, "192.168.0.2", 2)
	n1.addPod("a", "10.244.1.2")
	n1.addPod("c", "10.244.1.3")
	n2.addPod("b", "10.244.2.2")
	n1.addPeer("10.244.2.0/24", n2)
	n2.addPeer("10.244.1.0/24", n1)
	return n1, n2
}

// wire carries what n1 sent to n2 and the other way, until all is quiet.
func wire(n1, n2 *testNode) {
	for quiet := false; !quiet; {
		n1.step()
		n2.step()
		quiet = true
		for _, s := range n1.uplink.TakeSent() {
			n2.uplink.Inject(s.Data)
			quiet = false
		}
		for _, s := range n2.uplink.TakeSent() {
			n1.uplink.Inject(s.Data)
			quiet = false
		}
	}
}
