package intake

import "culvert/dataplane/frame"

// fifo is frames that wait, in order. Those that have left it are still in its
// burst, and their Rest in the burst's arena, until that is recycled.
type fifo struct {
	frame.Burst
	at int // of the first that waits
}

func (q *fifo) empty() bool { return q.at == q.N }

func (q *fifo) front() *frame.Frame { return &q.Frames[q.at] }

// recycle makes room of the frames that have left, if none waits.
func (q *fifo) recycle() {
	if q.empty() {
		q.Reset()
		q.at = 0
	}
}

// moveTo moves the first frame to b. It reports false when b has no room.
func (q *fifo) moveTo(b *frame.Burst) bool {
	if b.Room() == 0 {
		return false
	}
	f := q.front()
	*b.Add(frame.Desc{}) = *f
	q.at++
	return true
}

// takeBack moves the frames of b from number first on to the end. There is room:
// those that have left since the fifo was recycled are in b as well.
func (q *fifo) takeBack(b *frame.Burst, first int) {
	for i := first; i < b.N; i++ {
		f := &b.Frames[i]
		own := q.Add(frame.Desc{Addr: f.Addr, Len: f.Len})
		for _, d := range f.Rest { // b's arena is not ours to keep
			q.Chain(d)
		}
		own.Flags, own.CsumStart, own.CsumOffset = f.Flags, f.CsumStart, f.CsumOffset
	}
	b.N = first
}

// each calls f with the address of every chunk that waits.
func (q *fifo) each(f func(addr uint64)) {
	for i := q.at; i < q.N; i++ {
		f(q.Frames[i].Addr)
		for k := range q.Frames[i].Rest {
			f(q.Frames[i].Rest[k].Addr)
		}
	}
}
