package tap

import (
	"culvert/dataplane/frame"
	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// burstBytes ends a burst. What was copied from the kernel is copied back to it by
// Send, and should still be in a cache then; but only frames of one burst are merged,
// and several flows need their part of it.
const burstBytes = 1 << 20

// Recv implements frame.Device: one readv a frame, until there is none or the
// burst is full.
//
// A frame is read into chunks behind their headroom, so that headers can be
// pushed in front of it. When chunks are short, frames wait in the device's ring
// rather than be cut off.
func (q *Queue) Recv(b *frame.Burst) int {
	if q.gone.Load() {
		return 0
	}
	n, total := 0, 0
	for total < burstBytes && b.Room() > 0 && b.ChainRoom() >= len(q.addrs) && q.refill() {
		got, errno := readv(q.fd, q.rxIov)
		if errno == 0 {
			total += got
			if q.accept(b, got) {
				n++
			}
			continue
		}
		if !q.again(errno) {
			break
		}
	}
	return n
}

// again reports whether to read on after an error.
func (q *Queue) again(errno unix.Errno) bool {
	switch errno {
	case unix.EAGAIN:
		return false
	case unix.EINTR:
		return true
	case unix.EINVAL:
		// A frame that no virtio_net_hdr can describe; the kernel freed it
		// (drivers/net/tun.c, tun_put_user).
		bump(&q.count.rxInvalid, 1)
		return true
	case unix.EBADFD:
		q.lose()
	}
	return false
}

// accept makes a frame of what was read: header and size bytes in all. It
// reports false when it dropped it: then the chunks are read into again.
func (q *Queue) accept(b *frame.Burst, size int) bool {
	bytes := uint32(size) - vnet.Len
	if bytes > maxRead {
		bump(&q.count.rxTooLong, 1)
		return false
	}
	var meta frame.Frame
	if !vnet.Accept(q.rxHdr[:], bytes, min(bytes, q.room), &meta) {
		bump(&q.count.rxInvalid, 1)
		return false
	}
	f := b.Add(frame.Desc{Addr: q.take(0), Len: min(bytes, q.room)})
	f.Flags, f.SegSize = meta.Flags, meta.SegSize
	f.CsumStart, f.CsumOffset = meta.CsumStart, meta.CsumOffset
	used := 1
	for at := q.room; at < bytes; at += q.room {
		b.Chain(frame.Desc{Addr: q.take(used), Len: min(bytes-at, q.room)}) // Recv has seen to the room
		used++
	}
	q.closeGap(used)
	return true
}

// take passes chunk i of the stock to the worker.
func (q *Queue) take(i int) uint64 {
	q.pool.Take(q.addrs[i], q.owner)
	return q.addrs[i]
}

// closeGap moves the stock's last chunks to where the first n were taken.
func (q *Queue) closeGap(n int) {
	left := q.have - n
	from := max(n, left)
	for i := range q.have - from {
		q.post(i, q.addrs[from+i])
	}
	q.have = left
}

// refill completes the stock as far as there are chunks, and reports whether
// there were enough.
func (q *Queue) refill() bool {
	for q.have < len(q.addrs) {
		addr, ok := q.pool.AllocSpare()
		if !ok {
			return false
		}
		q.pool.Give(addr, q.owner)
		q.post(q.have, addr)
		q.have++
	}
	return true
}

// post makes the chunk at addr number i of the stock.
func (q *Queue) post(i int, addr uint64) {
	q.addrs[i] = addr
	v := &q.rxIov[1+i]
	v.Base, v.Len = &q.pool.Bytes(addr, q.room)[0], uint64(q.room)
}
