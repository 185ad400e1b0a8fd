package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"culvert/dataplane/capture"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/memport"
	kit "culvert/internal/pkttest"
)

// seen is a captured frame, with a copy of its bytes.
type seen struct {
	capture.Record
	port string
}

func (s seen) String() string {
	return fmt.Sprintf("%s %s %s %d/%d", s.port, s.Direction, s.Reason, len(s.Data), s.Length)
}

// startCapture begins a capture that ends with the test.
func startCapture(t testing.TB, e *Engine, spec CaptureSpec) *Capture {
	t.Helper()
	if spec.Snaplen == 0 {
		spec.Snaplen = frame.MaxBytes
	}
	if spec.Directions == 0 {
		spec.Directions = capture.Any
	}
	c, err := e.StartCapture(&spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// take is what was captured since the last call.
func take(c *Capture) (all []seen) {
	c.Read(math.MaxInt64, func(r *capture.Record) bool {
		s := seen{*r, c.PortName(r.Port).Name}
		s.Data = bytes.Clone(r.Data)
		all = append(all, s)
		return true
	})
	return all
}

// wantSeen fails unless these frames were captured, in this order: port, direction,
// reason, and the bytes.
func wantSeen(t *testing.T, got []seen, want ...seen) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames were captured, want %d: %v", len(got), len(want), got)
	}
	for i, w := range want {
		g := got[i]
		if g.port != w.port || g.Direction != w.Direction || g.Reason != w.Reason {
			t.Errorf("frame %d is %v, want %s %s %s", i, g, w.port, w.Direction, w.Reason)
		}
		if !bytes.Equal(g.Data, w.Data) {
			t.Errorf("frame %d, %v:\n got %x\nwant %x", i, g, g.Data, w.Data)
		}
		if int(g.Length) != len(w.Data) {
			t.Errorf("frame %d is of %d bytes, want %d", i, g.Length, len(w.Data))
		}
	}
}

func at(port string, dir capture.Direction, r drop.Reason, data []byte) seen {
	return seen{capture.Record{Direction: dir, Reason: r, Data: data}, port}
}

// A packet is seen as the pod sent it, as it left in its tunnel, as the other node got
// it, and as that node's pod did.
func TestCaptureOnBothNodes(t *testing.T) {
	n1, n2 := pair(t)
	c1, c2 := startCapture(t, n1.e, CaptureSpec{}), startCapture(t, n2.e, CaptureSpec{})
	before := time.Now().UnixNano()
	f := udpAB(t, 100)
	out := one(t, n1.fromPod("a", f)).Data
	in := one(t, n2.fromWire("b", out)).Data
	got := take(c1)
	wantSeen(t, got, at("cva", capture.Rx, 0, f), at("u0", capture.Tx, 0, out))
	if now := time.Now().UnixNano(); got[0].Time < before || got[0].Time > now {
		t.Errorf("seen at %d, between %d and %d", got[0].Time, before, now)
	}
	wantSeen(t, take(c2), at("u0", capture.Rx, 0, out), at("cvb", capture.Tx, 0, in))
	if rest := take(c1); len(rest) != 0 {
		t.Errorf("seen twice: %v", rest)
	}
}

// A burst is received whole before it is forwarded; within a direction the order is
// that of the wire.
func TestCaptureOrder(t *testing.T) {
	n1, _ := pair(t)
	c := startCapture(t, n1.e, CaptureSpec{})
	var frames [][]byte
	for i := range 5 {
		frames = append(frames, udpAB(t, 100+i))
	}
	sent := n1.fromPod("a", frames...)
	var want []seen
	for _, f := range frames {
		want = append(want, at("cva", capture.Rx, 0, f))
	}
	for _, s := range sent {
		want = append(want, at("u0", capture.Tx, 0, s.Data))
	}
	wantSeen(t, take(c), want...)
}

// Dropped frames are seen as they were then, with the reason, wherever it was that they
// were dropped.
func TestCaptureDrops(t *testing.T) {
	n1, _ := pair(t)
	c := startCapture(t, n1.e, CaptureSpec{Directions: capture.Of(capture.Drop)})
	ip := func(dst string, opts ...kit.Layer) []byte {
		return kit.Frame(t, append([]kit.Layer{kit.Eth(macA, gwMAC), kit.IP4(ipA, dst)}, opts...)...)
	}
	ttl := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.TTL(1)), kit.UDP(1, 2), kit.Payload(40))
	noRoute := ip("203.0.113.9", kit.UDP(1, 2), kit.Payload(40))
	spoofed := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipC, ipB), kit.UDP(1, 2), kit.Payload(40))
	short := []byte{1, 2, 3}
	n1.fromPod("a", ttl, noRoute, spoofed, short)
	wantSeen(t, take(c), at("cva", capture.Drop, drop.FrameTooShort, short), at("cva", capture.Drop, drop.TTLExceeded, ttl),
		at("cva", capture.Drop, drop.NoRoute, noRoute), at("cva", capture.Drop, drop.SpoofedSource, spoofed))

	// Out of the tunnel: before it is opened as it came, afterwards what was inside.
	foreign := kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, 4789), kit.VXLANHeader(77),
		kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.UDP(1, 2), kit.Payload(40))
	inner := kit.Frame(t, kit.Eth(vtep2, vtep1), kit.IP4(ipB, "10.244.1.99"), kit.UDP(1, 2), kit.Payload(40))
	stray := kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, 4789), kit.VXLANHeader(testVNI),
		kit.Eth(vtep2, vtep1), kit.IP4(ipB, "10.244.1.99"), kit.UDP(1, 2), kit.Payload(40))
	n1.fromWire("a", foreign, stray)
	wantSeen(t, take(c), at("u0", capture.Drop, drop.VXLANUnknownVNI, foreign), at("u0", capture.Drop, drop.NoRoute, inner))

	// At the egress port, when its ring is full.
	n1.uplink.Limit.Store(1)
	first := one(t, n1.fromPod("a", udpAB(t, 100), udpAB(t, 101))).Data
	got := take(c)
	if len(got) != 1 || got[0].port != "u0" || got[0].Reason != drop.TxRingFull || len(got[0].Data) != len(first)+1 {
		t.Errorf("beside a full ring: %v", got)
	}
	n1.uplink.Limit.Store(0)

	// A fragment whose first one never comes.
	late := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.Fragment(64, false), kit.Proto(17)), kit.Payload(64))
	n1.fromPod("a", late)
	if early := take(c); len(early) != 0 {
		t.Errorf("a fragment that waits is seen as dropped: %v", early)
	}
	for range 100 {
		n1.clock += time.Second
		n1.w.now = n1.e.Now()
		n1.w.expireFragments()
	}
	wantSeen(t, take(c), at("cva", capture.Drop, drop.FragmentOrphan, late))
}

// What came by the intake is of the port that it came by, its sender's address in place.
func TestCaptureByTheIntake(t *testing.T) {
	n1, _ := pair(t)
	in := memport.New(n1.w.pool)
	n1.addPort(PortSpec{Name: "intake", Kind: PortIntake}, in)
	c := startCapture(t, n1.e, CaptureSpec{Ports: []string{"cva"}})
	f := udpAB(t, 100)
	tagged := bytes.Clone(f)
	frame.WriteTag(tagged, frame.Tag{Port: n1.pods["a"].port, Genuine: true})
	other := kit.Frame(t, kit.Eth(n1.pods["c"].mac.String(), gwMAC), kit.IP4(ipC, ipB), kit.UDP(1, 2))
	frame.WriteTag(other, frame.Tag{Port: n1.pods["c"].port, Genuine: true})
	in.Inject(tagged, other)
	n1.step()
	n1.uplink.TakeSent()
	wantSeen(t, take(c), at("cva", capture.Rx, 0, f))

	all := startCapture(t, n1.e, CaptureSpec{})
	gone := bytes.Clone(tagged)
	frame.WriteTag(gone, frame.Tag{Port: 999, Genuine: true})
	in.Inject(gone)
	n1.step()
	wantSeen(t, take(all), at("intake", capture.Drop, drop.PortGone, gone))
}

// A big frame is seen whole where it came in, with what it is to be cut into, and cut
// where its port takes no big ones; a chain is copied up to the snap length.
func TestCaptureBigFrames(t *testing.T) {
	n1, _ := pair(t)
	c := startCapture(t, n1.e, CaptureSpec{})
	short := startCapture(t, n1.e, CaptureSpec{Snaplen: 5000, Directions: capture.Of(capture.Rx)})
	big := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(4711, 80, kit.Flags("A")), kit.Payload(12000)))
	n1.pods["a"].dev.InjectBig(big, 1398, frame.SegTCP4)
	n1.step()
	sent := n1.uplink.TakeSent()
	want := []seen{at("cva", capture.Rx, 0, big)}
	for _, s := range sent {
		want = append(want, at("u0", capture.Tx, 0, s.Data))
	}
	if len(sent) != 9 {
		t.Errorf("%d segments", len(sent))
	}
	got := take(c)
	wantSeen(t, got, want...)
	if r := got[0]; r.SegSize != 1398 || r.Flags != frame.SegTCP4|frame.CsumPartial || r.CsumStart != 34 || r.CsumOffset != 16 {
		t.Errorf("%+v", r.Record)
	}
	if n := got[0].Segments(); n != 9 {
		t.Errorf("received as %d segments", n)
	}
	for i, r := range got { // settled, no checksum is wrong
		if r.Settle(c.VXLAN()) != capture.ChecksumCompleted {
			t.Errorf("frame %d has no partial checksum", i)
		}
		b := r.Data
		if i > 0 {
			b = kit.CheckVXLAN(t, b)
		}
		if wrong := kit.CheckSums(b); wrong != "" {
			t.Errorf("frame %d: %s", i, wrong)
		}
	}
	cut := take(short)
	if len(cut) != 1 || cut[0].Length != uint32(len(big)) || !bytes.Equal(cut[0].Data, big[:5000]) {
		t.Errorf("with a snap length of 5000: %v", cut)
	}
	if cut[0].Settle(c.VXLAN()) != capture.ChecksumPartial {
		t.Error("the checksum of half a frame is not known")
	}
}

// Ports, directions, reasons and the filter select; several captures do not know of
// each other.
func TestCapturesSelect(t *testing.T) {
	n1, _ := pair(t)
	specs := []CaptureSpec{
		{Ports: []string{"u0", "cvc"}},
		{Directions: capture.Of(capture.Rx) | capture.Of(capture.Drop), Match: capture.Match{Dport: 80}},
		{Directions: capture.Of(capture.Drop), Reason: drop.NoRoute},
		{Match: capture.Match{Proto: 17, ByProto: true, Port: testPort}},
	}
	var captures []*Capture
	for _, s := range specs {
		captures = append(captures, startCapture(t, n1.e, s))
	}
	_, err := n1.e.StartCapture(&CaptureSpec{})
	if err == nil {
		t.Fatalf("more than %d captures run", MaxCaptures)
	}
	f := udpAB(t, 100)
	stray := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "203.0.113.9"), kit.UDP(4711, 80), kit.Payload(40))
	spoofed := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipC, ipB), kit.UDP(1, 81), kit.Payload(40))
	out := one(t, n1.fromPod("a", f, stray, spoofed)).Data
	wantSeen(t, take(captures[0]), at("u0", capture.Tx, 0, out))
	wantSeen(t, take(captures[1]), at("cva", capture.Rx, 0, f), at("cva", capture.Rx, 0, stray), at("cva", capture.Drop, drop.NoRoute, stray))
	wantSeen(t, take(captures[2]), at("cva", capture.Drop, drop.NoRoute, stray))
	wantSeen(t, take(captures[3]), at("u0", capture.Tx, 0, out))

	captures[0].Close()
	captures[0].Close() // once more does nothing
	n1.fromPod("a", f)
	if late := take(captures[0]); len(late) != 0 {
		t.Errorf("an ended capture goes on: %v", late)
	}
	if got := take(captures[1]); len(got) != 1 {
		t.Errorf("another one's end: %v", got)
	}
	if running, _ := n1.e.CaptureStats(); running != 3 {
		t.Errorf("%d captures run", running)
	}
	var none *NoPortError
	if _, err := n1.e.StartCapture(&CaptureSpec{Ports: []string{"u0", "nowhere"}}); !errors.As(err, &none) || none.Name != "nowhere" {
		t.Errorf("of no port: %v", err)
	}
}

// Frames that find no room are counted, and forwarding goes on.
func TestCaptureMisses(t *testing.T) {
	n1, _ := pair(t)
	c := startCapture(t, n1.e, CaptureSpec{Directions: capture.Of(capture.Rx)})
	f := udpAB(t, 1300)
	const bursts = 80
	burst := slices.Repeat([][]byte{f}, frame.BurstSize)
	for range bursts {
		if sent := n1.fromPod("a", burst...); len(sent) != len(burst) {
			t.Fatalf("%d of %d frames were forwarded", len(sent), len(burst))
		}
	}
	got := uint64(len(take(c)))
	if got == 0 || c.Missed() == 0 || got+c.Missed() != bursts*frame.BurstSize {
		t.Errorf("%d were kept and %d missed of %d", got, c.Missed(), bursts*frame.BurstSize)
	}
	c.Close()
	if _, missed := n1.e.CaptureStats(); missed != c.Missed() {
		t.Errorf("after the end %d are missed, want %d", missed, c.Missed())
	}
	n1.wantDrops(drop.None, 0)
}

// Reading stops where it is told to: at a time, and when it has enough.
func TestCaptureReadInParts(t *testing.T) {
	n1, _ := pair(t)
	c := startCapture(t, n1.e, CaptureSpec{Directions: capture.Of(capture.Rx)})
	n1.fromPod("a", udpAB(t, 1), udpAB(t, 2))
	between := time.Now().UnixNano()
	for time.Now().UnixNano() == between {
	}
	n1.fromPod("a", udpAB(t, 3))
	n := 0
	c.Read(between+1, func(*capture.Record) bool { n++; return n < 1 })
	if n != 1 {
		t.Errorf("%d read instead of one", n)
	}
	c.Read(between+1, func(*capture.Record) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d read of the two before", n)
	}
	if rest := take(c); len(rest) != 1 || rest[0].Length != uint32(len(udpAB(t, 3))) {
		t.Errorf("left: %v", rest)
	}
}

// The workers' frames come out in the order of their time.
func TestCaptureOfSeveralWorkers(t *testing.T) {
	e, queues := hotNode(t, hot{flows: 256, workers: 2})
	c := startCapture(t, e, CaptureSpec{Directions: capture.Of(capture.Rx)})
	for i := range 10 {
		w := e.workers[i%2]
		w.handle(queues[i%2])
		w.flows.Quiesce(i % 2)
	}
	last, n := int64(0), 0
	for _, s := range take(c) {
		if s.Time < last {
			t.Fatalf("frame %d is older than the one before", n)
		}
		last = s.Time
		n++
	}
	if n != 10*frame.BurstSize {
		t.Errorf("%d frames, want %d", n, 10*frame.BurstSize)
	}
}

// Neither with a capture that takes all, nor with one that misses all, nor with one
// that filters, a frame allocates; the test without any is
// TestEstablishedFlowsDoNotAllocate.
func TestCapturesDoNotAllocate(t *testing.T) {
	e, queues := hotNode(t, hot{flows: 1000})
	w := e.workers[0]
	startCapture(t, e, CaptureSpec{})
	startCapture(t, e, CaptureSpec{Ports: []string{"u0"}, Match: capture.Match{Dport: 9999}})
	read := startCapture(t, e, CaptureSpec{Snaplen: 64})
	enough := func(*capture.Record) bool { return true }
	burst := func() {
		w.handle(queues[0])
		w.flows.Quiesce(0)
	}
	if got := testing.AllocsPerRun(100, burst); got != 0 {
		t.Errorf("%v allocations a burst", got)
	}
	for read.taps[0].Ring.Missed() == 0 { // full, now
		burst()
	}
	if got := testing.AllocsPerRun(100, burst); got != 0 {
		t.Errorf("%v allocations a burst with full rings", got)
	}
	read.Read(math.MaxInt64, enough)
	if got := testing.AllocsPerRun(100, burst); got != 0 {
		t.Errorf("%v allocations a burst with one ring read", got)
	}
}

// Captures come, are read and go while the worker runs: for the race detector.
func TestCapturesComeAndGo(t *testing.T) {
	n1, _ := pair(t)
	n1.e.Start()
	var sent atomic.Int64
	stop := make(chan struct{})
	feeder := make(chan struct{})
	f := udpAB(t, 100)
	go func() {
		defer close(feeder)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if n1.pods["a"].dev.Pending() < 64 {
				n1.pods["a"].dev.Inject(f)
				sent.Add(1)
			}
			n1.uplink.TakeSent()
			time.Sleep(10 * time.Microsecond)
		}
	}()
	total := 0
	for i := range 50 {
		c, err := n1.e.StartCapture(&CaptureSpec{Directions: capture.Any, Snaplen: 64 + i})
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(5 * time.Second)
		for got := 0; got == 0 && time.Now().Before(deadline); {
			c.Read(math.MaxInt64, func(r *capture.Record) bool {
				got++
				if r.Direction == capture.Rx && !bytes.Equal(r.Data, f[:64+i]) {
					t.Errorf("torn: %x", r.Data)
				}
				return true
			})
			total += got
		}
		c.Close()
	}
	close(stop)
	<-feeder
	if total < 50 {
		t.Errorf("50 captures saw %d frames", total)
	}
}

// BenchmarkCapture is the price of a capture, beside BenchmarkPipeline: none, one of
// another port, one whose filter takes nothing, one of the headers, read on the same
// core, and one that nobody reads.
func BenchmarkCapture(b *testing.B) {
	for _, c := range []struct {
		name string
		spec *CaptureSpec
	}{
		{"none", nil},
		{"other port", &CaptureSpec{Ports: []string{"cva"}, Directions: capture.Of(capture.Tx)}},
		{"filter", &CaptureSpec{Match: capture.Match{Dport: 9999}}},
		{"headers", &CaptureSpec{Snaplen: 64}},
		{"missed", &CaptureSpec{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			e, queues := hotNode(b, hot{flows: 1000})
			var have *Capture
			if c.spec != nil {
				have = startCapture(b, e, *c.spec)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				e.workers[0].flows.Quiesce(0)
				n += e.workers[0].handle(queues[0])
				if have != nil && c.name != "missed" {
					have.Read(math.MaxInt64, func(*capture.Record) bool { return true })
				}
			}
		})
	}
}
