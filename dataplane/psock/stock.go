package psock

import (
	"culvert/dataplane/frame"
	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// stock is where one frame is received into: its header, and chunks enough for the
// largest, in the form that recvmmsg reads. Chunk i is at addrs[i] and behind
// iov[1+i].
//
// The first gap of them are missing. The header's place is right in front of the
// first chunk that is there, at iov[gap], so that a call is given one row without
// moving anything. Received frames use chunks up from the front; new ones are put
// back from the gap's end.
type stock struct {
	pool   *frame.Pool
	owner  frame.Owner
	room   uint32 // bytes of each chunk that are received into, behind the headroom
	gap    int
	header [vnet.Len]byte
	addrs  [frame.MaxChunks]uint64
	iov    [1 + frame.MaxChunks]unix.Iovec
}

func (s *stock) init(pool *frame.Pool) {
	s.pool, s.room = pool, uint32(pool.ChunkSize()-frame.Headroom)
	s.gap = len(s.addrs)
}

// full reports whether no chunk is missing.
func (s *stock) full() bool { return s.gap == 0 }

// refill puts back as many chunks as the pool can spare.
func (s *stock) refill() {
	for s.gap > 0 {
		addr, ok := s.pool.AllocSpare()
		if !ok {
			return
		}
		s.pool.Give(addr, s.owner)
		s.addrs[s.gap-1] = addr
		v := &s.iov[s.gap]
		v.Base, v.Len = &s.pool.Bytes(addr, s.room)[0], uint64(s.room)
		s.gap--
	}
}

// offer makes m the row of the header and the chunks that are there.
func (s *stock) offer(m *unix.Msghdr) {
	row := s.iov[s.gap:]
	row[0].Base, row[0].Len = &s.header[0], vnet.Len
	m.Iov, m.Iovlen = &row[0], uint64(len(row))
}

// take passes the first chunk that is there to the worker.
func (s *stock) take() uint64 {
	addr := s.addrs[s.gap]
	s.gap++
	s.pool.Take(addr, s.owner)
	return addr
}
