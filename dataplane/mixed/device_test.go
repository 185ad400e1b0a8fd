package mixed

import (
	"errors"
	"slices"
	"testing"

	"culvert/dataplane/frame"
)

// Frames of all sorts leave in the order in which they were given.
func TestOrder(t *testing.T) {
	for _, letters := range []string{"", "s", "B", "ssss", "BBB", "sBs", "ssBBss", "BsBsB", "scsB", "cs"} {
		b := newBed(t)
		if n := b.send(letters); n != len(letters) {
			t.Errorf("%q: %d frames were taken", letters, n)
		}
		for i := range letters {
			if len(b.w) != len(letters) || b.w[i] != uint32(100+i) {
				t.Errorf("%q left as %v", letters, b.w)
				break
			}
		}
	}
}

// Small frames that follow each other are one batch.
func TestBatches(t *testing.T) {
	b := newBed(t)
	b.send("sssssBsss")
	if b.small.kicks != 2 {
		t.Errorf("%d batches, want 2", b.small.kicks)
	}
}

// Frames that wait on the socket's ring go before a big one, if the kernel takes
// them when asked again.
func TestSettle(t *testing.T) {
	b := newBed(t)
	b.small.takes = 2
	if n := b.send("sssssssBs"); n != 9 {
		t.Errorf("%d of 9 frames were taken", n)
	}
	if !slices.IsSorted(b.w) || len(b.w) != 9 {
		t.Errorf("the frames left as %v", b.w)
	}
}

// If it does not, the big frame and all behind it are not taken; what waits goes
// first when it can.
func TestBlockedSocketStopsBigFrames(t *testing.T) {
	b := newBed(t)
	b.small.takes = 0
	if n := b.send("sssBsB"); n != 3 {
		t.Errorf("%d frames were taken, want 3", n)
	}
	if got := b.stats(); got != (frame.DeviceStats{TxRingFull: 3}) {
		t.Errorf("counters %+v", got)
	}
	if !b.dev.Sending() || len(b.w) != 0 {
		t.Errorf("sending %t, on the wire %v", b.dev.Sending(), b.w)
	}
	if kicks := b.small.kicks; kicks > 1+maxSettles {
		t.Errorf("the socket was asked %d times", kicks)
	}
	b.small.takes = 64
	b.send("sB")
	if want := []uint32{100, 101, 102, 100, 101}; !slices.Equal(b.w, want) {
		t.Errorf("the frames left as %v, want %v", b.w, want)
	}
}

// A full ring stops everything behind it, and each frame left is counted once.
func TestFullRing(t *testing.T) {
	b := newBed(t)
	b.small.ring, b.small.takes = 2, 0
	if n := b.send("ssssBss"); n != 2 {
		t.Errorf("%d frames were taken, want 2", n)
	}
	if got := b.stats(); got != (frame.DeviceStats{TxRingFull: 5}) {
		t.Errorf("counters %+v", got)
	}
}

// What becomes of a big frame decides what is counted, and whether the frames
// behind it go.
func TestResults(t *testing.T) {
	for _, c := range []struct {
		result Result
		taken  int
		want   frame.DeviceStats
	}{
		{Sent, 3, frame.DeviceStats{}},
		{Full, 1, frame.DeviceStats{TxRingFull: 2}},
		{Dropped, 3, frame.DeviceStats{TxRefused: 1}},
		{Down, 3, frame.DeviceStats{TxLinkDown: 1}},
		{Gone, 3, frame.DeviceStats{TxLinkDown: 1}},
		{Refused, 3, frame.DeviceStats{TxInvalid: 1}},
		{Failed, 3, frame.DeviceStats{TxErrors: 1, TxRefused: 1}},
	} {
		b := newBed(t)
		b.big.result = c.result
		if n := b.send("sBs"); n != c.taken {
			t.Errorf("result %d: %d frames were taken, want %d", c.result, n, c.taken)
		}
		if got := b.stats(); got != c.want {
			t.Errorf("result %d: counters %+v, want %+v", c.result, got, c.want)
		}
	}
}

// Frames beyond the limits are a defect of ours: dropped and counted.
func TestLimits(t *testing.T) {
	b := newBed(t)
	want := frame.Limits{Offload: frame.OffloadTCP, Chunks: 100, Bytes: 65535}
	if got := b.dev.Limits(); got != want {
		t.Errorf("limits %+v, want %+v", got, want)
	}
	list := b.frames("BB")
	list[0].Total = 1 << 17
	list[1].Flags = frame.SegUDP | frame.CsumPartial
	if n := b.dev.Send(list); n != 2 || len(b.w) != 0 || b.stats().TxInvalid != 2 {
		t.Errorf("%d taken, sent %v, counters %+v", n, b.w, b.stats())
	}
}

// A port that only sends receives nothing, holds no chunks, cannot be waited on,
// and still looks after its sends.
func TestTxOnly(t *testing.T) {
	b := newBed(t)
	dev, err := New(&b.small, &b.big, b.pool, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(b.small.owner, 64); err != nil || b.small.fill != 0 {
		t.Errorf("started with %d chunks: %v", b.small.fill, err)
	}
	if dev.SetFill(64); b.small.fill != 0 || dev.FD() != -1 || !dev.Limits().TxOnly {
		t.Errorf("%d chunks, descriptor %d, limits %+v", b.small.fill, dev.FD(), dev.Limits())
	}
	b.small.takes = 0
	dev.Send(b.frames("s"))
	b.small.takes = 1
	var burst frame.Burst
	if n := dev.Recv(&burst); n != 0 || b.small.received != 0 || len(b.w) != 1 {
		t.Errorf("received %d, sent %v", b.small.received, b.w)
	}
	if b.dev.FD() != 7 || b.dev.Recv(&burst) != 1 {
		t.Error("a port that receives as well does not")
	}
	b.dev.SetFill(9)
	if err := dev.Close(); err != nil || !b.small.closed || !b.big.closed || b.small.fill != 9 {
		t.Errorf("closed %t, %t: %v", b.small.closed, b.big.closed, err)
	}
}

func TestZeroCopyIsRefused(t *testing.T) {
	b := newBed(t)
	b.small.zero = true
	if _, err := New(&b.small, &b.big, b.pool, false); !errors.Is(err, ErrZeroCopy) {
		t.Errorf("a zero-copy socket: %v", err)
	}
}

// Two ways as one: each kind of frame goes its own, and what one does not take
// does not keep the other's back.
func TestSplit(t *testing.T) {
	w := &wire{}
	tunnel := &bigFake{w: w, limits: frame.Limits{Offload: frame.OffloadTunnelTCP, Chunks: 18, Bytes: 65549}}
	plain := &bigFake{w: w, limits: frame.Limits{Offload: frame.OffloadTCP, Chunks: 72, Bytes: 262158}}
	s := Split(tunnel, plain)
	if l := s.Limits(); l.Offload != frame.OffloadTCP|frame.OffloadTunnelTCP || l.Chunks != 18 || l.Bytes != 65549 {
		t.Errorf("limits %+v", l)
	}
	s.Send(&frame.Frame{Total: 1, OuterL4: 34})
	s.Send(&frame.Frame{Total: 2})
	if tunnel.sent != 1 || plain.sent != 1 {
		t.Errorf("%d frames in tunnels, %d plain", tunnel.sent, plain.sent)
	}
	plain.limits = frame.Limits{Chunks: 72}
	if l := s.Limits(); l.Offload != frame.OffloadTunnelTCP || l.Bytes != 65549 {
		t.Errorf("limits %+v, without offload on the NIC", l)
	}
	if err := s.Close(); err != nil || !tunnel.closed || !plain.closed {
		t.Errorf("closing: %v", err)
	}
}
