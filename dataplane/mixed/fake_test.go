package mixed

import (
	"testing"

	"culvert/dataplane/frame"
)

// wire is what the kernel has got, in order: the lengths of frames.
type wire []uint32

// smallFake is a socket whose ring holds some frames and whose kernel takes some of
// them with each kick.
type smallFake struct {
	w        *wire
	pool     *frame.Pool
	owner    frame.Owner
	ring     int // most frames on the ring
	takes    int // frames that the kernel takes with one kick
	pending  []frame.Frame
	kicks    int
	zero     bool
	chunks   int
	received int
	fill     int
	ringFull uint64
	closed   bool
}

func (s *smallFake) Start(owner frame.Owner, fill int) error {
	s.owner, s.fill = owner, fill
	return nil
}
func (s *smallFake) SetFill(most int) { s.fill = most }
func (s *smallFake) Recv(b *frame.Burst) int {
	s.kick()
	if b.Room() == 0 {
		return 0
	}
	s.received++
	return 1
}
func (s *smallFake) Send(frames []frame.Frame) int {
	n := min(len(frames), s.ring-len(s.pending))
	for i := range frames[:n] {
		s.pool.Give(frames[i].Addr, s.owner)
		s.pending = append(s.pending, frames[i])
	}
	s.ringFull += uint64(len(frames) - n)
	s.kick()
	return n
}
func (s *smallFake) kick() {
	s.kicks++
	n := min(s.takes, len(s.pending))
	for _, f := range s.pending[:n] {
		*s.w = append(*s.w, f.Total)
		s.pool.Take(f.Addr, s.owner)
		s.pool.Free(f.Addr)
	}
	s.pending = s.pending[n:]
}
func (s *smallFake) Sending() bool              { return len(s.pending) > 0 }
func (s *smallFake) FD() int                    { return 7 }
func (s *smallFake) Limits() frame.Limits       { return frame.Limits{Chunks: s.chunks} }
func (s *smallFake) Stats(d *frame.DeviceStats) { d.TxRingFull += s.ringFull }
func (s *smallFake) ZeroCopy() bool             { return s.zero }
func (s *smallFake) Close() error               { s.closed = true; return nil }

// bigFake answers every frame with the same result.
type bigFake struct {
	w      *wire
	result Result
	limits frame.Limits // the zero value: TCP in chains of 100
	sent   int
	closed bool
}

func (b *bigFake) Send(f *frame.Frame) Result {
	if b.result == Sent {
		b.sent++
		*b.w = append(*b.w, f.Total)
	}
	return b.result
}
func (b *bigFake) Limits() frame.Limits {
	if b.limits.Chunks != 0 {
		return b.limits
	}
	return frame.Limits{Offload: frame.OffloadTCP, Chunks: 100, Bytes: 65535}
}
func (b *bigFake) Close() error { b.closed = true; return nil }

// bed is a Device of fakes on a checked pool.
type bed struct {
	t     *testing.T
	w     wire
	pool  *frame.Pool
	small smallFake
	big   bigFake
	dev   *Device
}

func newBed(t *testing.T) *bed {
	t.Helper()
	pool, err := frame.NewPool(256, 2048, true)
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, pool: pool}
	b.small = smallFake{w: &b.w, pool: pool, ring: 64, takes: 64, chunks: 18}
	b.big = bigFake{w: &b.w}
	if b.dev, err = New(&b.small, &b.big, pool, false); err != nil {
		t.Fatal(err)
	}
	if err := b.dev.Start(pool.NewOwner(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for b.small.takes = 64; b.dev.Sending(); {
			b.dev.Recv(b.dev.full)
		}
		if free := pool.FreeChunks(); free != pool.Chunks() {
			t.Errorf("%d of %d chunks are free at the end", free, pool.Chunks())
		}
		pool.Close()
	})
	return b
}

// frames are one for each letter, the first of length 100, the next of 101, and so
// on: s is a small one, B a big one, c a chain of 30 chunks that is none.
func (b *bed) frames(letters string) []frame.Frame {
	b.t.Helper()
	list := make([]frame.Frame, 0, len(letters))
	for i, l := range letters {
		addr, ok := b.pool.Alloc()
		if !ok {
			b.t.Fatal("the pool is empty")
		}
		f := frame.Frame{Addr: addr, Len: uint32(100 + i), Total: uint32(100 + i)}
		switch l {
		case 'B':
			f.SegSize, f.Flags = 20, frame.SegTCP4|frame.CsumPartial
		case 'c':
			for range 29 {
				b.pool.Cite(addr)
				f.Rest = append(f.Rest, frame.Desc{Addr: addr})
			}
		}
		list = append(list, f)
	}
	return list
}

// send sends the frames and frees what is left, as a worker does. It returns how
// many were taken.
func (b *bed) send(letters string) int {
	b.t.Helper()
	list := b.frames(letters)
	n := b.dev.Send(list)
	for i := n; i < len(list); i++ {
		b.pool.FreeFrame(&list[i])
	}
	return n
}

func (b *bed) stats() (s frame.DeviceStats) {
	b.dev.Stats(&s)
	return s
}
