package flow

import "math/bits"

// window is what a TCP flow's sequence numbers are checked against: what
// struct ip_ct_tcp holds beside the state (include/linux/netfilter/
// nf_conntrack_tcp.h), in half a cache line. For SCTP it holds the verification
// tags. Only packets of these two protocols touch it.
//
// It is read and written by plain loads and stores. A direction has one writer,
// the worker that its packets are steered to: packets of a direction change
// nothing but their own side, save in the few that open a connection or exceed
// its window. Of the other side a worker may read values that are a moment old.
// They are never too old for a packet: whoever answers to data, or fills a window,
// has seen the packet that said so, and that one was stored here before it was
// sent on. When the workers of both directions do write one word at a time, a
// value seen in the packet of one is lost: the next packet brings it again, or,
// in a handshake, the same segment sent again.
type window [2]side

// side is what one direction has said. Sequence numbers are absolute.
type side struct {
	end    uint32 // td_end: behind the last byte that it has sent
	maxack uint32 // td_maxack: the highest acknowledgment that it has sent
	edge   uint32 // the right edge it allows: td_maxend of the other direction
	meta   uint32 // see below
}

// The bits of meta.
//
//	 0–18  td_maxwin, the largest window that it has allowed: mantissa<<exponent,
//	       rounded up, with 15 and 4 bits. 0: no packet of this direction yet
//	19–22  td_scale of its windows; noScale if its SYN did not ask for scaling
//	23     it permits selective acknowledgments
//	24     maxack is known
//	25     turn: see lastDir
//	26–28  the event of its last packet
//	29–30  how often it has sent the same segment again
//	31     its last window was 0
const (
	mantissaBits = 15
	expShift     = 15
	scaleShift   = 19
	eventShift   = 26
	againShift   = 29

	metaMaxwin = 1<<scaleShift - 1
	metaScale  = 15 << scaleShift
	metaSACK   = 1 << 23
	metaAcked  = 1 << 24
	metaTurn   = 1 << 25
	metaEvent  = 7 << eventShift
	metaAgain  = 3 << againShift
	metaZero   = 1 << 31

	noScale  = 15
	maxScale = 14 // RFC 7323 2.3
)

// maxwin is the largest window in bytes, 0 if the direction has sent nothing.
func (s *side) maxwin() uint32 { return maxwinOf(s.meta) }

func maxwinOf(meta uint32) uint32 {
	return meta & (1<<mantissaBits - 1) << (meta >> expShift & 15)
}

// setMaxwin stores a window, rounded up by less than a sixteen-thousandth.
func (s *side) setMaxwin(n uint32) {
	exp := max(bits.Len32(n)-mantissaBits, 0)
	mantissa := n >> exp
	if mantissa<<exp != n {
		if mantissa++; mantissa == 1<<mantissaBits {
			mantissa, exp = mantissa>>1, exp+1
		}
	}
	if exp > 15 { // beyond 2^30, which no TCP can offer
		mantissa, exp = 1<<mantissaBits-1, 15
	}
	s.meta = s.meta&^metaMaxwin | mantissa | uint32(exp)<<expShift
}

// scale is the shift of the windows in segments without SYN.
func (s *side) scale() uint32 { return scaleOf(s.meta) }

func scaleOf(meta uint32) uint32 {
	if scale := meta >> scaleShift & 15; scale != noScale {
		return scale
	}
	return 0
}

// setScale stores what a SYN said, 0 to 14 or noScale.
func (s *side) setScale(scale uint32) { s.meta = s.meta&^metaScale | scale<<scaleShift }

func (s *side) scales() bool     { return s.meta&metaScale != noScale<<scaleShift }
func (s *side) event() tcpEvent  { return tcpEvent(s.meta >> eventShift & 7) }
func (s *side) again() uint32    { return s.meta >> againShift & 3 }
func (s *side) allowsSACK() bool { return s.meta&metaSACK != 0 }

// set sets or clears bits of meta.
func (s *side) set(mask uint32, on bool) {
	s.meta &^= mask
	if on {
		s.meta |= mask
	}
}

// lastDir is the direction of the last packet. Each direction has a bit of which
// it alone is the writer; a packet makes them equal in the original direction and
// different in the other.
func (w *window) lastDir() Direction {
	return Direction((w[Original].meta ^ w[Reply].meta) / metaTurn & 1)
}

// setLast notes the event of a packet, and that it was the last. How often the
// last bare ACK was repeated, and whether its window was 0, is known of the side
// that was last: it is handed over, until this side sends one.
func (w *window) setLast(dir Direction, ev tcpEvent) {
	s, other := &w[dir&1], w[dir.Other()&1].meta
	if w.lastDir() != dir && ev != evACK {
		const carried = metaAgain | metaZero
		s.meta = s.meta&^carried | other&carried
	}
	turn := other & metaTurn
	if dir == Reply {
		turn ^= metaTurn
	}
	s.meta = s.meta&^(metaEvent|metaTurn) | turn | uint32(ev)<<eventShift
}

// last is the event of the last packet, evNone in a new flow.
func (w *window) last() tcpEvent { return w[w.lastDir()&1].event() }

// blank is a window that has seen no packet.
func blank() window {
	const meta = noScale<<scaleShift | uint32(evNone)<<eventShift
	return window{{meta: meta}, {meta: meta}}
}

// unacked reports whether a direction has sent what the other one has not
// acknowledged (IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED).
func (w *window) unacked(dir Direction) bool {
	r := &w[dir.Other()&1]
	return r.meta&metaAcked != 0 && r.maxack != w[dir&1].end
}

// stalled reports whether an established connection is to be forgotten soon if
// nothing more comes: it waits for an acknowledgment or for a window, or sends
// the same again and again.
func (w *window) stalled() bool {
	s := &w[w.lastDir()&1]
	return s.again() >= tcpMaxRetrans || s.meta&metaZero != 0 || w.unacked(Original) || w.unacked(Reply)
}

// track is a copy of all that a TCP packet may change beside the control word:
// the transitions work on copies, and what they changed is stored.
type track struct {
	window
	// print is a digest of a direction's last segment with nothing but an ACK,
	// to recognise it when it comes again; or of the end of the segment that was
	// let through unchecked.
	print [2]uint16
}

func (e *Entry) loadTrack() (t track) {
	w := e.window()
	for d := range w {
		s := &w[d]
		t.window[d] = side{load32(&s.end), load32(&s.maxack), load32(&s.edge), load32(&s.meta)}
		t.print[d] = uint16(load(&e.counts[d].packets) >> printShift)
	}
	return t
}

// storeTrack stores what differs from was.
func (e *Entry) storeTrack(was, t *track) {
	w := e.window()
	for d := range w {
		s, old, is := &w[d], &was.window[d], &t.window[d]
		update(&s.end, old.end, is.end)
		update(&s.maxack, old.maxack, is.maxack)
		update(&s.edge, old.edge, is.edge)
		update(&s.meta, old.meta, is.meta)
		if t.print[d] != was.print[d] {
			n := &e.counts[d].packets
			store(n, load(n)&packetsMask|uint64(t.print[d])<<printShift)
		}
	}
}

func update(p *uint32, was, is uint32) {
	if was != is {
		store32(p, is)
	}
}

// clear makes the window of an entry that nobody can see a blank one.
func (w *window) clear() {
	b := blank()
	for d := range w {
		s := &w[d]
		store32(&s.end, 0)
		store32(&s.maxack, 0)
		store32(&s.edge, 0)
		store32(&s.meta, b[d].meta)
	}
}

// deadline is the second at which a flow with control word c is gone. An
// established connection that has stalled gets five minutes rather than five
// days: whether it has is asked here and not noted with each packet.
func (e *Entry) deadline(c control) uint32 {
	const relevant = ctlKind | ctlState | ctlReplied | ctlBrief
	if c&relevant == control(kindTCP)<<kindShift|control(Established)<<stateShift|ctlReplied {
		if t := e.loadTrack(); t.stalled() {
			return c.expiry() - (tcpEstablished - timeoutUnacked)
		}
	}
	return c.expiry()
}

// look is the second at which to look at a flow again: at its deadline, or when
// it may have come to stall.
func (e *Entry) look(c control, now uint32) uint32 {
	at := e.deadline(c)
	if c.kind() == kindTCP && int32(at-now) > timeoutUnacked {
		return now + timeoutUnacked
	}
	return at
}
