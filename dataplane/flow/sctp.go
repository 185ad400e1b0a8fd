package flow

import "encoding/binary"

// The transitions, timeouts and verification tags of an SCTP flow are those of
// net/netfilter/nf_conntrack_proto_sctp.c, v6.x. Unlike Linux, and as with TCP, a
// flow is picked up in the middle: its tags are then learnt from the first packet
// of each direction.

// Chunk types (RFC 9260 3.2).
const (
	chunkData         = 0
	chunkInit         = 1
	chunkInitAck      = 2
	chunkHeartbeat    = 4
	chunkHeartbeatAck = 5
	chunkAbort        = 6
	chunkShutdown     = 7
	chunkShutdownAck  = 8
	chunkError        = 9
	chunkCookieEcho   = 10
	chunkCookieAck    = 11
	chunkShutdownDone = 14

	chunkT = 1 // the flag of ABORT and SHUTDOWN COMPLETE: the tag is the receiver's own, sent back

	sctpHeader  = 12
	chunkHeader = 4
	initTagAt   = 4  // in an INIT or INIT ACK chunk
	initHeader  = 20 // its fixed part
)

// An SCTP flow's own bits of the control word.
const (
	// ctlLearn: picked up in the middle.
	ctlLearn control = 1 << (ownShift + iota)
	// ctlStrangeBeat: a HEARTBEAT with another tag passed (SCTP_FLAG_HEARTBEAT_VTAG_FAILED),
	// ctlBeatReply: in the reply direction (last_dir).
	ctlStrangeBeat
	ctlBeatReply
	// ctlInit: an INIT was seen in the original direction; the bit above: in the other one.
	ctlInit
	_
	ctlInits = ctlInit | ctlInit<<1
)

// Short names as in the kernel's table; names that TCP's table has too begin with x.
const (
	xCL = Closed
	xCW = CookieWait
	xCE = CookieEchoed
	xSS = ShutdownSent
	xSR = ShutdownRecd
	xSA = ShutdownAckSent
	xHS = HeartbeatSent
)

// sctpColumn is the column of a state in sctpNext.
var sctpColumn = [32]uint8{None: 0, xCL: 1, xCW: 2, xCE: 3, sES: 4, xSS: 5, xSR: 6, xSA: 7, xHS: 8}

// sctpNext is sctp_conntracks: the next state by direction, chunk type and state.
// Chunk types without a row change no state.
var sctpNext = [2][16][9]State{
	Original: {
		//                  sNO  sCL  sCW  sCE  sES  sSS  sSR  sSA  sHS
		chunkInit:         {xCL, xCL, xCW, xCE, sES, xCL, xCL, xSA, xCW},
		chunkInitAck:      {xCL, xCL, xCW, xCE, sES, xSS, xSR, xSA, xCL},
		chunkAbort:        {xCL, xCL, xCL, xCL, xCL, xCL, xCL, xCL, xCL},
		chunkShutdown:     {xCL, xCL, xCW, xCE, xSS, xSS, xSR, xSA, xCL},
		chunkShutdownAck:  {xSA, xCL, xCW, xCE, sES, xSA, xSA, xSA, xSA},
		chunkError:        {xCL, xCL, xCW, xCE, sES, xSS, xSR, xSA, xCL},
		chunkCookieEcho:   {xCL, xCL, xCE, xCE, sES, xSS, xSR, xSA, xCL},
		chunkCookieAck:    {xCL, xCL, xCW, sES, sES, xSS, xSR, xSA, xCL},
		chunkShutdownDone: {xCL, xCL, xCW, xCE, sES, xSS, xSR, xCL, xCL},
		chunkHeartbeat:    {xHS, xCL, xCW, xCE, sES, xSS, xSR, xSA, xHS},
		chunkHeartbeatAck: {xCL, xCL, xCW, xCE, sES, xSS, xSR, xSA, xHS},
	},
	Reply: {
		//                  sNO  sCL  sCW  sCE  sES  sSS  sSR  sSA  sHS
		chunkInit:         {sIV, xCL, xCW, xCE, sES, xSS, xSR, xSA, sIV},
		chunkInitAck:      {sIV, xCW, xCW, xCE, sES, xSS, xSR, xSA, sIV},
		chunkAbort:        {sIV, xCL, xCL, xCL, xCL, xCL, xCL, xCL, sIV},
		chunkShutdown:     {sIV, xCL, xCW, xCE, xSR, xSS, xSR, xSA, sIV},
		chunkShutdownAck:  {sIV, xCL, xCW, xCE, sES, xSA, xSA, xSA, sIV},
		chunkError:        {sIV, xCL, xCW, xCL, sES, xSS, xSR, xSA, sIV},
		chunkCookieEcho:   {sIV, xCL, xCE, xCE, sES, xSS, xSR, xSA, sIV},
		chunkCookieAck:    {sIV, xCL, xCW, sES, sES, xSS, xSR, xSA, sIV},
		chunkShutdownDone: {sIV, xCL, xCW, xCE, sES, xSS, xSR, xCL, sIV},
		chunkHeartbeat:    {sIV, xCL, xCW, xCE, sES, xSS, xSR, xSA, xHS},
		chunkHeartbeatAck: {sIV, xCL, xCW, xCE, sES, xSS, xSR, xSA, sES},
	},
}

// sctpTimeouts is sctp_timeouts, in seconds.
var sctpTimeouts = [32]uint32{
	None:            timeoutNone,
	Closed:          10,
	CookieWait:      3,
	CookieEchoed:    3,
	Established:     210,
	ShutdownSent:    3,
	ShutdownRecd:    3,
	ShutdownAckSent: 3,
	HeartbeatSent:   30,
}

// sctpState is the state after one chunk. Chunks that have no row, of data for
// instance, leave it as it is; they and HEARTBEAT ACK show a new flow to be one
// that is under way.
func sctpState(dir Direction, was State, chunk uint8) State {
	changes := chunk <= chunkShutdownDone && sctpNext[Original][chunk&15][0] != None
	if was == None && (!changes || chunk == chunkHeartbeatAck) {
		return Established
	}
	if !changes {
		return was
	}
	return sctpNext[dir&1][chunk&15][sctpColumn[was&31]%9]
}

// types is a set of the chunk types that matter.
type types uint16

func (t types) has(chunk uint8) bool { return t>>chunk&1 != 0 }
func (t types) any(of types) bool    { return t&of != 0 }

// untagged are the chunks whose tags follow rules of their own (RFC 9260 8.5.1).
const untagged types = 1<<chunkInit | 1<<chunkShutdownDone | 1<<chunkCookieEcho | 1<<chunkAbort |
	1<<chunkShutdownAck | 1<<chunkHeartbeat | 1<<chunkHeartbeatAck

// nextChunk is the length of the first of chunks with its padding, ok false if
// there is none.
func nextChunk(chunks []byte) (n int, ok bool) {
	if len(chunks) < chunkHeader {
		return 0, false
	}
	return min((int(binary.BigEndian.Uint16(chunks[2:]))+3)&^3, len(chunks)), true
}

// chunkTypes are the types of all chunks; ok is false where do_basic_checks
// fails: no chunk, an empty one, or one in company that must be alone or first.
func chunkTypes(chunks []byte) (set types, ok bool) {
	const alone types = 1<<chunkInit | 1<<chunkInitAck | 1<<chunkShutdownDone
	const first types = 1<<chunkCookieAck | 1<<chunkCookieEcho
	for i := 0; ; i++ {
		n, more := nextChunk(chunks)
		if !more {
			return set, i != 0
		}
		bit := types(0)
		if chunks[0] < 16 {
			bit = 1 << chunks[0]
		}
		if n == 0 || i != 0 && (bit|set).any(alone) || i != 0 && bit.any(first) {
			return 0, false
		}
		set |= bit
		chunks = chunks[n:]
	}
}

// sctpStep is the control word after a packet whose SCTP header is at the start
// of l4. tags are what packets of each direction have to carry, 0 if not known;
// they are changed accordingly.
func sctpStep(c control, tags *[2]uint32, dir Direction, l4 []byte, now uint32) (control, Result) {
	set, ok := chunkTypes(l4[sctpHeader:])
	if !ok {
		return c, Invalid
	}
	p := sctpPacket{c: c, tags: *tags, dir: dir & 1, tag: binary.BigEndian.Uint32(l4[4:]), set: set}
	if c.state() == None {
		if dir == Reply {
			return c.replied(dir), Pass // whoever added the flow is about to say how it began
		}
		if !set.has(chunkInit) {
			p.c |= ctlLearn
		}
	}
	if !set.any(untagged) && !p.tagged() {
		return c, Invalid
	}
	for chunks := l4[sctpHeader:]; ; {
		n, more := nextChunk(chunks)
		if !more {
			break
		}
		if !p.chunk(chunks) {
			return c, Invalid
		}
		chunks = chunks[n:]
	}
	*tags = p.tags
	next := p.c.replied(dir)
	if p.ignore {
		return next, Pass
	}
	if c&ctlReplied != 0 && next&ctlLearn != 0 && next.state() == Established {
		next |= ctlAssured // answered, as a picked up connection of TCP
	}
	return next.with(next.state(), now+sctpTimeouts[next.state()&31]), Pass
}

// sctpPacket is a packet on its way through the state machine.
type sctpPacket struct {
	c      control
	tags   [2]uint32
	tag    uint32
	set    types
	dir    Direction
	ignore bool // it does not keep the flow alive
}

// tagged reports whether the packet carries the tag of its direction, which is
// learnt from it if the flow was picked up.
func (p *sctpPacket) tagged() bool {
	if p.c&ctlLearn != 0 && p.tags[p.dir&1] == 0 {
		p.tags[p.dir&1] = p.tag
	}
	return p.tag == p.tags[p.dir&1]
}

// reflects reports whether the packet carries its receiver's tag.
func (p *sctpPacket) reflects() bool {
	peer := p.tags[p.dir.Other()&1]
	return p.tag == peer || peer == 0 && p.c&ctlLearn != 0
}

// chunk takes the first of chunks through the state machine and reports whether
// it is valid.
func (p *sctpPacket) chunk(chunks []byte) bool {
	typ, flags := chunks[0], chunks[1]
	switch typ {
	case chunkInit:
		if p.tag != 0 {
			return false
		}
	case chunkAbort, chunkShutdownDone:
		if flags&chunkT == 0 && !p.tagged() || flags&chunkT != 0 && !p.reflects() {
			return false
		}
	case chunkCookieEcho:
		if !p.tagged() {
			return false
		}
	case chunkCookieAck:
		p.c &^= ctlInits
	case chunkHeartbeat, chunkHeartbeatAck:
		if valid, goOn := p.beat(typ); !goOn {
			return valid
		}
	}
	was := p.c.state()
	next := sctpState(p.dir, was, typ)
	if next == sIV {
		return false
	}
	if typ == chunkInit || typ == chunkInitAck {
		if len(chunks) < initHeader || !p.init(typ, binary.BigEndian.Uint32(chunks[initTagAt:])) {
			return false
		}
		// An INIT sent again does not keep the flow alive.
		p.ignore = p.ignore || typ == chunkInit && was == Closed && next == Closed
	}
	p.c = p.c.with(next, p.c.expiry())
	if next == Established && was != Established && p.c&ctlLearn == 0 {
		p.c |= ctlAssured
	}
	return true
}

// init notes the tag that a side wants to see from the other one.
func (p *sctpPacket) init(typ uint8, tag uint32) bool {
	mine, theirs := ctlInit<<p.dir, ctlInit<<p.dir.Other()
	peer := &p.tags[p.dir.Other()&1]
	if typ == chunkInit {
		if p.c&ctlInits == ctlInits {
			p.c &^= theirs
		}
		p.c |= mine
	} else if p.c&theirs == 0 && *peer != 0 && *peer != tag || p.c&ctlInits == ctlInits && *peer != tag {
		return false // both began at once: this one answers another INIT
	}
	*peer = tag
	return true
}

// beat checks the tag of a HEARTBEAT or its ACK: one with another tag may come
// from a peer that has begun anew by another path. goOn is false when the chunk
// is done with.
func (p *sctpPacket) beat(typ uint8) (valid, goOn bool) {
	mine := &p.tags[p.dir&1]
	if *mine == 0 {
		*mine = p.tag
		return true, true
	}
	if p.tag == *mine {
		p.c &^= ctlStrangeBeat
		return true, true
	}
	if p.set.has(chunkData) || p.ignore {
		return false, false
	}
	if typ == chunkHeartbeat {
		p.c = p.c&^ctlBeatReply | ctlStrangeBeat
		if p.dir == Reply {
			p.c |= ctlBeatReply
		}
		p.ignore = true
		return true, false
	}
	if lastReply := p.c&ctlBeatReply != 0; p.c&ctlStrangeBeat == 0 || lastReply == (p.dir == Reply) {
		return false, false
	}
	p.c &^= ctlStrangeBeat
	*mine, p.tags[p.dir.Other()&1] = p.tag, 0
	return true, true
}
