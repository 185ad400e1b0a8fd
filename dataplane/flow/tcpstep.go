package flow

import (
	"encoding/binary"

	"culvert/internal/packet"
)

// Result says what to do with a packet.
type Result uint8

const (
	// Pass: it belongs to the flow, or cannot be told from one that does.
	Pass Result = iota
	// Invalid: it does not belong to the flow. It has changed nothing, and is to
	// be dropped, as what Linux calls INVALID is by kube-proxy.
	Invalid
)

// segment is a TCP segment, or a big frame that stands for several.
type segment struct {
	seq, ack, end uint32 // end: seq and the length in sequence numbers
	win           uint32 // not scaled
	flags         uint8
	ev            tcpEvent
	options       []byte
}

// Offsets in the TCP header.
const (
	seqAt  = 4
	ackAt  = 8
	winAt  = 14
	hdrLen = packet.TCPLen
)

// segmentOf reads a segment: l4 begins with its TCP header, options included.
func segmentOf(info *packet.Info, l4 []byte) (s segment) {
	s.seq = binary.BigEndian.Uint32(l4[seqAt:])
	s.ack = binary.BigEndian.Uint32(l4[ackAt:])
	s.win = uint32(binary.BigEndian.Uint16(l4[winAt:]))
	s.flags = info.TCPFlags
	s.ev = tcpEvents[s.flags&31]
	s.end = s.seq + uint32(info.PayloadLen()) + uint32(s.flags>>1&1) + uint32(s.flags&1)
	if n := int(info.Payload - info.L4); n > hdrLen && n <= len(l4) {
		s.options = l4[hdrLen:n]
	}
	return s
}

// print is a digest of a segment: the same for the same segment again.
func (s *segment) print() uint16 { return printOf(s.seq, s.ack, s.end, s.win) }

func printOf(seq, ack, end, win uint32) uint16 {
	return uint16((seq*0xb5297a4d + ack*0x9e3779b1 + end*0x85ebca6b + win*0xc2b2ae35) >> 16)
}

// endPrint is what stands for the end of a segment that was let through unchecked.
// It is not what stands there in the beginning.
func endPrint(end uint32) uint16 { return uint16(end*0x9e3779b1>>16) | 1 }

// before and after compare sequence numbers.
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }

// tcpStep is the control word after a segment whose flags are valid. It changes t
// accordingly.
func tcpStep(c control, t *track, dir Direction, s *segment, now uint32) (control, Result) {
	was := c.state()
	next := tcpNext[dir&1][s.ev&7][was&15]
	lastDir, last := t.lastDir(), t.last()
	switch {
	case next == sIV && was == sNO:
		// Another worker has added the flow and is about to tell it how it began.
		return c.replied(dir), Pass
	case (was == sTW || was == sCL) && s.ev == evSYN && (next == sSS || next == sS2 || c&ctlLiberal != 0):
		if c&(ctlCloseInit|ctlLiberal) == 0 && !(lastDir == dir && last == evRST) {
			return tcpIgnore(c, t, dir, s), Pass
		}
		// A new connection with the ports of the old one: RFC 9293 3.6.1.
		c &^= ctlReplied | ctlAssured | ctlOwn
		t.window, was, next = blank(), sNO, sSS
		if dir == Reply {
			next = sS2
		}
	case next == sIG && s.ev == evSYNACK && last == evLooseSYN && lastDir != dir && t.print[lastDir&1] == endPrint(s.ack):
		// It acknowledges a SYN that was let through unchecked: the two ends
		// have begun anew without our noticing.
		t.adopt(c, lastDir, s.ack)
		c &^= ctlChallenge | ctlLiberal
		was, next = sSS, sSR
	case next == sIG, next == sIV && c&ctlLiberal != 0:
		return tcpIgnore(c, t, dir, s), Pass
	case next == sIV:
		return c, Invalid
	case next == sTW && was == sLA && s.ev == evACK && lastDir != dir && last == evLooseSYN && c&ctlChallenge != 0:
		return (c &^ ctlChallenge).replied(dir), Pass // RFC 5961 4.2
	case next == sSR && dir == Reply && s.ev == evACK && c&ctlBoth != 0:
		next = sES
	case next == sCL && s.ev == evRST:
		verdict := rstVerdict(c, t, dir, s)
		switch verdict {
		case rstInvalid:
			return c, Invalid
		case rstBelieved:
			return tcpAccept(c, t, dir, s, was, next, now), Pass
		case rstDoubted:
			next = was
		}
	}
	if next == sS2 {
		c |= ctlBoth
	}
	if was == sNO {
		c = t.begin(c, dir, s)
	}
	if c&ctlLiberal != 0 {
		t.follow(dir, s)
		return tcpAccept(c, t, dir, s, was, next, now), Pass
	}
	switch t.check(c.state(), dir, s) {
	case stray:
		return c.replied(dir), Pass
	case outOfWindow:
		return tcpInvalid(c, t, dir, s, now), Invalid
	}
	return tcpAccept(c, t, dir, s, was, next, now), Pass
}

// replied is c after a packet of that direction that was let through.
func (c control) replied(dir Direction) control {
	if dir == Reply {
		c |= ctlReplied
	}
	return c
}

// tcpIgnore is the control word after a segment that may be valid or not: only
// the receiver knows, and its answer will tell.
func tcpIgnore(c control, t *track, dir Direction, s *segment) control {
	t.setLast(dir, s.ev.loose())
	t.print[dir&1] = endPrint(s.end)
	t.window[dir&1].set(metaZero, s.win == 0)
	switch {
	case s.ev == evSYN:
		var said side
		said.readOptions(s.options)
		c = c&^(ctlSYNSACK|ctlSYNScale) | control(said.meta>>scaleShift&15)<<synScaleShift
		if said.allowsSACK() {
			c |= ctlSYNSACK
		}
		if c.state() == sLA {
			c |= ctlChallenge
		}
	case s.ev == evACK && dir == Reply && c.state() == sSS:
		// The answer to a half-open connection: a reset will cite it. Nothing
		// else is known yet of what this direction acknowledged.
		t.window[Reply].maxack = s.ack
	}
	return c.replied(dir)
}

// tcpInvalid is the control word after a segment out of the window. When both
// sides end a connection in ways that seem wrong it is we who are, and the flow
// is not to stay for days: nf_tcp_handle_invalid.
func tcpInvalid(c control, t *track, dir Direction, s *segment, now uint32) control {
	if c&ctlAssured == 0 || s.ev != evRST && s.ev != evFIN {
		return c
	}
	if last := t.last(); t.lastDir() == dir || last != evFIN && last != evRST {
		t.setLast(dir, s.ev)
		return c
	}
	if int32(c.expiry()-now) > timeoutUnacked {
		return c.with(c.state(), now+timeoutUnacked) | ctlBrief
	}
	return c
}

// tcpAccept is the control word after a segment in the window.
func tcpAccept(c control, t *track, dir Direction, s *segment, was, next State, now uint32) control {
	t.setLast(dir, s.ev)
	if next == sFW && was != sFW {
		c |= ctlCloseInit
	}
	replied := c&ctlReplied != 0 // before this packet
	timeout := tcpTimeouts[next&31]
	c &^= ctlBrief
	if s.ev == evRST && timeout > tcpTimeouts[sCL] {
		timeout = tcpTimeouts[sCL]
		c |= ctlBrief
	}
	switch {
	case replied:
		if next == sES && (was == sSR || was == sES) {
			c |= ctlAssured
		}
	case s.ev == evRST:
		timeout = 0 // the only answer is a refusal: nothing to remember
	case s.ev == evSYN && was == sSS:
		timeout = c.expiry() - now // a retransmission does not keep the flow alive
	case next == sES:
		timeout = min(timeout, timeoutUnacked)
		c |= ctlBrief
	}
	return c.replied(dir).with(next, now+timeout)
}

// What a reset is worth.
type rstWorth uint8

const (
	rstPlausible rstWorth = iota // if it is in the window
	rstBelieved
	rstDoubted // it may be answered by a challenge ACK (RFC 5961 3.2)
	rstInvalid
)

// rstVerdict judges a reset before its window is checked.
func rstVerdict(c control, t *track, dir Direction, s *segment) rstWorth {
	was := c.state()
	switch was {
	case sFW, sCW, sLA, sTW, sCL:
		return rstBelieved // the ports may be in use again, with other numbers
	}
	r := &t.window[dir.Other()&1]
	lastDir, last := t.lastDir(), t.last()
	worth := rstPlausible
	if r.meta&metaAcked != 0 && last != evSYN && last != evLooseSYN {
		established := was == sES && c&ctlAssured != 0
		switch {
		case s.seq == 0 && !established:
			return rstPlausible
		case before(s.seq, r.maxack):
			return rstInvalid
		case !established, s.seq == r.maxack:
			return rstPlausible
		case last == evACK && lastDir == dir && s.seq == t.window[dir&1].end:
			return rstPlausible // it follows the data before it
		}
		worth = rstDoubted
	}
	// The answer to a SYN or ACK that was let through unchecked, or to an ACK of
	// a connection that was picked up.
	loose := last == evLooseSYN && c&ctlReplied != 0 || last == evLooseACK && c&ctlAssured == 0
	if loose && t.print[lastDir&1] == endPrint(s.ack) ||
		last == evACK && c&ctlAssured == 0 && t.window[lastDir&1].end == s.ack {
		return rstBelieved
	}
	if was == sSS && last == evLooseACK && lastDir == Reply && s.seq == t.window[Reply].maxack {
		return rstBelieved
	}
	return worth
}
