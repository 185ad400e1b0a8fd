package flow

// The transitions, windows and timeouts of a TCP flow are those of Linux with
// its defaults (nf_conntrack_tcp_be_liberal 0, _loose 1, _max_retrans 3):
// net/netfilter/nf_conntrack_proto_tcp.c, v6.x. The rules are said there in one
// function; here tcpStep is nf_conntrack_tcp_packet and check is tcp_in_window.
//
// Where Culvert differs, it lets more pass, because its flows do not outlive it:
// every packet of a connection that was established before a restart must pass.
// A packet that can begin no flow is forwarded without one (Begin), and in a flow
// that was picked up in the middle no event is invalid, since its first packet
// may as well have been the server's.

// TCP flags in the order of RFC 9293, section 3.1.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
)

// tcpValid has a bit for each combination of the low six flags, PSH left out,
// that a TCP may send: tcp_valid_flags.
const tcpValid = 1<<tcpSYN | 1<<(tcpSYN|tcpURG) | 1<<(tcpSYN|tcpACK) | 1<<tcpRST | 1<<(tcpRST|tcpACK) |
	1<<(tcpFIN|tcpACK) | 1<<(tcpFIN|tcpACK|tcpURG) | 1<<tcpACK | 1<<(tcpACK|tcpURG)

// validFlags reports whether a TCP may send these flags.
func validFlags(flags uint8) bool {
	return uint64(tcpValid)>>(flags&(tcpFIN|tcpSYN|tcpRST|tcpACK|tcpURG))&1 != 0
}

// tcpEvent is what get_conntrack_index makes of the flags.
type tcpEvent uint8

const (
	evSYN tcpEvent = iota
	evSYNACK
	evFIN
	evACK
	evRST
	evNone

	// A SYN or ACK that was let through unchecked, as the last event of a side.
	evLooseSYN
	evLooseACK
)

// loose is the last event after one that was let through unchecked.
func (ev tcpEvent) loose() tcpEvent {
	switch ev {
	case evSYN:
		return evLooseSYN
	case evACK:
		return evLooseACK
	}
	return ev
}

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

// Short names as in the kernel's table: sIV is an invalid packet, sIG one to let
// through that changes nothing.
const (
	sNO = None
	sSS = SynSent
	sSR = SynRecv
	sES = Established
	sFW = FinWait
	sCW = CloseWait
	sLA = LastAck
	sTW = TimeWait
	sCL = Close
	sS2 = SynSent2
	sIV = State(30)
	sIG = State(31)
)

// tcpNext is the next state by direction, event and state; the rows are padded
// so that no index needs a bounds check.
//
// A SYN in the reply direction after TIME_WAIT is sSS in the kernel, where the
// connection then starts anew the other way round; here it keeps its
// directions, which is what sS2 says.
var tcpNext = [2][8][16]State{
	Original: {
		//         sNO  sSS  sSR  sES  sFW  sCW  sLA  sTW  sCL  sS2
		evSYN:    {sSS, sSS, sIG, sIG, sIG, sIG, sIG, sSS, sSS, sS2},
		evSYNACK: {sIV, sIV, sSR, sIV, sIV, sIV, sIV, sIV, sIV, sSR},
		evFIN:    {sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV},
		evACK:    {sES, sIV, sES, sES, sCW, sCW, sTW, sTW, sCL, sIV},
		evRST:    {sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
		evNone:   {sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV},
	},
	Reply: {
		//         sNO  sSS  sSR  sES  sFW  sCW  sLA  sTW  sCL  sS2
		evSYN:    {sIV, sS2, sIV, sIV, sIV, sIV, sIV, sS2, sIV, sS2},
		evSYNACK: {sIV, sSR, sIG, sIG, sIG, sIG, sIG, sIG, sIG, sSR},
		evFIN:    {sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV},
		evACK:    {sIV, sIG, sSR, sES, sCW, sCW, sTW, sTW, sCL, sIG},
		evRST:    {sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
		evNone:   {sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV},
	},
}

// tcpEstablished is five days.
const tcpEstablished = 5 * 24 * 3600

// tcpTimeouts is tcp_timeouts, in seconds.
var tcpTimeouts = [32]uint32{
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

// tcpMaxRetrans is how often a segment may come again without an answer before
// the connection gets no more than timeoutUnacked.
const tcpMaxRetrans = 3

// A TCP flow's own bits of the control word.
const (
	// ctlLiberal: picked up in the middle, so that windows are not known well
	// enough to judge by them (IP_CT_TCP_FLAG_BE_LIBERAL).
	ctlLiberal control = 1 << (ownShift + iota)
	// ctlCloseInit: one side closed it (IP_CT_TCP_FLAG_CLOSE_INIT).
	ctlCloseInit
	// ctlBoth: both sides opened it at once (IP_CT_TCP_SIMULTANEOUS_OPEN).
	ctlBoth
	// ctlChallenge: a SYN in LAST_ACK may be answered by an ACK that does not
	// acknowledge the FIN (IP_CT_EXP_CHALLENGE_ACK).
	ctlChallenge
	// ctlBrief: the expiry is not the state's timeout after the last packet.
	ctlBrief
	// ctlSYNSACK and ctlSYNScale: what a SYN that was let through unchecked
	// said (last_flags, last_wscale).
	ctlSYNSACK

	synScaleShift         = ownShift + 6
	ctlSYNScale   control = 15 << synScaleShift
)
