package flow

import "encoding/binary"

// The checks of tcp_in_window, which follow Guido van Rooij, "Real Stateful TCP
// Packet Filtering in IP Filter". For a segment from s to r:
//
//	I.   seq <= r.edge                   not beyond what r allows
//	II.  end >= s.end - r.maxwin         not before what r still takes
//	III. sack <= r.end                   it acknowledges what r has sent
//	IV.  sack >= r.end - maxAckWindow    and not long ago
//
// where sack is the highest sequence number that is acknowledged, selectively or not.

// maxAckWindow is MAXACKWINCONST.
const maxAckWindow = 66000

// verdict of check.
type verdict uint8

const (
	inWindow verdict = iota
	stray            // to be let through: it does no harm, the receiver ignores it
	outOfWindow
)

// begin notes a flow's first segment: tcp_new.
func (t *track) begin(c control, dir Direction, s *segment) control {
	from, to := &t.window[dir&1], &t.window[dir.Other()&1]
	from.end = s.end
	from.setMaxwin(max(s.win, 1))
	to.edge = s.end
	if s.ev == evSYN {
		from.readOptions(s.options)
		return c
	}
	to.edge += from.maxwin()
	from.set(metaSACK, true)
	to.set(metaSACK, true)
	return c | ctlLiberal
}

// follow notes a segment of a flow that was picked up in the middle, whose windows
// are not known: only what it has sent and acknowledged.
func (t *track) follow(dir Direction, p *segment) {
	s := &t.window[dir&1]
	if s.maxwin() == 0 {
		s.end = p.end
		s.setMaxwin(max(p.win, 1))
	} else if after(p.end, s.end) {
		s.end = p.end
	}
	if p.flags&tcpACK != 0 && p.flags&tcpRST == 0 && (s.meta&metaAcked == 0 || after(p.ack, s.maxack)) {
		s.maxack = p.ack
		s.set(metaAcked, true)
	}
	t.repeat(dir, p)
}

// adopt makes the SYN of direction from, which was let through unchecked and ends
// at end, the flow's beginning.
func (t *track) adopt(c control, from Direction, end uint32) {
	t.window[from.Other()&1] = side{meta: blank()[0].meta, edge: end}
	w := side{end: end, meta: blank()[0].meta}
	w.setMaxwin(0xffff) // its own was not kept: it only sets how old a segment may be
	w.setScale(uint32(c >> synScaleShift & 15))
	w.set(metaSACK, c&ctlSYNSACK != 0)
	t.window[from&1] = w
	t.setLast(from, evSYN)
}

// initSender notes a side's SYN: tcp_init_sender.
func (t *track) initSender(dir Direction, s *segment) {
	from, to := &t.window[dir&1], &t.window[dir.Other()&1]
	from.end, to.edge = s.end, s.end
	from.setMaxwin(max(s.win, 1))
	from.readOptions(s.options)
	// Windows are scaled only if both sides ask for it (RFC 7323 2.2).
	if to.maxwin() != 0 && !(from.scales() && to.scales()) {
		from.setScale(noScale)
		to.setScale(noScale)
	}
}

// check decides whether a segment is in its window, and if so moves the window.
func (t *track) check(state State, dir Direction, p *segment) verdict {
	s, r := &t.window[dir&1], &t.window[dir.Other()&1]
	seq, ack, end := p.seq, p.ack, p.end
	sack := ack
	if r.allowsSACK() {
		sack = highestSACK(p.options, ack)
	}
	switch {
	case s.maxwin() == 0 && p.flags&tcpSYN != 0,
		p.flags&tcpSYN != 0 && after(end, s.end) && (state == sSS || state == sSR):
		first := s.maxwin() == 0
		t.initSender(dir, p)
		if p.flags&tcpACK == 0 && (first || dir == Reply) {
			return inWindow // both open at once
		}
	case s.maxwin() == 0:
		t.join(dir, p, sack)
	}
	if p.flags&tcpACK == 0 || p.flags&tcpRST != 0 && ack == 0 {
		ack, sack = r.end, r.end // no acknowledgment, or that of a broken TCP
	}
	if p.flags&tcpRST != 0 && seq == 0 && state == sSS {
		seq, end = s.end, s.end // the refusal of a SYN
	}
	inRecv := r.maxwin() == 0 || after(end, s.end-r.maxwin()-1)
	fresh := after(sack, r.end-max(s.maxwin(), maxAckWindow)-1)
	seen := before(sack, r.end+1)
	switch {
	case !before(seq, r.edge+1):
		if r.maxwin() != 0 && inRecv && fresh && seen && end-r.edge+1 <= r.maxwin() {
			// More than the receiver allowed, but if it takes it, its
			// acknowledgment must not seem to be of what was never sent.
			s.end = end
			return stray
		}
		return outOfWindow
	case !seen:
		return outOfWindow
	case !inRecv, !fresh: // sent again, or overtaken
		return stray
	}
	t.move(dir, p, ack, sack, end)
	return inWindow
}

// join notes a side's first segment in a connection that is under way.
func (t *track) join(dir Direction, p *segment, sack uint32) {
	s, r := &t.window[dir&1], &t.window[dir.Other()&1]
	s.end = p.end
	s.setMaxwin(max(p.win<<s.scale(), 1))
	r.edge = p.end + s.maxwin()
	switch {
	case r.maxwin() == 0:
		r.end, s.edge = sack, sack
	case sack == r.end+1:
		r.end++ // the answer to a keep-alive
	}
}

// move notes a segment in the window.
func (t *track) move(dir Direction, p *segment, ack, sack, end uint32) {
	s, r := &t.window[dir&1], &t.window[dir.Other()&1]
	win := p.win
	if p.flags&tcpSYN == 0 {
		win <<= s.scale()
	}
	if wide := win + (sack - ack); s.maxwin() < wide {
		s.setMaxwin(wide)
	}
	if after(end, s.end) {
		s.end = end
	}
	if p.flags&tcpACK != 0 && (s.meta&metaAcked == 0 || after(ack, s.maxack)) {
		s.maxack = ack
		s.set(metaAcked, true)
	}
	if r.maxwin() != 0 && after(end, r.edge) {
		r.setMaxwin(r.maxwin() + end - r.edge)
	}
	if after(sack+win, s.edge-1) {
		s.edge = sack + max(win, 1)
	}
	t.repeat(dir, p)
}

// repeat counts how often a side sends the same segment.
func (t *track) repeat(dir Direction, p *segment) {
	if p.ev != evACK {
		return
	}
	s := &t.window[dir&1]
	again, print := uint32(0), p.print()
	if t.lastDir() == dir && t.print[dir&1] == print {
		again = min(s.again()+1, tcpMaxRetrans)
	}
	t.print[dir&1] = print
	s.meta = s.meta&^metaAgain | again<<againShift
	s.set(metaZero, p.win == 0)
}

// TCP option kinds (RFC 9293 3.1, RFC 7323 2.2, RFC 2018 2 and 3).
const (
	optEnd       = 0
	optNop       = 1
	optScale     = 3
	optSACKAllow = 4
	optSACK      = 5
)

// nextOption is the first option of opts and what follows it; kind is optEnd at
// the end and before an option that is cut short.
func nextOption(opts []byte) (kind uint8, value, rest []byte) {
	for len(opts) > 0 && opts[0] == optNop {
		opts = opts[1:]
	}
	if len(opts) < 2 || opts[0] == optEnd || opts[1] < 2 || int(opts[1]) > len(opts) {
		return optEnd, nil, nil
	}
	return opts[0], opts[2:opts[1]], opts[opts[1]:]
}

// readOptions notes what a SYN says of its side: tcp_options. A SYN without any
// options says nothing.
func (s *side) readOptions(opts []byte) {
	if len(opts) == 0 {
		return
	}
	s.setScale(noScale)
	s.set(metaSACK, false)
	for {
		kind, value, rest := nextOption(opts)
		switch {
		case kind == optEnd:
			return
		case kind == optScale && len(value) == 1:
			s.setScale(min(uint32(value[0]), maxScale))
		case kind == optSACKAllow && len(value) == 0:
			s.set(metaSACK, true)
		}
		opts = rest
	}
}

// highestSACK is the highest sequence number that a segment acknowledges: tcp_sack.
func highestSACK(opts []byte, ack uint32) uint32 {
	for len(opts) > 0 {
		kind, value, rest := nextOption(opts)
		if kind == optEnd {
			break
		}
		if kind == optSACK && len(value) > 0 && len(value)%8 == 0 {
			for ; len(value) > 0; value = value[8:] {
				if right := binary.BigEndian.Uint32(value[4:]); after(right, ack) {
					ack = right
				}
			}
			return ack
		}
		opts = rest
	}
	return ack
}
