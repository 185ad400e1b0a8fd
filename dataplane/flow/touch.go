package flow

import "culvert/internal/packet"

// clockSkew is by how many seconds the clocks of workers may differ.
const clockSkew = 2

// stepOther is the control word after one more packet of any protocol but TCP and
// SCTP.
func stepOther(c control, dir Direction, now uint32) control {
	switch c.kind() {
	case kindUDP, kindGeneric:
		// nf_conntrack_udp_packet. Linux has no assured state for protocols it
		// does not know; here they get it like UDP, since without it a flood of
		// beginnings would evict them.
		if c&ctlReplied != 0 && (c&ctlAssured != 0 || c.age(now) > udpStreamAfter) {
			c |= ctlAssured
		}
	}
	timeout := c.timeout()
	state := Unreplied
	c = c.replied(dir)
	switch {
	case c&ctlAssured != 0:
		state = Assured
	case c&ctlReplied != 0:
		state = Replied
	}
	return c.with(state, now+timeout)
}

// Touch asks whether a packet, or a big frame that stands for several, belongs to
// the flow. If so it accounts for it and moves the flow's state and expiry along;
// if it is Invalid it must be dropped. info is that of the packet; l4 its bytes
// from the transport header to the packet's end, as far as they are in the first
// chunk, all TCP options included. Only flows of TCP and SCTP look at l4; it is
// empty for a fragment without that header. bytes and packets are what the frame
// is on a wire. now is in seconds.
//
// Any worker that holds the entry may call it; calls for one flow may overlap.
// When they overlap for one direction the counts of one may be lost: counting
// with a locked instruction would cost more than all the rest.
func (e *Entry) Touch(dir Direction, info *packet.Info, l4 []byte, bytes, packets, now uint32) Result {
	c := control(e.ctl.Load())
	switch c & steadyMask {
	case steadyUDP | control(now+timeoutUDPStream):
	case steadyTCP | control(now+tcpEstablished):
		if e.glide(c, dir, info, l4, bytes, packets) {
			return Pass
		}
		fallthrough
	default:
		if e.step(c, dir, info, l4, now) == Invalid {
			return Invalid
		}
	}
	n := &e.counts[dir&1]
	add(&n.packets, uint64(packets))
	add(&n.bytes, uint64(bytes))
	return Pass
}

// Warm asks memory for what Touch will look at, so that a burst's cache misses
// overlap: call it for every flow of a burst before the first Touch. The result is
// of no use; keep it where the compiler cannot see that. tcp is for flows of TCP
// and SCTP.
func (e *Entry) Warm(tcp bool) uint32 {
	ctl := uint32(e.ctl.Load())
	if !tcp {
		return ctl
	}
	return ctl ^ load32(&e.window()[Original].meta)
}

// What a control word is, for nearly all packets: that of an assured flow that
// had another packet in the same second.
const (
	steadyMask = ctlExpiry | ctlState | ctlKind | ctlReplied | ctlAssured | ctlDead
	steadyTCP  = control(kindTCP)<<kindShift | control(Established)<<stateShift | ctlReplied | ctlAssured
	steadyUDP  = control(kindUDP)<<kindShift | control(Assured)<<stateShift | ctlReplied | ctlAssured
)

// step takes a packet through the state machine. c is the control word as it was
// a moment ago.
func (e *Entry) step(c control, dir Direction, info *packet.Info, l4 []byte, now uint32) Result {
	for {
		next, result := c, Pass
		switch kind := c.kind(); {
		case c&ctlDead != 0: // counts that nobody reads
			return Pass
		case kind == kindTCP:
			next, result = e.stepTCP(c, dir, info, l4, now)
		case kind == kindSCTP:
			next, result = e.stepSCTP(c, dir, info, l4, now)
		default:
			next = stepOther(c, dir, now)
		}
		if (c^next)&^ctlExpiry == 0 && c.expiry()-next.expiry() <= clockSkew && next.expiry() != now {
			return result // the same second, or the clock of another worker is ahead of ours
		}
		if e.change(c, next) {
			return result
		}
		c = control(e.ctl.Load()) // the other direction was faster
	}
}

// stepTCP is the control word after a TCP segment. The window is stored at once:
// when the other direction changes the control word at the same moment, the
// segment is looked at once more, as one that came twice.
func (e *Entry) stepTCP(c control, dir Direction, info *packet.Info, l4 []byte, now uint32) (control, Result) {
	if !validFlags(info.TCPFlags) && info.L4 != 0 {
		return c, Invalid
	}
	if len(l4) < hdrLen || info.Flags&packet.Fragment != 0 {
		// Not the whole segment: what is acknowledged from now on is not known.
		next := c.replied(dir)&^ctlBrief | ctlLiberal
		if next&ctlReplied == 0 {
			next |= ctlBrief
		}
		return next.with(c.state(), now+next.timeout()), Pass
	}
	s := segmentOf(info, l4)
	was := e.loadTrack()
	t := was
	next, result := tcpStep(c, &t, dir, &s, now)
	e.storeTrack(&was, &t)
	return next, result
}

// stepSCTP is stepTCP's twin.
func (e *Entry) stepSCTP(c control, dir Direction, info *packet.Info, l4 []byte, now uint32) (control, Result) {
	if len(l4) < sctpHeader || info.Flags&packet.Fragment != 0 {
		return c.replied(dir).with(c.state(), now+c.timeout()), Pass
	}
	w := e.window()
	was := [2]uint32{load32(&w[Original].end), load32(&w[Reply].end)}
	tags := was
	next, result := sctpStep(c, &tags, dir, l4[:min(len(l4), int(info.L3)+int(info.L3Len)-int(info.L4))], now)
	update(&w[Original].end, was[Original], tags[Original])
	update(&w[Reply].end, was[Reply], tags[Reply])
	return next, result
}

// change stores next in place of c, unless another worker has stored something
// meanwhile. An entry whose lists may have to change goes on the list for the
// next holder of the mutex.
func (e *Entry) change(c, next control) bool {
	push := (c^next)&ctlLists != 0 || int32(next.expiry()-c.expiry()) < 0
	if push {
		next |= ctlQueued
	}
	if !e.ctl.CompareAndSwap(uint64(c), uint64(next)) {
		return false
	}
	if push && c&ctlQueued == 0 {
		e.push()
	}
	return true
}

// push puts the entry on the list of changed ones. Its queued bit was clear and
// the caller has set it, so nobody else does.
func (e *Entry) push() {
	head := &e.zero().changed
	for {
		first := head.Load()
		e.changed.Store(first)
		if head.CompareAndSwap(first, e.self) {
			return
		}
	}
}
