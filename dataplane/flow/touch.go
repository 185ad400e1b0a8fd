package flow

import "culvert/internal/packet"

// clockSkew is by how many seconds the clocks of workers may differ.
const clockSkew = 2

// step is the control word after one more packet.
func step(c control, dir Direction, tcpFlags uint8, now uint32) control {
	if c&ctlDead != 0 {
		return c
	}
	var next control
	if c.kind() == kindTCP {
		next = stepTCP(c, dir, tcpFlags, now)
	} else {
		next = stepOther(c, dir, now)
	}
	if (c^next)&ctlLists == 0 && c.expiry()-next.expiry() <= clockSkew && next.expiry() != now {
		return c // the same second, or the clock of another worker is ahead of ours
	}
	return next
}

// stepOther is step for all protocols but TCP.
func stepOther(c control, dir Direction, now uint32) control {
	switch c.kind() {
	case kindUDP, kindGeneric:
		// nf_conntrack_udp_packet. Linux has no assured state for protocols it
		// does not know, and one for SCTP by its chunks; here both get it like
		// UDP, since without it a flood of beginnings would evict them.
		if c&ctlReplied != 0 && (c&ctlAssured != 0 || c.age(now) > udpStreamAfter) {
			c |= ctlAssured
		}
	}
	timeout := c.timeout()
	state := Unreplied
	if dir == Reply {
		c |= ctlReplied
	}
	switch {
	case c&ctlAssured != 0:
		state = Assured
	case c&ctlReplied != 0:
		state = Replied
	}
	return c.with(state, now+timeout)
}

// Touch accounts for packets of one direction that were forwarded and moves the
// flow's state and expiry along. bytes is the sum over all packets; info is that
// of the first, they share their TCP flags. now is in seconds.
//
// Any worker that holds the entry may call it; calls for one flow may overlap.
// When they overlap for one direction the counts of one may be lost: counting
// with a locked instruction would cost more than all the rest.
func (e *Entry) Touch(dir Direction, info *packet.Info, bytes, packets, now uint32) {
	n := &e.counts[dir&1]
	add(&n.packets, uint64(packets))
	add(&n.bytes, uint64(bytes))
	if c := control(e.ctl.Load()); !c.steady(info.TCPFlags, now) {
		e.change(c, dir, info.TCPFlags, now)
	}
}

// What steady compares: all but the expiry and what it does not depend on.
const (
	steadyMask = ctlExpiry | ctlState | ctlKind | ctlReplied | ctlAssured | ctlDead
	steadyTCP  = control(kindTCP)<<kindShift | control(Established)<<stateShift | ctlReplied | ctlAssured
	steadyUDP  = control(kindUDP)<<kindShift | control(Assured)<<stateShift | ctlReplied | ctlAssured
)

// steady reports, for nearly all packets, that step would change nothing: an
// ACK, or a datagram, in an assured flow that had another in the same second.
func (c control) steady(tcpFlags uint8, now uint32) bool {
	c &= steadyMask
	return c == steadyTCP|control(now+tcpEstablished) && tcpFlags&(tcpFIN|tcpSYN|tcpRST|tcpACK) == tcpACK ||
		c == steadyUDP|control(now+timeoutUDPStream)
}

// change stores what the packet makes of c, or of the word that another worker
// has stored meanwhile. Entries whose lists may have to change go on the list
// for the next holder of the mutex.
func (e *Entry) change(c control, dir Direction, tcpFlags uint8, now uint32) {
	for {
		next := step(c, dir, tcpFlags, now)
		if next == c {
			return
		}
		push := (c^next)&ctlLists != 0 || int32(next.expiry()-c.expiry()) < 0
		if push {
			next |= ctlQueued
		}
		if e.ctl.CompareAndSwap(uint64(c), uint64(next)) {
			if push && c&ctlQueued == 0 {
				e.push()
			}
			return
		}
		c = control(e.ctl.Load())
	}
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
