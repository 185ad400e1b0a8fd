package intake

import (
	"culvert/dataplane/frame"
	"culvert/dataplane/vnet"
)

// A pod sends a flow's packets as big frames and small ones, mixed, and they arrive
// by two sockets. Recv puts them together again, with the help of one counter for
// each queue: how many big frames the packet socket has got (or has had to drop).
//
// The kernel's side (bpf/intake.bpf.c) stamps every frame with the counter's value
// when the frame is taken, delivers it to its socket, and adds one to the counter
// if it was a big one. All of this happens in one go on one CPU, the one that all
// frames of a flow pass in order, so that the next frame of the flow is stamped
// after the one before it was delivered and counted. Let X be a big frame, Y a
// small one, and n their stamps. In one flow:
//
//	(1) X before Y:  n(X) < n(Y), and X is in the packet socket, or lost, when Y is
//	                 on the ring.
//	(2) Y before X:  n(X) ≥ n(Y).
//
// So before Y is handed out, so must be every big frame with a smaller stamp. Ahead
// of X in the packet socket there are only such: they were stamped before X was
// counted, so with less than n(Y). Reading can stop at the first with another, and
// that one is held back.
//
// After the small frames that were found on the ring, big frames with stamps below
// the counter's value before the ring was looked at are handed out: a small frame
// that was not found yet, of which the same flow sent a big one after, gave that
// one a stamp of at least that value. If the ring held more than a burst, the last
// small frame's stamp is the limit instead: what is behind it on the ring came
// there later, and big frames of the same flow after that.
//
// An empty packet socket saves the trouble: if it was found empty, every big frame
// counted before the look has been read, or was lost. As long as the counter stands
// at its value from before that look, no frame on the ring has a big one in front.
//
// A stamp is the counter's low 16 bits. It is read as one of the last 65536 values:
// frames that waited while more big frames than 32768 were counted, most of them
// lost for want of room, may come in another order.

// perRecv is about the most big frames that a call of Recv reads: of a pod's, half a
// megabyte, which is still in the core's second-level cache when it is sent on.
const perRecv = 8

// unasked is how often Recv trusts the counter before it looks at the packet socket
// all the same: an error of the socket's wakes the worker until it is read.
const unasked = 256

// Recv implements frame.Device: both kinds, in order.
func (q *Queue) Recv(b *frame.Burst) int {
	before := b.N
	if q.Sending() {
		q.unpark()
	}
	if before == 0 { // else b has frames whose Rest is ours
		q.smalls.recycle()
		q.bigs.recycle()
	}
	q.looks++
	if q.smalls.empty() {
		q.limit = q.counter.load()
		if q.limit == q.clear && q.bigs.empty() && q.looks%unasked != 0 {
			q.smallShare.look(q.small.Recv(b), b.Room() > 0)
			if q.counter.load() == q.clear {
				return b.N - before
			}
			more := b.Room() == 0
			q.smalls.takeBack(b, before) // a big frame has come meanwhile
			q.bound(more)
		} else {
			q.smallShare.look(q.small.Recv(&q.smalls.Burst), q.smalls.Room() > 0)
			q.bound(q.smalls.Room() == 0)
		}
	}
	q.merge(b)
	if q.Sending() {
		q.park()
	}
	return b.N - before
}

// bound lowers the limit if there may be more small frames on the ring than were
// taken.
func (q *Queue) bound(more bool) {
	if more && !q.smalls.empty() {
		q.limit = q.stamp(&q.smalls.Frames[q.smalls.N-1])
	}
}

// merge adds frames to b, in order, as long as there is room.
func (q *Queue) merge(b *frame.Burst) {
	q.budget = perRecv
	if q.bigs.empty() && q.looks%unasked == 0 {
		q.readBig()
	}
	for !q.smalls.empty() {
		if !q.bigBefore(b, q.stamp(q.smalls.front())) || !q.smalls.moveTo(b) {
			return
		}
	}
	q.bigBefore(b, q.limit)
}

// bigBefore adds to b the big frames with stamps below n. It reports false when it
// had to leave some.
func (q *Queue) bigBefore(b *frame.Burst, n uint32) bool {
	for {
		for !q.bigs.empty() {
			if !less(q.stamp(q.bigs.front()), n) {
				return true
			}
			if !q.bigs.moveTo(b) {
				return false
			}
		}
		if !less(q.clear, n) {
			return true
		}
		if q.budget <= 0 {
			return false
		}
		q.readBig()
	}
}

// readBig reads the next few big frames.
func (q *Queue) readBig() {
	seen := q.counter.load() // before the socket is looked at
	n, empty := q.big.Recv(&q.bigs.Burst)
	q.budget -= max(n, 1)
	if empty {
		q.clear = seen
	}
}

// stamp is the counter's value when the frame was taken. A frame without a tag, which
// somebody has sent to the intake's devices by hand, waits for nothing.
func (q *Queue) stamp(f *frame.Frame) uint32 {
	tag, ok := frame.ReadTag(q.pool.Bytes(f.Addr, max(f.Len, vnet.EtherLen)))
	if !ok {
		return q.clear - 1
	}
	now := q.counter.load()
	return now - uint32(uint16(now)-tag.Stamp)
}

// less compares values of the counter, which may have wrapped between them.
func less(a, b uint32) bool { return int32(a-b) < 0 }

// park gives the frames that wait to the device for the time between two calls.
func (q *Queue) park() {
	q.smalls.each(func(addr uint64) { q.pool.Give(addr, q.owner) })
	q.bigs.each(func(addr uint64) { q.pool.Give(addr, q.owner) })
}

// unpark takes them back.
func (q *Queue) unpark() {
	q.smalls.each(func(addr uint64) { q.pool.Take(addr, q.owner) })
	q.bigs.each(func(addr uint64) { q.pool.Take(addr, q.owner) })
}
