package dataplane

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// loop is a device that delivers the same frames over and over, without a copy:
// each chunk that the worker sends or frees comes back with the next burst.
type loop struct {
	pool   *frame.Pool
	owner  frame.Owner
	frames [][]byte
	next   int
}

func (d *loop) Start(owner frame.Owner, _ int) error { d.owner = owner; return nil }
func (d *loop) SetFill(int)                          {}

func (d *loop) Recv(b *frame.Burst) int {
	if d.frames == nil {
		return 0
	}
	for range frame.BurstSize {
		addr, ok := d.pool.Alloc()
		if !ok {
			break
		}
		f := d.frames[d.next]
		d.next = (d.next + 1) % len(d.frames)
		copy(d.pool.Bytes(addr, uint32(len(f))), f)
		b.Add(frame.Desc{Addr: addr, Len: uint32(len(f))})
	}
	return b.N
}

func (d *loop) Send(frames []frame.Frame) int {
	for i := range frames {
		d.pool.FreeFrame(&frames[i])
	}
	return len(frames)
}

func (d *loop) Sending() bool            { return false }
func (d *loop) FD() int                  { return -1 }
func (d *loop) Limits() frame.Limits     { return frame.Limits{Chunks: 1} }
func (d *loop) Stats(*frame.DeviceStats) {}
func (d *loop) Close() error             { return nil }

// hotNode is a worker with one pod and one uplink whose bursts never touch the
// kernel. flows is the number of flows that the frames belong to.
func hotNode(tb testing.TB, flows int, decap bool) (*worker, *portQueue) {
	tb.Helper()
	e, err := New(Config{Workers: 1, FrameSize: 2048, RingSize: 256, Chunks: 512, FlowCapacity: max(65536, 2*flows),
		Clock: func() time.Duration { return time.Second }})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	w := e.workers[0]
	e.flows.SetOwnerLimit(2 * flows) // all are one pod's, and nobody answers
	pod, wire := &loop{pool: w.pool}, &loop{pool: w.pool}
	table := fib.NewTable()
	local, remote := packet.AddrFrom(netip.MustParseAddr(node1)), packet.AddrFrom(netip.MustParseAddr(node2))
	v1, v2 := packet.MAC{0x66, 5: 1}, packet.MAC{0x66, 5: 2}
	podMAC, _ := packet.ParseMAC(macA)
	up, err := e.AddPort(PortSpec{Name: "u0", Kind: PortUplink, Queues: 1, MTU: wireMTU}, func(int, int) (frame.Device, error) { return wire, nil })
	if err != nil {
		tb.Fatal(err)
	}
	in, err := e.AddPort(PortSpec{Name: "cva", Kind: PortVeth, Queues: 1, MTU: podMTU, MAC: GatewayMAC, PeerMAC: podMAC,
		Addrs: []netip.Addr{netip.MustParseAddr(ipA)}}, func(int, int) (frame.Device, error) { return pod, nil })
	if err != nil {
		tb.Fatal(err)
	}
	tmpl, err := encap.VXLAN(encap.VXLANParams{Src: local, Dst: remote, DstPort: testPort, VNI: testVNI, InnerSrc: v1, InnerDst: v2})
	if err != nil {
		tb.Fatal(err)
	}
	peer := table.AddAdjacency(fib.Adjacency{Kind: fib.KindVXLAN, Ready: true, Port: up, MTU: podMTU, Rewrite: tmpl,
		Via: remote.Netip(), Peer: remote.Fold()})
	own := table.AddAdjacency(fib.Adjacency{Kind: fib.KindPod, Ready: true, Port: in, MTU: podMTU, Rewrite: encap.Ethernet(podMAC, GatewayMAC, 0)})
	for prefix, id := range map[string]fib.AdjID{"10.244.2.0/24": peer, ipA + "/32": own} {
		if err := table.SetRoute(fib.Route{Prefix: netip.MustParsePrefix(prefix), Adj: id}); err != nil {
			tb.Fatal(err)
		}
	}
	table.SetNode(fib.Node{Addr4: local, VTEPs: []fib.LocalVTEP{{Addr: local, Port: testPort, VNI: testVNI, MAC: v1}}})
	e.Publish(table.Commit())
	var frames [][]byte
	for i := range flows {
		sport, dport := uint16(1024+i%50000), uint16(80+i/50000)
		if decap {
			frames = append(frames, kit.Frame(tb, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
				kit.Eth(v2.String(), v1.String()), kit.IP4(ipB, ipA), kit.UDP(dport, sport), kit.Payload(18)))
		} else {
			frames = append(frames, kit.Frame(tb, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(sport, dport), kit.Payload(18)))
		}
	}
	q := w.ports[in]
	if decap {
		wire.frames, q = frames, w.ports[up]
	} else {
		pod.frames = frames
	}
	for range flows/frame.BurstSize + 1 { // every flow is established
		w.handle(q)
		w.flows.Quiesce(0)
	}
	return w, q
}

// The whole path of an established flow allocates nothing, both directions.
func TestEstablishedFlowsDoNotAllocate(t *testing.T) {
	for _, decap := range []bool{false, true} {
		w, q := hotNode(t, 1000, decap)
		got := testing.AllocsPerRun(100, func() {
			w.handle(q)
			w.flows.Quiesce(0)
			w.tick(true)
		})
		if got != 0 {
			t.Errorf("decap %v: %v allocations a burst", decap, got)
		}
		if n := len(w.eng.Drops()); n != 0 {
			t.Errorf("decap %v: frames were dropped: %+v", decap, w.eng.Drops())
		}
	}
}

// First packets of flows, refusals and responders do not allocate either: an
// attacker must not drive the garbage collector.
func TestExceptionsDoNotAllocate(t *testing.T) {
	n1, _ := pair(t)
	pod := &loop{pool: n1.w.pool}
	q := n1.w.ports[n1.pods["a"].port]
	q.dev = pod
	for sport := range 6000 {
		pod.frames = append(pod.frames, kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "203.0.113.1"), kit.UDP(uint16(sport+1), 9)))
	}
	for range 64 {
		pod.frames = append(pod.frames,
			kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.TTL(1)), kit.UDP(1, 9)),
			kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macA, ipA, "169.254.1.1")),
			kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "169.254.1.1"), kit.ICMP4(8, 0, 7, 1)))
	}
	if got := testing.AllocsPerRun(100, func() { n1.w.handle(q) }); got != 0 {
		t.Errorf("%v allocations a burst", got)
	}
}

// The helpers on the packet path must stay inlined: a call costs as much as
// what they do.
func TestHotHelpersInline(t *testing.T) {
	out, err := exec.Command("go", "build", "-gcflags=-m", "./frame", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, fn := range []string{
		"(*Pool).Bytes", "(*Pool).HeadroomOf", "(*Pool).Give", "(*Burst).Add", "bump", "isGateway",
	} {
		if !strings.Contains(string(out), "can inline "+fn) {
			t.Errorf("%s is not inlined any more", fn)
		}
	}
}

// BenchmarkPipeline is the whole way of an established flow's packet in memory:
// parse, flow hit, VXLAN push or pop, ready to send. ns/op includes the test's
// device, which copies each frame into a chunk and frees it; ns/packet does not.
func BenchmarkPipeline(b *testing.B) {
	for _, dir := range []string{"push", "pop"} {
		for _, flows := range []int{1, 1000, 10000, 100000} {
			b.Run(fmt.Sprintf("%s/flows=%d", dir, flows), func(b *testing.B) {
				w, q := hotNode(b, flows, dir == "pop")
				b.ReportAllocs()
				b.ResetTimer()
				packets := 0
				for packets < b.N {
					packets += w.handle(q)
					w.flows.Quiesce(0)
				}
				b.StopTimer()
				if d := w.eng.Drops(); len(d) != 0 {
					b.Fatalf("frames were dropped: %+v", d)
				}
				whole := b.Elapsed()
				start := time.Now()
				for again := 0; again < packets; {
					w.burst.Reset()
					again += q.dev.Recv(&w.burst)
					q.dev.Send(w.burst.Frames[:w.burst.N])
				}
				b.ReportMetric(float64(whole-time.Since(start))/float64(packets), "ns/packet")
			})
		}
	}
}
