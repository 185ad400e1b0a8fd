package xsk

import (
	"testing"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// fakeKernel is a socket whose rings are ordinary memory: the test plays the
// kernel's part. System calls fail with EBADF.
type fakeKernel struct {
	*Socket
	filled uint32 // consumer of the fill ring
}

func newFake(t *testing.T, size int, checked bool) *fakeKernel {
	t.Helper()
	pool, err := frame.NewPool(128, 2048, checked)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	mem := func(n int) ring {
		return ring{producer: new(uint32), consumer: new(uint32), flags: new(uint32), size: uint32(n), mask: uint32(n - 1)}
	}
	s := &Socket{
		pool:  pool,
		fd:    -1,
		class: class{sg: true},
		rx:    rxRing{ring: mem(size), entries: make([]frame.Desc, size)},
		tx:    txRing{ring: mem(size), entries: make([]frame.Desc, size)},
		fill:  fillRing{ring: mem(2 * size), entries: make([]uint64, 2*size)},
		comp:  completionRing{ring: mem(2 * size), entries: make([]uint64, 2*size)},
	}
	// Indices are free-running: let them wrap in every test.
	s.rx.next, *s.rx.producer, *s.rx.consumer = ^uint32(2), ^uint32(2), ^uint32(2)
	s.fill.next, s.fill.consumed, *s.fill.producer, *s.fill.consumer = ^uint32(2), ^uint32(2), ^uint32(2), ^uint32(2)
	k := &fakeKernel{Socket: s, filled: ^uint32(2)}
	if err := s.Start(pool.NewOwner(), 2*size); err != nil {
		t.Fatal(err)
	}
	return k
}

// deliver receives a frame of n descriptors, the last one marked as the end if
// whole is set.
func (k *fakeKernel) deliver(n int, whole bool) {
	for i := range n {
		addr := k.fill.entries[k.filled&k.fill.mask]
		k.filled++
		d := frame.Desc{Addr: addr + frame.Headroom, Len: 100}
		if i < n-1 || !whole {
			d.Options = unix.XDP_PKT_CONTD
		}
		k.rx.entries[*k.rx.producer&k.rx.mask] = d
		*k.rx.producer++
	}
	*k.fill.consumer = k.filled
}

// recv receives and frees what is there.
func (k *fakeKernel) recv(b *frame.Burst) int {
	b.Reset()
	n := k.Recv(b)
	for i := range n {
		k.pool.FreeFrame(&b.Frames[i])
	}
	return n
}

// allAccounted checks that every chunk is free or posted for receiving.
func (k *fakeKernel) allAccounted(t *testing.T) {
	t.Helper()
	if free, held := k.pool.FreeChunks(), k.pool.Held(k.owner); free+held != k.pool.Chunks() || held != int(k.limit) {
		t.Errorf("%d chunks free, %d posted of %d; %d should be posted", free, held, k.pool.Chunks(), k.limit)
	}
}

func TestRecvKeepsChainTogether(t *testing.T) {
	k := newFake(t, 32, true)
	var b frame.Burst
	k.deliver(1, true)
	k.deliver(3, true)
	k.deliver(5, false)
	if n := k.recv(&b); n != 2 || b.Frames[0].Total != 100 || b.Frames[1].Total != 300 || len(b.Frames[1].Rest) != 2 {
		t.Fatalf("received %d frames: %+v", n, b.Frames[:n])
	}
	if n := k.recv(&b); n != 0 {
		t.Fatalf("received %d frames while the chain's end is missing", n)
	}
	k.deliver(2, true)
	if n := k.recv(&b); n != 1 || b.Frames[0].Total != 700 {
		t.Fatalf("received %d frames, the first of %d bytes; want one of 700", n, b.Frames[0].Total)
	}
	k.allAccounted(t)
}

func TestRecvDropsWhatIsTooLong(t *testing.T) {
	k := newFake(t, 32, true)
	var b frame.Burst
	k.deliver(frame.MaxSegments, true)
	if n := k.recv(&b); n != 1 || len(b.Frames[0].Rest) != frame.MaxSegments-1 {
		t.Fatalf("a chain of MaxSegments: received %d", n)
	}
	k.deliver(frame.MaxSegments+1, true)
	k.deliver(1, true)
	if n := k.recv(&b); n != 1 || b.Frames[0].Total != 100 {
		t.Fatalf("received %d frames, want the one behind the long chain", n)
	}
	k.deliver(32, false) // the whole ring is one frame without an end
	if n := k.recv(&b); n != 0 {
		t.Fatalf("received %d frames of an endless chain", n)
	}
	if got := k.count.rxTooLong.Load(); got != 2 {
		t.Errorf("%d frames counted as too long, want 2", got)
	}
	k.allAccounted(t)
}

func TestRecvStopsAtFullBurst(t *testing.T) {
	k := newFake(t, 128, true)
	k.SetFill(100)
	var b frame.Burst
	for range 70 {
		k.deliver(1, true)
	}
	if first, second := k.recv(&b), k.recv(&b); first != frame.BurstSize || second != 70-frame.BurstSize {
		t.Errorf("received %d, then %d", first, second)
	}
}

// A chunk that the kernel was never given makes no frame and frees nothing.
func TestRecvForeignChunk(t *testing.T) {
	k := newFake(t, 32, false)
	var b frame.Burst
	for at := range 3 {
		before := *k.rx.producer
		k.deliver(3, true)
		bad := &k.rx.entries[(before+uint32(at))&k.rx.mask]
		kept := bad.Addr
		bad.Addr = 1 << 40
		if n := k.recv(&b); n != 0 {
			t.Errorf("a frame was made with a foreign chunk at place %d", at)
		}
		k.pool.Take(kept, k.owner) // what the kernel lost
		k.pool.Free(kept)
	}
	if got := k.count.rxInvalid.Load(); got != 3 {
		t.Errorf("%d frames counted as invalid, want 3", got)
	}
	k.allAccounted(t)
}

// A limit that is lowered is reached by traffic, and one that is raised by bursts
// of which more than a quarter of what is posted waits.
func TestSetFill(t *testing.T) {
	k := newFake(t, 32, true)
	var b frame.Burst
	k.SetFill(10)
	for k.posted > 10 {
		k.deliver(1, true)
		k.recv(&b)
	}
	k.recv(&b)
	k.allAccounted(t)
	k.SetFill(1000)
	k.deliver(1, true)
	k.recv(&b)
	if k.posted != 10 {
		t.Errorf("%d chunks posted after a single frame, want 10", k.posted)
	}
	for range 10 {
		for range min(k.posted, 24) { // the receive ring holds 32
			k.deliver(1, true)
		}
		k.recv(&b)
	}
	if k.posted != k.fill.size {
		t.Errorf("%d chunks posted, want the ring's %d", k.posted, k.fill.size)
	}
	k.SetFill(-1)
	if k.limit != 0 {
		t.Errorf("limit %d after a negative fill", k.limit)
	}
}

// An error that nobody expects is counted; frames wait on the ring, and when
// that is full the caller keeps them.
func TestSendUnexpectedError(t *testing.T) {
	k := newFake(t, 32, true)
	k.SetFill(0)
	taken, refused := 0, 0
	for range 40 {
		addr, _ := k.pool.Alloc()
		if k.Send([]frame.Frame{{Addr: addr, Len: 60, Total: 60}}) == 1 {
			taken++
		} else {
			k.pool.Free(addr)
			refused++
		}
	}
	if taken != 32 || refused != 8 || k.count.txRingFull.Load() != 8 {
		t.Errorf("%d taken, %d refused, %d counted as ring full", taken, refused, k.count.txRingFull.Load())
	}
	if k.count.txErrors.Load() == 0 || k.State() != StateUp {
		t.Errorf("%d errors counted, state %s", k.count.txErrors.Load(), k.State())
	}
	// The kernel sends them after all.
	for i := range uint32(32) {
		k.comp.entries[i] = k.tx.entries[i].Addr
	}
	*k.tx.consumer, *k.comp.producer = 32, 32
	var b frame.Burst
	k.recv(&b)
	if k.inflight != 0 {
		t.Errorf("%d descriptors in flight after all were completed", k.inflight)
	}
}

// A pool without a free chunk cannot start a device, and says so.
func TestStartWithoutChunks(t *testing.T) {
	k := newFake(t, 32, true)
	for {
		if _, ok := k.pool.Alloc(); !ok {
			break
		}
	}
	other := &Socket{pool: k.pool, fill: fillRing{ring: k.comp.ring, entries: make([]uint64, 64)}}
	if err := other.Start(k.pool.NewOwner(), 16); err == nil {
		t.Error("a device started without a single chunk")
	}
}
