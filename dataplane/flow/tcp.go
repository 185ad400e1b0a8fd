package flow

// The transitions and timeouts of a TCP flow are those of Linux:
// tcp_conntracks, tcp_timeouts, nf_conntrack_tcp_packet and tcp_new in
// net/netfilter/nf_conntrack_proto_tcp.c (v6.x). Sequence numbers are not
// looked at.

// TCP flags in the order of RFC 9293, section 3.1.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
)

// tcpEvent is what get_conntrack_index makes of the flags.
type tcpEvent uint8

const (
	evSYN tcpEvent = iota
	evSYNACK
	evFIN
	evACK
	evRST
	evNone
)

// tcpEvents is the event by the low five flags.
var tcpEvents = func() (t [32]tcpEvent) {
	for flags := range t {
		switch {
		case flags&tcpRST != 0:
			t[flags] = evRST
		case flags&(tcpSYN|tcpACK) == tcpSYN|tcpACK:
			t[flags] = evSYNACK
		case flags&tcpSYN != 0:
			t[flags] = evSYN
		case flags&tcpFIN != 0:
			t[flags] = evFIN
		case flags&tcpACK != 0:
			t[flags] = evACK
		default:
			t[flags] = evNone
		}
	}
	return t
}()

// Short names as in the kernel's table. keep stands for both sIV, an invalid
// packet, and sIG, one to ignore: neither changes anything.
const (
	sNO  = None
	sSS  = SynSent
	sSR  = SynRecv
	sES  = Established
	sFW  = FinWait
	sCW  = CloseWait
	sLA  = LastAck
	sTW  = TimeWait
	sCL  = Close
	sS2  = SynSent2
	keep = State(15)
)

// tcpNext is the next state by direction, event and state; the rows are padded
// to 16 states so that no index needs a bounds check.
//
// A SYN in the reply direction after TIME_WAIT is sSS in the kernel, where the
// connection then starts anew the other way round; here it keeps its
// directions, which is what sS2 says.
var tcpNext = [2][8][16]State{
	Original: {
		//         sNO   sSS   sSR   sES   sFW   sCW   sLA   sTW   sCL   sS2
		evSYN:    {sSS, sSS, keep, keep, keep, keep, keep, sSS, sSS, sS2},
		evSYNACK: {keep, keep, sSR, keep, keep, keep, keep, keep, keep, sSR},
		evFIN:    {keep, keep, sFW, sFW, sLA, sLA, sLA, sTW, sCL, keep},
		evACK:    {sES, keep, sES, sES, sCW, sCW, sTW, sTW, sCL, keep},
		evRST:    {keep, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
		evNone:   {keep, keep, keep, keep, keep, keep, keep, keep, keep, keep},
	},
	Reply: {
		//         sNO   sSS   sSR   sES   sFW   sCW   sLA   sTW   sCL   sS2
		evSYN:    {keep, sS2, keep, keep, keep, keep, keep, sS2, keep, sS2},
		evSYNACK: {keep, sSR, keep, keep, keep, keep, keep, keep, keep, sSR},
		evFIN:    {keep, keep, sFW, sFW, sLA, sLA, sLA, sTW, sCL, keep},
		evACK:    {keep, keep, sSR, sES, sCW, sCW, sTW, sTW, sCL, keep},
		evRST:    {keep, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
		evNone:   {keep, keep, keep, keep, keep, keep, keep, keep, keep, keep},
	},
}

// tcpEstablished is five days.
const tcpEstablished = 5 * 24 * 3600

// tcpTimeouts is tcp_timeouts, in seconds.
var tcpTimeouts = [16]uint32{
	None:        timeoutNone,
	SynSent:     120,
	SynRecv:     60,
	Established: tcpEstablished,
	FinWait:     120,
	CloseWait:   60,
	LastAck:     30,
	TimeWait:    120,
	Close:       10,
	SynSent2:    120,
}

// stepTCP is the control word after a packet with these flags.
func stepTCP(c control, dir Direction, flags uint8, now uint32) control {
	ev := tcpEvents[flags&31]
	was := c.state() & 15
	next := tcpNext[dir&1][ev&7][was]
	if next == keep {
		return c
	}
	expiry := now + tcpTimeouts[next&15]
	switch {
	case ev == evSYN && (was == sTW || was == sCL):
		c &^= ctlReplied | ctlAssured // a new connection with the old one's ports
	case c&ctlReplied != 0:
		if next == sES && (was == sSR || was == sES) {
			c |= ctlAssured
		}
	case ev == evRST:
		expiry = now // the only answer is a refusal: nothing to remember
	case ev == evSYN && was == sSS:
		expiry = c.expiry() // a retransmission does not keep the flow alive
	case next == sES:
		expiry = now + timeoutUnacked
	}
	if dir == Reply {
		c |= ctlReplied
	}
	return c.with(next, expiry)
}
