package xsk

import (
	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// Send implements frame.Device. Frames that it takes and cannot send (the link
// is down, a frame breaks the rules below) are freed and counted. A frame with
// frame.CsumPartial leaves with a complete checksum, or with the kernel told
// to complete it.
//
// A sendable frame has an Ethernet header in its first chunk, at most
// frame.MaxSegments chunks, none of them empty, and in front of each chunk's
// first byte the room of the transmit metadata.
func (s *Socket) Send(frames []frame.Frame) int {
	if len(frames) == 0 {
		return 0
	}
	if s.State() != StateUp && !s.revive() {
		return s.giveUp(frames)
	}
	if s.inflight > 0 {
		s.reap()
	}
	taken := s.enqueue(frames)
	s.kick()
	if taken < len(frames) && s.State() == StateUp {
		taken += s.enqueue(frames[taken:]) // the kick has made room
		s.kick()
	}
	if taken < len(frames) {
		bump(&s.count.txRingFull, uint64(len(frames)-taken))
	}
	return taken
}

// revive asks the kernel again after a failure. The frames of the failed kick
// are still on the ring; if they are not, the kernel has sent them while we
// waited for input (net/xdp/xsk.c, xsk_poll), and the device works.
func (s *Socket) revive() bool {
	if s.State() == StateGone {
		return false
	}
	if s.tx.pending() == 0 {
		s.setState(StateUp)
	}
	s.kick()
	return s.State() == StateUp
}

// giveUp takes the frames and frees them.
func (s *Socket) giveUp(frames []frame.Frame) int {
	for i := range frames {
		s.pool.FreeFrame(&frames[i])
	}
	bump(&s.count.txLinkDown, uint64(len(frames)))
	return len(frames)
}

// enqueue puts frames on the ring in order until one does not fit, and returns
// how many it took.
func (s *Socket) enqueue(frames []frame.Frame) int {
	room := int(s.tx.room())
	start := s.tx.next
	taken := 0
	for i := range frames {
		f := &frames[i]
		segments := 1 + len(f.Rest)
		if segments > room && segments <= frame.MaxSegments {
			break
		}
		taken++
		if !s.sendable(f) {
			s.pool.FreeFrame(f)
			bump(&s.count.txInvalid, 1)
			continue
		}
		s.putFrame(f)
		room -= segments
	}
	if put := s.tx.next - start; put > 0 {
		s.tx.publish()
		s.inflight += put
	}
	return taken
}

// etherLen is the least a driver must be given: struct ethhdr.
const etherLen = 14

// sendable reports whether the kernel would accept the frame's descriptors. One
// that it does not may block the ring for good.
func (s *Socket) sendable(f *frame.Frame) bool {
	if f.Len < etherLen || !s.inChunk(f.Addr, f.Len) {
		return false
	}
	if len(f.Rest) == 0 {
		return true
	}
	if !s.class.sg || len(f.Rest) >= frame.MaxSegments {
		return false
	}
	for i := range f.Rest {
		if f.Rest[i].Len == 0 || !s.inChunk(f.Rest[i].Addr, f.Rest[i].Len) {
			return false
		}
	}
	return true
}

// inChunk reports whether n bytes at addr and the metadata's room in front of
// them are in one chunk (net/xdp/xsk_queue.h, xp_aligned_validate_desc).
func (s *Socket) inChunk(addr uint64, n uint32) bool {
	return s.pool.HeadroomOf(addr) >= 0 && int(n) <= s.pool.TailroomOf(addr)
}

// putFrame gives the frame's chunks to the kernel.
func (s *Socket) putFrame(f *frame.Frame) {
	options := uint32(0)
	if f.Flags&frame.CsumPartial != 0 {
		options = s.settleChecksum(f)
	}
	if len(f.Rest) > 0 {
		options |= unix.XDP_PKT_CONTD
	}
	s.pool.Give(f.Addr, s.owner)
	s.tx.put(f.Addr, f.Len, options)
	for i := range f.Rest {
		options = unix.XDP_PKT_CONTD
		if i == len(f.Rest)-1 {
			options = 0
		}
		s.pool.Give(f.Rest[i].Addr, s.owner)
		s.tx.put(f.Rest[i].Addr, f.Rest[i].Len, options)
	}
}

// reap frees the chunks that the kernel is done with sending.
func (s *Socket) reap() {
	n := s.comp.ready()
	if n == 0 {
		return
	}
	for i := range n {
		if addr := s.comp.at(i); s.pool.Take(addr, s.owner) {
			s.pool.Free(addr)
		}
	}
	s.comp.release(n)
	s.inflight -= n
}

// maxStalls is how often kick asks again when the kernel took nothing.
const maxStalls = 4

// kick makes the kernel look at the transmit ring. In copy mode the system call
// sends the frames there and then, a limited number each time, and says with
// its error what became of them (net/xdp/xsk.c, __xsk_generic_xmit). What is
// left after a bounded number of tries stays on the ring for the next kick.
func (s *Socket) kick() {
	if s.class.zeroCopy {
		s.kickDriver()
		return
	}
	pending := s.tx.pending()
	stalls := 0
	for tries := pending + maxStalls; pending > 0 && tries > 0; tries-- {
		errno := s.wake()
		left := s.tx.pending()
		switch errno {
		case 0:
			if left == pending {
				// The queue is beyond the device's present number of
				// queues: the call succeeds and does nothing.
				s.setState(StateDown)
				return
			}
		case unix.EAGAIN, unix.EINTR:
			// The call's budget, the completion ring or the send buffer is
			// used up, or the receiver's queue is full.
			s.reap()
			if left == pending {
				if stalls++; stalls > maxStalls {
					return
				}
			}
		case unix.EBUSY:
			// One frame was taken and dropped by the device. The consumer
			// index may show that only after the next call.
			bump(&s.count.txRefused, 1)
		default:
			s.fail(errno)
			return
		}
		s.setState(StateUp)
		pending = left
	}
}

// kickDriver wakes a zero-copy driver that asked for it.
func (s *Socket) kickDriver() {
	if s.tx.pending() == 0 || !s.tx.needWakeup() {
		return
	}
	switch errno := s.wake(); errno {
	case 0, unix.EAGAIN, unix.EBUSY, unix.EINTR:
		s.setState(StateUp)
	default:
		s.fail(errno)
	}
}

// wake is sendto(fd, NULL, 0, MSG_DONTWAIT), which waits for nothing. The Go scheduler is
// not told of it, as in psock, whose monitor would look after it every 20 µs; when Go
// stops the world it waits for the call, some 100 µs for a burst.
func (s *Socket) wake() unix.Errno {
	bump(&s.count.wakeups, 1)
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// fail notes an error that trying again at once cannot mend.
func (s *Socket) fail(errno unix.Errno) {
	switch errno {
	case unix.ENETDOWN:
		s.setState(StateDown)
	case unix.ENXIO, unix.ENODEV:
		s.setState(StateGone)
	default:
		bump(&s.count.txErrors, 1)
	}
}

// setState notes what a send found, without touching the shared word when
// nothing changed. Gone is final.
func (s *Socket) setState(state State) {
	if now := s.State(); now != state && now != StateGone {
		s.state.Store(uint32(state))
	}
}
