package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/dataplane/flow"
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
	// tcp: each time that a frame comes, its sequence number is that of the next
	// segment. Nobody on the way looks at the checksum.
	tcp bool
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
		if d.tcp {
			seq := f[len(f)-benchPayload-packet.TCPLen+4:]
			binary.BigEndian.PutUint32(seq, binary.BigEndian.Uint32(seq)+benchPayload)
		}
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

// benchPayload is the length of a frame's payload in bytes.
const benchPayload = 18

// hot says what a hotNode is to forward.
type hot struct {
	flows    int // that the frames belong to
	capacity int // of the flow table; 0 is twice the flows
	decap    bool
	v6, tcp  bool
	workers  int // 0 is one
}

// hotNode is a node with one pod and one uplink whose bursts never touch the kernel,
// and the queue of each worker that its frames come by.
func hotNode(tb testing.TB, h hot) (*Engine, []*portQueue) {
	tb.Helper()
	workers := max(h.workers, 1)
	if h.capacity == 0 {
		h.capacity = max(65536, 2*h.flows)
	}
	e, err := New(Config{Workers: workers, FrameSize: 2048, RingSize: 256, Chunks: 512, FlowCapacity: h.capacity,
		Clock: func() time.Duration { return time.Second }})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	table := fib.NewTable()
	local, remote := packet.AddrFrom(netip.MustParseAddr(node1)), packet.AddrFrom(netip.MustParseAddr(node2))
	v1, v2 := packet.MAC{0x66, 5: 1}, packet.MAC{0x66, 5: 2}
	podMAC, _ := packet.ParseMAC(macA)
	src, dst, nets := ipA, ipB, map[string]bool{ipA + "/32": true, "10.244.2.0/24": false}
	ip := func(src, dst string) kit.Layer { return kit.IP4(src, dst) }
	transport := kit.Layer(kit.UDP(0, 0))
	if h.tcp {
		transport = kit.TCP(0, 0) // of connections that are picked up in the middle
	}
	if h.v6 {
		src, dst, nets = "fd00:1::2", "fd00:2::3", map[string]bool{"fd00:1::2/128": true, "fd00:2::/64": false}
		ip = func(src, dst string) kit.Layer { return kit.IP6(src, dst) }
	}
	open := func(devices []*loop) func(worker, queue int) (frame.Device, error) {
		return func(worker, _ int) (frame.Device, error) {
			devices[worker] = &loop{pool: e.workers[worker].pool, tcp: h.tcp}
			return devices[worker], nil
		}
	}
	pods, wires := make([]*loop, workers), make([]*loop, workers)
	up, err := e.AddPort(PortSpec{Name: "u0", Kind: PortUplink, Queues: workers, MTU: wireMTU}, open(wires))
	if err != nil {
		tb.Fatal(err)
	}
	in, err := e.AddPort(PortSpec{Name: "cva", Kind: PortVeth, Queues: workers, MTU: podMTU, MAC: GatewayMAC, PeerMAC: podMAC,
		Addrs: []netip.Addr{netip.MustParseAddr(src)}}, open(pods))
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
	for prefix, local := range nets {
		id := peer
		if local {
			id = own
		}
		if err := table.SetRoute(fib.Route{Prefix: netip.MustParsePrefix(prefix), Adj: id}); err != nil {
			tb.Fatal(err)
		}
	}
	table.SetNode(fib.Node{Addr4: local, VTEPs: []fib.LocalVTEP{{Addr: local, Port: testPort, VNI: testVNI, MAC: v1}}})
	e.Publish(table.Commit())
	e.FlowTable().SetOwnerLimit(flow.MaxCapacity) // a miss after the other is a flood
	devices, model := pods, kit.Frame(tb, kit.Eth(macA, gwMAC), ip(src, dst), transport, kit.Payload(benchPayload))
	if h.decap {
		devices, model = wires, kit.Frame(tb, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
			kit.Eth(v2.String(), v1.String()), ip(dst, src), transport, kit.Payload(benchPayload))
	}
	for i := range h.flows {
		d := devices[i%workers]
		d.frames = append(d.frames, withPorts(model, h.tcp, uint16(1024+i%50000), uint16(80+i/50000)))
	}
	queues := make([]*portQueue, workers)
	for i, w := range e.workers {
		queues[i] = w.ports[in]
		if h.decap {
			queues[i] = w.ports[up]
		}
		for range h.flows/workers/frame.BurstSize + 1 { // every flow is established
			w.handle(queues[i])
			w.flows.Quiesce(i)
		}
	}
	return e, queues
}

// withPorts is a copy of a frame that ends in UDP or TCP with ports 0 and benchPayload
// bytes, with ports. Millions are made of it.
func withPorts(frame []byte, tcp bool, sport, dport uint16) []byte {
	b := bytes.Clone(frame)
	header, check := packet.UDPLen, 6
	if tcp {
		header, check = packet.TCPLen, tcpChecksum
	}
	l4 := b[len(b)-benchPayload-header:]
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	sum := uint32(^binary.BigEndian.Uint16(l4[check:])) + uint32(sport) + uint32(dport) // RFC 1624
	packet.StoreChecksum(l4[check:], sum)
	return b
}

// The whole path of an established flow allocates nothing, both directions.
func TestEstablishedFlowsDoNotAllocate(t *testing.T) {
	for _, h := range []hot{{}, {decap: true}, {tcp: true}, {tcp: true, decap: true}, {v6: true}, {v6: true, decap: true}} {
		h.flows = 1000
		e, queues := hotNode(t, h)
		w, q := e.workers[0], queues[0]
		got := testing.AllocsPerRun(100, func() {
			w.handle(q)
			w.flows.Quiesce(0)
			w.tick(true)
		})
		if got != 0 {
			t.Errorf("%+v: %v allocations a burst", h, got)
		}
		if n := len(w.eng.Drops()); n != 0 {
			t.Errorf("%+v: frames were dropped: %+v", h, w.eng.Drops())
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

// BenchmarkPipeline is the whole way of a packet in memory: parse, flow lookup, VXLAN
// push or pop, ready to send. A hit is of an established flow; a miss makes a flow in
// a full table, where another has to go. ns/op includes the test's device, which
// copies each frame into a chunk and frees it; ns/packet, of one worker, does not.
func BenchmarkPipeline(b *testing.B) {
	for _, dir := range []string{"push", "pop"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			for _, flows := range []int{1_000, 10_000, 100_000, 1_000_000, 4_000_000} {
				for _, workers := range []int{1, 2} {
					h := hot{flows: flows, decap: dir == "pop", v6: family == "ipv6", workers: workers}
					b.Run(fmt.Sprintf("%s/%s/hit/flows=%d/workers=%d", dir, family, flows, workers), func(b *testing.B) { pipeline(b, h) })
				}
			}
			for _, flows := range []int{10_000, 1_000_000} {
				h := hot{flows: flows, decap: dir == "pop", v6: family == "ipv6", tcp: true}
				b.Run(fmt.Sprintf("%s/%s/hit-tcp/flows=%d/workers=1", dir, family, flows), func(b *testing.B) { pipeline(b, h) })
			}
			miss := hot{flows: 300_000, capacity: 100_000, decap: dir == "pop", v6: family == "ipv6"}
			b.Run(fmt.Sprintf("%s/%s/miss/flows=%d/workers=1", dir, family, miss.capacity), func(b *testing.B) { pipeline(b, miss) })
		}
	}
}

func pipeline(b *testing.B, h hot) {
	e, queues := hotNode(b, h)
	each := b.N / len(queues)
	b.ReportAllocs()
	b.ResetTimer()
	spin(queues, func(i, packets int) int {
		e.workers[i].flows.Quiesce(i)
		return e.workers[i].handle(queues[i])
	}, each)
	b.StopTimer()
	if d := e.Drops(); len(d) != 0 {
		b.Fatalf("frames were dropped: %+v", d)
	}
	whole, start := b.Elapsed(), time.Now()
	spin(queues, func(i, packets int) int {
		w := e.workers[i]
		w.burst.Reset()
		n := queues[i].dev.Recv(&w.burst)
		queues[i].dev.Send(w.burst.Frames[:n])
		return n
	}, each)
	b.ReportMetric(float64(whole-time.Since(start))/float64(max(each, 1)), "ns/packet")
	b.ReportMetric(float64(e.FlowTable().Memory())/1e6, "MB")
}

// spin runs all queues at the same time until each has handled so many packets.
func spin(queues []*portQueue, burst func(i, packets int) int, each int) {
	var wg sync.WaitGroup
	for i := range queues {
		wg.Go(func() {
			for packets := 0; packets < each; {
				packets += burst(i, packets)
			}
		})
	}
	wg.Wait()
}
