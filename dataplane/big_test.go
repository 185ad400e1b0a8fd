package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// What the kinds of devices take.
var (
	bigPod    = frame.Limits{Offload: frame.OffloadTCP | frame.OffloadUDP, Chunks: frame.MaxChunks, Bytes: frame.MaxBytes}
	bigUplink = frame.Limits{Offload: frame.OffloadTunnelTCP | frame.OffloadTunnelUDP, Chunks: frame.MaxChunks, Bytes: 65535 + 14}
	gather    = frame.Limits{Chunks: frame.MaxSegments, Gather: true}
)

const mss = podMTU - 40

// bigPair is pair with devices that take big frames: the pods and the uplinks.
func bigPair(t *testing.T, uplink frame.Limits) (n1, n2 *testNode) {
	n1, n2 = pair(t)
	for _, n := range []*testNode{n1, n2} {
		n.limit(n.upPort, uplink)
		for _, p := range n.pods {
			n.limit(p.port, bigPod)
		}
	}
	return n1, n2
}

// limit makes a port's device state other limits than it was added with.
func (n *testNode) limit(port uint16, l frame.Limits) {
	q := n.w.ports[port]
	q.dev.(*memport.Device).Takes, q.limits = l, l
}

// beyond64K is a BIG TCP frame: its total length field is 0.
func beyond64K(t *testing.T, dst string, payload []byte) []byte {
	f := bigTCP(t, dst, nil)
	f = append(f, payload...)
	binary.BigEndian.PutUint16(f[16:], 0)
	return kit.FixIP4(f)
}

// offloads is what the dataplane asked of the device.
func offloads(s memport.Sent) string {
	return fmt.Sprintf("%d bytes in %d chunks, segments of %d behind %d, outer UDP at %d, flags %b, checksum %d+%d",
		len(s.Data), s.Chunks, s.SegSize, s.HeaderLen, s.OuterL4, s.Flags, s.CsumStart, s.CsumOffset)
}

// Between pods whose devices take big frames, a big frame stays one.
func TestBigFramesStayWhole(t *testing.T) {
	for _, size := range []int{mss + 1, 20000, 65000, 200_000} {
		n1, _ := bigPair(t, gather)
		payload := kit.Pattern(size)
		f := bigTCP(t, ipC, payload[:min(size, 65000)])
		if size > 65000 {
			f = beyond64K(t, ipC, payload)
		}
		n1.pods["a"].dev.InjectBig(f, 1000, frame.SegTCP4)
		n1.step()
		got := one(t, n1.pods["c"].dev.TakeSent())
		if got.SegSize != 1000 || got.HeaderLen != 54 || got.OuterL4 != 0 || got.Flags != frame.CsumPartial|frame.SegTCP4 ||
			got.CsumStart != 34 || got.CsumOffset != 16 {
			t.Errorf("%d bytes: sent as %s", size, offloads(got))
		}
		if !bytes.Equal(got.Data[54:], f[54:]) || got.Data[22] != f[22]-1 || got.Data[16] != f[16] {
			t.Errorf("%d bytes: the frame was changed", size)
		}
		n1.wantDrops(drop.None, 0)
		if got := n1.e.WorkerStats()[0].Big; got != (BigFrames{Whole: 1}) {
			t.Errorf("counted as %+v", got)
		}
		segments := uint64(len(f)-54+999) / 1000
		for _, p := range n1.e.Ports() {
			rx, tx, bytes := uint64(0), uint64(0), uint64(len(f))+(segments-1)*54
			switch p.Spec.Name {
			case "cva":
				rx = segments
			case "cvc":
				tx = segments
			}
			if p.RxPackets != rx || p.TxPackets != tx || rx > 0 && p.RxBytes != bytes || tx > 0 && p.TxBytes != bytes {
				t.Errorf("%s counts %d packets of %d bytes in, %d of %d out: want %d and %d, of %d bytes",
					p.Spec.Name, p.RxPackets, p.RxBytes, p.TxPackets, p.TxBytes, rx, tx, bytes)
			}
		}
	}
}

// Into a tunnel a big frame goes whole, under one outer header.
func TestBigFramesStayWholeInATunnel(t *testing.T) {
	n1, n2 := bigPair(t, bigUplink)
	n1.uplink.Complete = true
	payload := kit.Pattern(60000)
	n1.pods["a"].dev.InjectBig(bigTCP(t, ipB, payload), 1398, frame.SegTCP4)
	n1.step()
	got := one(t, n1.uplink.TakeSent())
	if got.SegSize != 1398 || got.HeaderLen != 64+40 || got.OuterL4 != 34 || got.CsumStart != 64+20 {
		t.Errorf("sent as %s", offloads(got))
	}
	kit.CheckVXLAN(t, got.Data, kit.OuterDst(node2))

	n2.uplink.InjectBig(got.Data, got.SegSize, frame.SegTCP4)
	n2.step()
	at := one(t, n2.pods["b"].dev.TakeSent())
	if at.SegSize != 1398 || at.OuterL4 != 0 || !bytes.Equal(at.Data[54:], payload) {
		t.Errorf("arrived as %d bytes, segments of %d", len(at.Data), at.SegSize)
	}
	n1.wantDrops(drop.None, 0)
	n2.wantDrops(drop.None, 0)
}

// A tunnel's outer header describes 64 KB at most: what is larger becomes several
// big frames of whole segments, which cite the chunks that it came in.
func TestBeyond64KInATunnel(t *testing.T) {
	n1, _ := bigPair(t, bigUplink)
	payload := kit.Pattern(200_000)
	n1.uplink.Complete = true
	n1.uplink.Hold(true)
	n1.pods["a"].dev.InjectBig(beyond64K(t, ipB, payload), 1398, frame.SegTCP4)
	n1.step()
	var got []byte
	sent := n1.uplink.TakeSent()
	for i, s := range sent {
		inner := kit.CheckVXLAN(t, s.Data)
		if i < len(sent)-1 && (len(inner)-54)%1398 != 0 {
			t.Errorf("piece %d is no multiple of the segment size", i)
		}
		if seq := binary.BigEndian.Uint32(inner[38:]); seq != 1000+uint32(len(got)) {
			t.Errorf("piece %d has sequence number %d", i, seq)
		}
		if id := binary.BigEndian.Uint16(inner[18:]); id != 500+uint16((len(got)+1397)/1398) {
			t.Errorf("piece %d has identification %d behind %d bytes", i, id, len(got))
		}
		if s.SegSize != 1398 || s.Flags&frame.SegTCP4 == 0 {
			t.Errorf("piece %d is %s", i, offloads(s))
		}
		got = append(got, inner[54:]...)
	}
	if len(sent) != 4 || !bytes.Equal(got, payload) {
		t.Errorf("%d pieces, %d bytes", len(sent), len(got))
	}
	n1.uplink.Hold(false)
	n1.wantDrops(drop.None, 0)
}

// A device that gathers gets segments that cite the big frame's chunks. They are
// free when the last segment has left, and not before.
func TestCutByCitation(t *testing.T) {
	for _, size := range []int{mss + 1, 3840, 20000, 64000} {
		n1, _ := bigPair(t, gather)
		n1.uplink.Complete = true
		payload := kit.Pattern(size)
		free := n1.w.pool.FreeChunks()
		n1.uplink.Hold(true)
		sent := n1.fromPod("a", bigTCP(t, ipB, payload))
		var inner [][]byte
		for _, s := range sent {
			if s.Chunks < 2 || s.Chunks > minCiting {
				t.Errorf("a segment of %d chunks", s.Chunks)
			}
			inner = append(inner, kit.CheckVXLAN(t, s.Data))
		}
		if got := segments(t, inner, podMTU); !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: the stream differs", size)
		}
		if held, want := free-n1.w.pool.FreeChunks(), len(sent)+(size+54+3839)/3840; held != want {
			t.Errorf("%d chunks are on their way, want %d", held, want)
		}
		n1.uplink.Hold(false)
		if n1.w.pool.FreeChunks() != free {
			t.Errorf("%d chunks free, %d before", n1.w.pool.FreeChunks(), free)
		}
	}
}

// A ring that fills up in the middle of a cut costs the segments that do not fit,
// and no memory; the same for a port that is gone.
func TestCutIntoAFullRing(t *testing.T) {
	n1, _ := bigPair(t, gather)
	n1.uplink.Limit.Store(10)
	if sent := n1.fromPod("a", bigTCP(t, ipB, kit.Pattern(40*mss))); len(sent) != 10 {
		t.Fatalf("%d segments were sent", len(sent))
	}
	n1.wantDrops(drop.TxRingFull, 30)

	if err := n1.e.RemovePort(n1.upPort); err != nil {
		t.Fatal(err)
	}
	n1.pods["a"].dev.Inject(bigTCP(t, ipB, kit.Pattern(2*mss)))
	n1.step()
	if got := n1.drops(drop.PortGone); got != 2 {
		t.Errorf("%d dropped for want of a port, want 2", got)
	}
}

// Segments that the sender meant to be larger than the path takes are made
// smaller; datagrams are not, and the sender is told.
func TestBigFramesBeyondThePathMTU(t *testing.T) {
	n1, _ := bigPair(t, bigUplink)
	payload := kit.Pattern(30000)
	n1.pods["a"].dev.InjectBig(bigTCP(t, ipB, payload), 8960, frame.SegTCP4)
	n1.step()
	if got := one(t, n1.uplink.TakeSent()); got.SegSize != mss {
		t.Errorf("segments of %d bytes, want %d", got.SegSize, mss)
	}
	n1.wantDrops(drop.None, 0)

	udp := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.DF()), kit.UDP(5, 6), kit.Bytes(payload...)))
	n1.pods["a"].dev.InjectBig(udp, 1000, frame.SegUDP)
	n1.step()
	if got := one(t, n1.uplink.TakeSent()); got.SegSize != 1000 || got.Flags&frame.SegUDP == 0 || got.CsumOffset != 6 {
		t.Errorf("datagrams left as %s", offloads(got))
	}
	n1.pods["a"].dev.InjectBig(udp, 1430, frame.SegUDP)
	n1.step()
	n1.wantDrops(drop.TooBig, 1)
	kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.WithICMP(3, 4))
}

// Datagrams are cut as they were joined, each with its own length and checksum.
func TestDatagramsAreCut(t *testing.T) {
	n1, _ := pair(t)
	n1.uplink.Complete = true
	payload := kit.Pattern(10_500)
	udp := kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(5, 6), kit.Bytes(payload...)))
	n1.pods["a"].dev.InjectBig(udp, 1000, frame.SegUDP)
	n1.step()
	sent := n1.uplink.TakeSent()
	for i, s := range sent {
		want := payload[i*1000 : min(len(payload), (i+1)*1000)]
		kit.CheckPacket(t, kit.CheckVXLAN(t, s.Data), kit.WithPorts(5, 6), kit.WithPayload(want))
	}
	if len(sent) != 11 {
		t.Errorf("%d datagrams, want 11", len(sent))
	}
}

// What a device says of a frame is checked against the frame.
func TestBigFramesThatAreNone(t *testing.T) {
	n1, _ := bigPair(t, bigUplink)
	tcp, udp := bigTCP(t, ipB, kit.Pattern(5000)), kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(5, 6), kit.Payload(65000))
	a := n1.pods["a"].dev
	a.InjectBig(tcp, 1398, frame.SegUDP)
	a.InjectBig(tcp, 1398, frame.SegTCP6)
	a.InjectBig(udp, 1398, frame.SegTCP4)
	a.InjectBig(udp, 1, frame.SegUDP) // 65,000 datagrams
	a.InjectBig(bigTCP(t, ipB, nil), 1398, frame.SegTCP4)
	n1.step()
	n1.wantDrops(drop.CannotSegment, 5)
	a.InjectBig(tcp, 1, frame.SegTCP4)
	n1.step()
	if got := one(t, n1.uplink.TakeSent()); got.SegSize != minSegment {
		t.Errorf("segments of %d bytes", got.SegSize)
	}
}

// wireSegments cuts a stream as a kernel node's VXLAN puts it on the wire.
func wireSegments(t *testing.T, sport uint16, payload []byte, size int, flags string) (frames [][]byte) {
	for off := 0; off < len(payload); off += size {
		end, fl := min(off+size, len(payload)), "A"
		if end == len(payload) {
			fl = flags
		}
		frames = append(frames, kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
			kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA, kit.ID(uint16(off/size))), kit.TCP(sport, 80, kit.Flags(fl), kit.Seq(uint32(1000+off))),
			kit.Bytes(payload[off:end]...)))
	}
	return frames
}

// established makes the flows of TCP connections from pod b to pod a, picked up
// in the middle.
func (n *testNode) established(t *testing.T, sports ...uint16) {
	for _, sport := range sports {
		n.uplink.Inject(kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
			kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.TCP(sport, 80)))
	}
	n.step()
	n.pods["a"].dev.TakeSent()
}

// More flows than can be merged at once take each other's places; nothing is
// lost and each flow keeps its order.
func TestFlowsThatTakeEachOthersPlaces(t *testing.T) {
	n1, _ := bigPair(t, gather)
	n1.pods["a"].dev.Complete = true
	const flows, each = 3 * groupSlots, 4
	var sports []uint16
	streams := make(map[uint16][][]byte)
	for i := range flows {
		sport := uint16(5000 + i)
		sports = append(sports, sport)
		streams[sport] = wireSegments(t, sport, kit.Pattern(each*100), 100, "A")
	}
	for chunk := range slices.Chunk(sports, frame.BurstSize) {
		n1.established(t, chunk...)
	}
	for j := range each {
		for _, sport := range sports {
			n1.uplink.Inject(streams[sport][j])
		}
	}
	got := map[uint16][]byte{}
	for _, s := range n1.fromWire("a") {
		sport := binary.BigEndian.Uint16(s.Data[34:])
		got[sport] = append(got[sport], s.Data[54:]...)
	}
	for _, sport := range sports {
		if !bytes.Equal(got[sport], kit.Pattern(each*100)) {
			t.Errorf("flow %d: %d bytes, not the %d that were sent", sport, len(got[sport]), each*100)
		}
	}
	n1.wantDrops(drop.None, 0)
}

// The segments of a burst become one big frame, whatever flows they are mixed
// with, and each flow's bytes stay in order.
func TestSegmentsAreMerged(t *testing.T) {
	n1, _ := bigPair(t, gather)
	const flows, each = 3, 20
	var sports []uint16
	streams := make([][][]byte, flows)
	for i := range flows {
		sports = append(sports, uint16(5000+i))
		streams[i] = wireSegments(t, sports[i], kit.Pattern(each*1000-300), 1000, "AP")
	}
	n1.established(t, sports...)
	for j := range each {
		for i := range flows {
			n1.uplink.Inject(streams[i][j])
		}
	}
	got := map[uint16]memport.Sent{}
	n1.pods["a"].dev.Complete = true
	for _, s := range n1.fromWire("a") {
		sport := binary.BigEndian.Uint16(s.Data[34:])
		if _, twice := got[sport]; twice {
			t.Errorf("flow %d came in more than one frame", sport)
		}
		got[sport] = s
	}
	for _, sport := range sports {
		s := got[sport]
		if s.SegSize != 1000 || s.Flags != frame.CsumPartial|frame.SegTCP4 || s.HeaderLen != 54 || s.Chunks != each {
			t.Fatalf("flow %d arrived as %d bytes in %d chunks, segments of %d, flags %b", sport, len(s.Data), s.Chunks, s.SegSize, s.Flags)
		}
		if !bytes.Equal(s.Data[54:], kit.Pattern(each*1000-300)) {
			t.Errorf("flow %d: the bytes differ", sport)
		}
		kit.CheckPacket(t, s.Data, kit.WithTTL(63))
	}
	n1.wantDrops(drop.None, 0)
	for _, p := range n1.e.Ports() {
		if p.Spec.Name == "cva" && p.TxPackets != flows*each+flows {
			t.Errorf("%d packets counted, want %d", p.TxPackets, flows*each+flows)
		}
	}
}

// Big frames that follow each other become one, up to what the device takes.
func TestBigFramesAreMerged(t *testing.T) {
	const size = 1000
	n1, _ := bigPair(t, gather)
	stream := kit.Pattern(65 * 5 * size)
	n1.pods["a"].dev.Inject(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipC), kit.TCP(4711, 80)))
	n1.step()
	n1.pods["c"].dev.TakeSent()
	for off, id := 0, 0; off < len(stream); off, id = off+65*size, id+65 {
		end := min(off+65*size, len(stream))
		if end == len(stream) {
			end-- // the last is short
		}
		f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipC, kit.DF(), kit.ID(uint16(id))),
			kit.TCP(4711, 80, kit.Seq(uint32(1000+off))), kit.Bytes(stream[off:end]...))
		n1.pods["a"].dev.InjectBig(kit.SetPartial(f), size, frame.SegTCP4)
	}
	n1.step()
	sent := n1.pods["c"].dev.TakeSent()
	if len(sent) != 2 {
		t.Fatalf("%d frames, want 2", len(sent))
	}
	var got []byte
	for i, s := range sent {
		if want := []int{4 * 65 * size, 65*size - 1}[i]; len(s.Data)-54 != want || s.SegSize != size || s.HeaderLen != 54 || s.Flags != frame.CsumPartial|frame.SegTCP4 {
			t.Errorf("frame %d: %s, want %d bytes of payload", i, offloads(s), want)
		}
		got = append(got, s.Data[54:]...)
	}
	if total := binary.BigEndian.Uint16(sent[0].Data[16:]); total != 0 {
		t.Errorf("total length %d in a packet beyond 64 KB", total)
	}
	if !bytes.Equal(got, stream[:len(stream)-1]) {
		t.Error("the stream differs")
	}
	n1.wantDrops(drop.None, 0)
	for _, p := range n1.e.Ports() {
		if p.Spec.Name == "cvc" && p.TxPackets != 1+65*5 {
			t.Errorf("%d packets counted, want %d", p.TxPackets, 1+65*5)
		}
	}
}

// What ends a group: the frames arrive in their order all the same.
func TestMergeKeepsOrder(t *testing.T) {
	spoil := func(f []byte) []byte { f = bytes.Clone(f); f[len(f)-1] ^= 0xff; return f }
	for name, tt := range map[string]struct {
		change func(seg [][]byte) [][]byte
		sizes  []int // payload bytes of the frames that reach the pod
	}{
		"nothing":        {func(s [][]byte) [][]byte { return s }, []int{6000}},
		"a gap":          {func(s [][]byte) [][]byte { return append(s[:2:2], s[3:]...) }, []int{2000, 3000}},
		"a bad checksum": {func(s [][]byte) [][]byte { s[2] = spoil(s[2]); return s }, []int{2000, 1000, 3000}},
		"a bad first":    {func(s [][]byte) [][]byte { s[0] = spoil(s[0]); return s }, []int{1000, 5000}},
		"one twice":      {func(s [][]byte) [][]byte { return append(s[:3:3], s[2:]...) }, []int{3000, 4000}},
		"the other way":  {func(s [][]byte) [][]byte { s[0], s[1] = s[1], s[0]; return s }, []int{1000, 1000, 4000}},
		"one alone":      {func(s [][]byte) [][]byte { return s[:1] }, []int{1000}},
		"nothing but ACKs": {func(s [][]byte) [][]byte {
			return append(wireSegments(t, 5000, kit.Pattern(1), 1, "A"), s...)
		}, []int{1, 6000}},
	} {
		t.Run(name, func(t *testing.T) {
			n1, _ := bigPair(t, gather)
			n1.established(t, 5000)
			var sizes []int
			for _, s := range n1.fromWire("a", tt.change(wireSegments(t, 5000, kit.Pattern(6000), 1000, "A"))...) {
				sizes = append(sizes, len(s.Data)-54)
			}
			if fmt.Sprint(sizes) != fmt.Sprint(tt.sizes) {
				t.Errorf("frames of %v bytes, want %v", sizes, tt.sizes)
			}
			n1.wantDrops(drop.None, 0)
		})
	}
}

// A group holds no more chunks than its port's device sends, and ends with the burst.
func TestMergeLimits(t *testing.T) {
	n1, _ := bigPair(t, gather)
	n1.limit(n1.pods["a"].port, frame.Limits{Offload: frame.OffloadTCP, Chunks: 18, Bytes: 65535})
	n1.established(t, 5000)
	stream := kit.Pattern(100_000)
	var got []byte
	for _, s := range n1.fromWire("a", wireSegments(t, 5000, stream, 1000, "A")...) {
		if s.Chunks > 18 {
			t.Errorf("a frame of %d chunks", s.Chunks)
		}
		got = append(got, s.Data[54:]...)
	}
	if !bytes.Equal(got, stream) {
		t.Error("the stream differs")
	}
}

// The pod's ring is full: the merged frames that do not fit are counted as the
// segments they stand for, and no chunk is lost.
func TestMergedIntoAFullRing(t *testing.T) {
	n1, _ := bigPair(t, gather)
	n1.established(t, 5000, 5001)
	n1.pods["a"].dev.Limit.Store(1)
	both := append(wireSegments(t, 5000, kit.Pattern(5000), 1000, "A"), wireSegments(t, 5001, kit.Pattern(7000), 1000, "A")...)
	if sent := n1.fromWire("a", both...); len(sent) != 1 {
		t.Fatalf("%d frames were sent", len(sent))
	}
	n1.wantDrops(drop.TxRingFull, 7)
}

// Big frames cost no allocation either: whole, cut both ways, merged.
func TestBigFramesDoNotAllocate(t *testing.T) {
	for name, limits := range map[string]frame.Limits{"whole": bigUplink, "cited": gather, "copied": {Chunks: 1}} {
		n1, _ := bigPair(t, limits)
		f := bigTCP(t, ipB, kit.Pattern(60000))
		n1.fromPod("a", f)
		q := n1.w.ports[n1.pods["a"].port]
		sink := &drain{pool: n1.w.pool, limits: limits}
		n1.w.ports[n1.upPort].dev = sink
		source := &repeat{Device: q.dev, dev: q.dev.(*memport.Device), data: f}
		if n := testing.AllocsPerRun(20, func() { source.add(); n1.w.handle(q) }); n > 1 { // the test's own queue of frames
			t.Errorf("%s: %v allocations a frame", name, n)
		}
	}
}

// repeat injects the same frame again and again.
type repeat struct {
	frame.Device
	dev  *memport.Device
	data []byte
}

func (r *repeat) add() { r.dev.InjectBig(r.data, 1398, frame.SegTCP4) }

// drain sends everything to nowhere.
type drain struct {
	memport.Device
	pool   *frame.Pool
	limits frame.Limits
}

func (d *drain) Send(frames []frame.Frame) int {
	for i := range frames {
		d.pool.FreeFrame(&frames[i])
	}
	return len(frames)
}

// Frames of many ports that arrive by one device are each their port's.
func TestIntake(t *testing.T) {
	n1, _ := pair(t)
	in := memport.New(n1.e.Pool(0))
	n1.addPort(PortSpec{Name: "intake", Kind: PortIntake}, in)
	tagged := func(name string, genuine bool, f []byte) []byte {
		frame.WriteTag(f, frame.Tag{Port: n1.pods[name].port, Genuine: genuine})
		return f
	}
	fromA := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(1, 2), kit.Payload(10))
	fromC := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipC, ipB), kit.UDP(3, 4), kit.Payload(10))
	in.Inject(tagged("a", true, bytes.Clone(fromA)), tagged("c", true, bytes.Clone(fromC)), tagged("a", true, bytes.Clone(fromA)))
	n1.step()
	if sent := n1.uplink.TakeSent(); len(sent) != 3 {
		t.Fatalf("%d frames left", len(sent))
	}
	n1.wantDrops(drop.None, 0)
	in.Inject(tagged("a", false, bytes.Clone(fromA)))
	in.Inject(tagged("c", true, bytes.Clone(fromA))) // a's address out of c's port
	n1.step()
	if n1.drops(drop.SpoofedMAC) != 1 || n1.drops(drop.SpoofedSource) != 1 {
		t.Errorf("drops %+v", n1.e.Drops())
	}
	in.Inject(bytes.Clone(fromA), make([]byte, 10))
	gone := bytes.Clone(fromA)
	frame.WriteTag(gone, frame.Tag{Port: 999, Genuine: true})
	in.Inject(gone)
	n1.step()
	if n1.drops(drop.PortGone) != 2 || n1.drops(drop.FrameTooShort) != 1 {
		t.Errorf("drops %+v", n1.e.Drops())
	}
	if s, ok := n1.e.Intake(); !ok || s.Spec.Name != "intake" || s.Spec.Queues != 1 {
		t.Errorf("the intake: %t, %+v", ok, s)
	}
	vlan := bytes.Clone(fromA)
	frame.WriteTag(vlan, frame.Tag{Port: n1.pods["a"].port, Genuine: true, VLAN: true})
	in.Inject(vlan)
	n1.step()
	want := DropCount{drop.EthertypeUnsupported, "cva", PortVeth, 1}
	if all := n1.e.Drops(); !slices.Contains(all, want) {
		t.Errorf("drops %+v, want %+v", all, want)
	}
	for _, p := range n1.e.Ports() {
		want := map[string]uint64{"cva": 4, "cvc": 2}[p.Spec.Name]
		if p.Spec.Kind == PortIntake {
			t.Error("the intake is listed as a port")
		} else if p.RxPackets != want {
			t.Errorf("%s received %d, want %d", p.Spec.Name, p.RxPackets, want)
		}
	}
}

// What is answered on the spot is not big, whatever its sender claims of it.
func TestBigARPIsRefused(t *testing.T) {
	n1, _ := bigPair(t, gather)
	arp := kit.Pad(kit.Frame(t, kit.Eth(macA, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(macA, ipA, "169.254.1.1")), 60000)
	n1.pods["a"].dev.InjectBig(arp, 1, frame.SegUDP)
	n1.step()
	n1.wantDrops(drop.CannotSegment, 1)
}

// A device may name a checksum that is not the packet's own: that of a packet in a
// pod's own tunnel is completed where it lies, and one in front of the payload is
// nobody's.
func TestForeignPartialChecksums(t *testing.T) {
	inner := kit.SetPartial(kit.Frame(t, kit.Eth(vtep1, vtep2), kit.IP4("172.16.0.1", "172.16.0.2"), kit.TCP(1, 2), kit.Payload(100)))
	tunnel := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipC), kit.UDP(40000, 8472), kit.VXLANHeader(7), kit.Bytes(inner...))
	whole := kit.Frame(t, kit.Eth(vtep1, vtep2), kit.IP4("172.16.0.1", "172.16.0.2"), kit.TCP(1, 2), kit.Payload(100))
	n1, _ := bigPair(t, gather)
	out := func(f []byte, start, offset uint16) memport.Sent {
		t.Helper()
		n1.pods["a"].dev.InjectPartial(bytes.Clone(f), start, offset)
		n1.step()
		return one(t, n1.pods["c"].dev.TakeSent())
	}
	const innerTCP = 14 + 20 + 8 + 8 + 34
	if got := out(kit.ZeroL4Checksum(tunnel), innerTCP, 16); got.Flags != 0 || !bytes.Equal(got.Data[50:], whole) {
		t.Errorf("the inner checksum was not completed: %s", offloads(got))
	}
	plain := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipC), kit.UDP(5, 6), kit.Payload(100))
	for _, at := range [][2]uint16{{0, 6}, {14, 10}, {34, 4}, {5000, 6}} {
		if got := out(plain, at[0], at[1]); got.Flags != 0 || !bytes.Equal(got.Data[34:], plain[34:]) {
			t.Errorf("a checksum at %v changed the packet: %s", at, offloads(got))
		}
	}
	n1.wantDrops(drop.None, 0)
}

// A device that sends no chains gets segments that fit one chunk, whatever the MTU.
func TestCutFitsAChunk(t *testing.T) {
	n1, _ := bigPair(t, frame.Limits{Chunks: 1})
	n1.uplink.Complete = true
	adj := *n1.w.snapshotAdjacency(t, ipB)
	adj.MTU = 8950
	n1.route("10.244.2.0/24", adj)
	payload := kit.Pattern(27000)
	n1.pods["a"].dev.InjectBig(bigTCP(t, ipB, payload), 8910, frame.SegTCP4)
	n1.step()
	var inner [][]byte
	for _, s := range n1.uplink.TakeSent() {
		inner = append(inner, kit.CheckVXLAN(t, s.Data))
	}
	if got := segments(t, inner, 3840); !bytes.Equal(got, payload) {
		t.Error("the stream differs")
	}
}

// snapshotAdjacency is how packets to addr leave now.
func (w *worker) snapshotAdjacency(t *testing.T, addr string) *fib.Adjacency {
	t.Helper()
	a := packet.AddrFrom(netip.MustParseAddr(addr))
	_, adj := w.eng.tables.Load().Find(&a)
	if adj == nil {
		t.Fatalf("no route to %s", addr)
	}
	return adj
}

// A group grows no longer than its device takes.
func TestMergeRespectsBytes(t *testing.T) {
	n1, _ := bigPair(t, gather)
	n1.limit(n1.pods["a"].port, frame.Limits{Offload: frame.OffloadTCP, Chunks: 72, Bytes: 10000})
	n1.established(t, 5000)
	for _, s := range n1.fromWire("a", wireSegments(t, 5000, kit.Pattern(40_000), 1390, "A")...) {
		if len(s.Data) > 10000 {
			t.Errorf("a frame of %d bytes", len(s.Data))
		}
	}
	n1.wantDrops(drop.None, 0)
}
