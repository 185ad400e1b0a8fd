package intake

import "sync/atomic"

// A pod that floods costs itself only. The ring and the socket of a queue hold the
// frames of all ports; one that sends faster than the worker takes would fill them,
// and what others send would be lost. So each port may have a part of the room and
// no more: what is beyond that the programs drop, and count at the port.
//
// How much of the room a port's frames occupy at a time nobody counts: frames are
// lost in between, and what is not given back would never be. Instead the worker
// divides time into turns, and in each turn a port gets its share once. A turn ends
//
//   - when the worker has found nothing left to receive: the room is free;
//   - or when it has received as much since the turn began as there is room: all
//     that was there is gone, what is left came in this turn, and in the next one
//     comes that much again at most.
//
// So a port occupies two shares at the very most, and mostly one: while it is
// refused, the worker catches up, and finds nothing left.
//
// The share is three quarters of the room: the rest is for those who send little,
// and a burst of a pod that is alone has nearly all. When several ports were refused
// in a turn, they divide the three quarters in the next one. No turn lasts for want
// of frames: that a port is refused the programs count in "full", and the worker,
// who finds nothing left, sees that somebody waits.
//
// Big frames are not shared in turns. They are TCP's nearly always, which sends what
// its windows allow and no more: the packet socket has room for that. In turns a
// port that keeps the worker busy is refused while the socket has room, since what was
// received meanwhile counts as well; TCP takes that for congestion, and with eight
// connections over an MTU-sized wire it sent a hundred thousand segments again.

// share is how one ring's room is shared. It is the worker's; what it points to is
// shared with the programs.
type share struct {
	full         *uint32
	number, most *uint32
	all, size    uint32 // the room that there can be, and is: descriptors
	seen         uint32 // of full, when the turn began
	got          uint32 // how much was received in this turn
}

// init begins the first turn.
func (s *share) init(c *intakeCounter, size int) {
	s.full = &c.Full
	s.number, s.most = &c.Turn.Number, &c.Turn.Most
	s.all, s.size = uint32(size), uint32(size)
	s.next(atomic.LoadUint32(s.full))
}

// resize follows the number of chunks that the ring may have: what finds none is
// lost as if the ring were full.
func (s *share) resize(chunks int) {
	s.size = min(uint32(chunks), s.all)
	s.next(atomic.LoadUint32(s.full))
}

// spare is the part of the room, one in so many, that must have been received for a
// turn to end because nothing is left: programs pay for each turn with a miss of
// their cache.
const spare = 16

// look notes that so much was received, and whether there is no more.
func (s *share) look(n int, none bool) {
	s.got += uint32(n)
	full := atomic.LoadUint32(s.full)
	if none && (full != s.seen || s.got >= s.size/spare) || s.got >= s.size {
		s.next(full)
	}
}

// mostRefused bounds by how many ports a share is made smaller.
const mostRefused = 64

// next begins a turn, when full says that in the last one so many ports were refused.
func (s *share) next(full uint32) {
	refused := min(max(full-s.seen, 1), mostRefused)
	s.seen, s.got = full, 0
	atomic.StoreUint32(s.most, (s.size-s.size/4)/refused)
	atomic.StoreUint32(s.number, *s.number+1)
}
