package flow

import (
	"encoding/binary"
	"math/bits"
)

// modelSide is struct ip_ct_tcp_state, in words of full size.
type modelSide struct {
	end, maxend, maxwin, maxack uint32
	scale                       uint32
	scales, sack, acked         bool
}

// modelTCP is struct ip_ct_tcp and what nf_conntrack knows beside it.
type modelTCP struct {
	side                   [2]modelSide
	state                  State
	replied, assured       bool
	liberal, closing, both bool
	challenge              bool
	last                   tcpEvent
	lastDir                Direction
	lastLoose              bool         // it was let through unchecked
	zero                   bool         // the window of the last bare ACK, of either side
	again                  int          // how often it came before
	bare                   [2][4]uint32 // each side's last bare ACK: seq, ack, end, window
	loose                  [2]uint32    // the end of its last segment that was let through unchecked
	wasLoose               [2]bool
	halfAck                uint32 // what the answer to a half-open connection acknowledged
	synScale               uint32
	synScales, synSACK     bool
	expiry                 uint32 // as if it had not stalled
	brief                  bool
}

func newModelTCP(now uint32) *modelTCP { return &modelTCP{last: evNone, expiry: now + 10} }

// modelSegment is a TCP header read in the plainest way.
type modelSegment struct {
	seq, ack, end, win  uint32
	flags               uint8
	ev                  tcpEvent
	sackTo              uint32
	hasSACK             bool
	anyOption           bool
	scale               uint32
	scales, sackAllowed bool
}

func readSegment(h []byte, payload int) (s modelSegment) {
	s.seq, s.ack = binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	s.win, s.flags = uint32(h[14])<<8|uint32(h[15]), h[13]
	s.ev = tcpEvents[s.flags&31]
	s.end = s.seq + uint32(payload)
	if s.flags&tcpSYN != 0 {
		s.end++
	}
	if s.flags&tcpFIN != 0 {
		s.end++
	}
	o := h[20:]
	s.anyOption = len(o) > 0
	for i := 0; i < len(o); {
		if o[i] == 0 {
			break
		}
		if o[i] == 1 {
			i++
			continue
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			break
		}
		v := o[i+2 : i+int(o[i+1])]
		switch {
		case o[i] == 3 && len(v) == 1:
			s.scales, s.scale = true, min(uint32(v[0]), 14)
		case o[i] == 4 && len(v) == 0:
			s.sackAllowed = true
		case o[i] == 5 && len(v) > 0 && len(v)%8 == 0 && !s.hasSACK:
			s.hasSACK, s.sackTo = true, s.ack
			for j := 4; j < len(v); j += 8 {
				if to := binary.BigEndian.Uint32(v[j:]); int32(to-s.sackTo) > 0 {
					s.sackTo = to
				}
			}
		}
		i += int(o[i+1])
	}
	return s
}

// widen is the one thing in which windows are not exact: 15 binary digits, rounded up.
func widen(n uint32) uint32 {
	unit := uint32(1) << max(bits.Len32(n)-15, 0)
	return (n + unit - 1) / unit * unit
}

func (m *modelTCP) note(dir Direction, ev tcpEvent, loose bool) {
	m.last, m.lastDir, m.lastLoose = ev, dir, loose
}

// stalled is whether an established connection is to be gone after five minutes.
func (m *modelTCP) stalled() bool {
	open := func(d int) bool { return m.side[1-d].acked && m.side[1-d].maxack != m.side[d].end }
	return m.again >= 3 || m.zero || open(0) || open(1)
}

func (m *modelTCP) deadline() uint32 {
	if m.state == Established && m.replied && !m.brief && m.stalled() {
		return m.expiry - 432000 + 300
	}
	return m.expiry
}

// packet is nf_conntrack_tcp_packet with what Culvert does otherwise: see tcp.go.
func (m *modelTCP) packet(dir Direction, s modelSegment, now uint32) Result {
	switch s.flags & 0x37 {
	case 0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30:
	default:
		return Invalid
	}
	r := m.move(dir, s, now)
	if r == Pass && dir == Reply {
		m.replied = true
	}
	return r
}

func (m *modelTCP) move(dir Direction, s modelSegment, now uint32) Result {
	was := m.state
	next := kernelNext(dir, s.ev, was)
	other := dir.Other()
	begins := was == None
	if begins && next == sIV {
		return Pass
	}
	if (was == TimeWait || was == Close) && s.ev == evSYN && (next != sIV || m.liberal) {
		if !m.closing && !m.liberal && !(m.lastDir == dir && m.last == evRST) {
			m.ignore(dir, s)
			return Pass
		}
		*m = modelTCP{last: evNone, expiry: m.expiry, state: was, bare: m.bare, loose: m.loose, wasLoose: m.wasLoose}
		begins, was, next = true, None, SynSent
		if dir == Reply {
			next = SynSent2
		}
	} else if next == sIG && s.ev == evSYNACK && m.last == evSYN && m.lastDir != dir && m.lastLoose && m.loose[m.lastDir] == s.ack {
		m.side[other] = modelSide{end: s.ack, maxend: s.ack, maxwin: widen(65535), scale: m.synScale, scales: m.synScales, sack: m.synSACK}
		m.side[dir] = modelSide{}
		m.note(other, evSYN, false)
		m.challenge, m.liberal = false, false
		was, next = SynSent, SynRecv
	} else if next == sIG || next == sIV && m.liberal {
		m.ignore(dir, s)
		return Pass
	} else if next == sIV {
		return Invalid
	} else if was == LastAck && next == TimeWait && s.ev == evACK && m.lastDir != dir && m.last == evSYN && m.lastLoose && m.challenge {
		m.challenge = false
		return Pass
	} else if next == SynRecv && dir == Reply && s.ev == evACK && m.both {
		next = Established
	} else if next == Close && s.ev == evRST {
		switch m.reset(dir, s) {
		case rstInvalid:
			return Invalid
		case rstBelieved:
			m.accept(dir, s, was, next, now)
			return Pass
		case rstDoubted:
			next = was
		}
	}
	if next == SynSent2 {
		m.both = true
	}
	if begins {
		me, it := &m.side[dir], &m.side[other]
		me.end, me.maxwin, me.maxend = s.end, widen(max(s.win, 1)), s.end
		if s.ev == evSYN {
			m.options(dir, s)
		} else {
			me.maxend += me.maxwin
			me.sack, it.sack, m.liberal = true, true, true
		}
	}
	if m.liberal {
		me := &m.side[dir]
		if me.maxwin == 0 {
			me.end, me.maxwin = s.end, widen(max(s.win, 1))
		} else if int32(s.end-me.end) > 0 {
			me.end = s.end
		}
		if s.flags&tcpACK != 0 && s.flags&tcpRST == 0 && (!me.acked || int32(s.ack-me.maxack) > 0) {
			me.acked, me.maxack = true, s.ack
		}
		m.repeat(dir, s.seq, s.ack, s.end, s)
	} else if v := m.window(dir, s); v == stray {
		return Pass
	} else if v == outOfWindow {
		if m.assured && (s.ev == evRST || s.ev == evFIN) {
			if m.lastDir != dir && (m.last == evFIN || m.last == evRST) {
				if int32(m.expiry-now) > 300 {
					m.expiry, m.brief = now+300, true
				}
			} else {
				m.note(dir, s.ev, false)
			}
		}
		return Invalid
	}
	m.accept(dir, s, was, next, now)
	return Pass
}

func (m *modelTCP) options(dir Direction, s modelSegment) {
	if s.anyOption {
		me := &m.side[dir]
		me.scales, me.scale, me.sack = s.scales, s.scale, s.sackAllowed
	}
}

func (m *modelTCP) ignore(dir Direction, s modelSegment) {
	m.note(dir, s.ev, true)
	m.loose[dir], m.wasLoose[dir] = s.end, true
	m.zero = s.win == 0
	if s.ev == evSYN {
		m.synScale, m.synScales, m.synSACK = s.scale, s.scales, s.sackAllowed
		if m.state == LastAck {
			m.challenge = true
		}
	} else if s.ev == evACK && dir == Reply && m.state == SynSent {
		m.halfAck = s.ack
	}
}

func (m *modelTCP) accept(dir Direction, s modelSegment, was, next State, now uint32) {
	m.note(dir, s.ev, false)
	if next == FinWait && was != FinWait {
		m.closing = true
	}
	m.state = next
	timeout := map[State]uint32{SynSent: 120, SynRecv: 60, Established: 432000, FinWait: 120, CloseWait: 60,
		LastAck: 30, TimeWait: 120, Close: 10, SynSent2: 120}[next]
	m.brief = false
	if s.ev == evRST && timeout > 10 {
		timeout, m.brief = 10, true
	}
	if !m.replied {
		if s.ev == evRST {
			timeout = 0
		} else if s.ev == evSYN && was == SynSent {
			return
		} else if next == Established {
			timeout, m.brief = 300, true
		}
	} else if next == Established && (was == SynRecv || was == Established) {
		m.assured = true
	}
	m.expiry = now + timeout
}

func (m *modelTCP) reset(dir Direction, s modelSegment) rstWorth {
	switch m.state {
	case FinWait, CloseWait, LastAck, TimeWait, Close:
		return rstBelieved
	}
	it := &m.side[dir.Other()]
	worth := rstPlausible
	if it.acked && m.last != evSYN {
		sure := m.state == Established && m.assured
		if s.seq == 0 && !sure {
			return rstPlausible
		}
		if int32(s.seq-it.maxack) < 0 {
			return rstInvalid
		}
		if !sure || s.seq == it.maxack || m.last == evACK && !m.lastLoose && m.lastDir == dir && s.seq == m.side[dir].end {
			return rstPlausible
		}
		worth = rstDoubted
	}
	if m.lastLoose && (m.last == evSYN && m.replied || m.last == evACK && !m.assured) && m.loose[m.lastDir] == s.ack ||
		!m.lastLoose && m.last == evACK && !m.assured && m.side[m.lastDir].end == s.ack {
		return rstBelieved
	}
	if m.state == SynSent && m.last == evACK && m.lastLoose && m.lastDir == Reply && s.seq == m.halfAck {
		return rstBelieved
	}
	return worth
}

// window is tcp_in_window.
func (m *modelTCP) window(dir Direction, s modelSegment) verdict {
	me, it := &m.side[dir], &m.side[dir.Other()]
	seq, ack, end, sack := s.seq, s.ack, s.end, s.ack
	if it.sack && s.hasSACK {
		sack = s.sackTo
	}
	syn := func() {
		me.end, me.maxend, me.maxwin = end, end, widen(max(s.win, 1))
		m.options(dir, s)
		if it.maxwin != 0 && !(me.scales && it.scales) {
			me.scale, it.scale, me.scales, it.scales = 0, 0, false, false
		}
	}
	if me.maxwin == 0 {
		if s.flags&tcpSYN != 0 {
			syn()
			if s.flags&tcpACK == 0 {
				return inWindow
			}
		} else {
			me.end, me.maxwin = end, widen(max(s.win<<me.scale, 1))
			me.maxend = end + me.maxwin
			if it.maxwin == 0 {
				it.end, it.maxend = sack, sack
			} else if sack == it.end+1 {
				it.end++
			}
		}
	} else if s.flags&tcpSYN != 0 && int32(end-me.end) > 0 && (m.state == SynSent || m.state == SynRecv) {
		syn()
		if dir == Reply && s.flags&tcpACK == 0 {
			return inWindow
		}
	}
	if s.flags&tcpACK == 0 || s.flags&tcpRST != 0 && ack == 0 {
		ack, sack = it.end, it.end
	}
	if s.flags&tcpRST != 0 && seq == 0 && m.state == SynSent {
		seq, end = me.end, me.end
	}
	maxAck := max(me.maxwin, 66000)
	if !(int32(seq-(me.maxend+1)) < 0) {
		if it.maxwin != 0 && int32(end-(me.end-it.maxwin-1)) > 0 && int32(sack-(it.end-maxAck-1)) > 0 &&
			end-me.maxend+1 <= it.maxwin && int32(sack-(it.end+1)) < 0 {
			me.end = end
			return stray
		}
		return outOfWindow
	}
	if !(int32(sack-(it.end+1)) < 0) {
		return outOfWindow
	}
	if it.maxwin != 0 && !(int32(end-(me.end-it.maxwin-1)) > 0) || !(int32(sack-(it.end-maxAck-1)) > 0) {
		return stray
	}
	win := s.win
	if s.flags&tcpSYN == 0 {
		win <<= me.scale
	}
	if w := win + (sack - ack); me.maxwin < w {
		me.maxwin = widen(w)
	}
	if int32(end-me.end) > 0 {
		me.end = end
	}
	if s.flags&tcpACK != 0 && (!me.acked || int32(ack-me.maxack) > 0) {
		me.acked, me.maxack = true, ack
	}
	if it.maxwin != 0 && int32(end-me.maxend) > 0 {
		it.maxwin = widen(it.maxwin + end - me.maxend)
	}
	if int32(sack+win-(it.maxend-1)) > 0 {
		it.maxend = sack + win
		if win == 0 {
			it.maxend++
		}
	}
	m.repeat(dir, s.seq, s.ack, s.end, s)
	return inWindow
}

func (m *modelTCP) repeat(dir Direction, seq, ack, end uint32, s modelSegment) {
	if s.ev != evACK {
		return
	}
	is := [4]uint32{seq, ack, end, s.win}
	if m.lastDir == dir && m.bare[dir] == is && !m.wasLoose[dir] {
		m.again = min(m.again+1, 3)
	} else {
		m.again = 0
	}
	m.bare[dir], m.wasLoose[dir] = is, false
	m.zero = s.win == 0
}

// segment makes a segment out of three bytes: mostly one that could follow.
func (m *modelTCP) segment(dir Direction, flags, how, amount uint8) (h []byte, payload int) {
	n := uint32(amount)
	seq, ack, win := m.side[dir].end, m.side[dir.Other()].end, uint16(2000)
	if m.side[dir].maxwin == 0 {
		seq = []uint32{1<<32 - 3000, 1<<31 - 3000}[dir]
	}
	var options []byte
	if flags&tcpSYN != 0 {
		seq += n << 4
		options = append(options, 2, 4, 5, 180, 1, 3, 3, amount%18, 4, 2)[:min(int(amount%4)*4, 10)]
	}
	switch how % 12 {
	case 1, 2, 3:
		payload = int(n) * 10
	case 4:
		seq--
	case 5:
		seq, payload = seq-n*50, int(n)*10
	case 6:
		seq += n * 64
	case 7:
		ack += n * 7
	case 8:
		ack -= n * 600
	case 9:
		win = uint16(n) * 251
	case 10:
		seq, ack = seq+n<<24, ack-n<<20
	case 11:
		options = append(options, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 10)
		options = binary.BigEndian.AppendUint32(options, ack+100)
		options = binary.BigEndian.AppendUint32(options, ack+n*40)
	}
	if flags&tcpACK == 0 {
		ack = 0
	}
	return tcpHeader(seq, ack, win, flags, options...), payload
}
