package flow

import "culvert/internal/packet"

// State of a flow. The first ten are those of TCP, in the order of enum
// tcp_conntrack (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
type State uint8

// Unreplied, Replied and Assured are those of protocols without states of their
// own. Those behind are SCTP's, in the order of enum sctp_conntrack
// (include/uapi/linux/netfilter/nf_conntrack_sctp.h), which has None and
// Established too.
const (
	None State = iota
	SynSent
	SynRecv
	Established
	FinWait
	CloseWait
	LastAck
	TimeWait
	Close
	SynSent2
	Unreplied
	Replied
	Assured
	Closed
	CookieWait
	CookieEchoed
	ShutdownSent
	ShutdownRecd
	ShutdownAckSent
	HeartbeatSent

	// States is the number of states, for arrays indexed by State.
	States
)

var stateNames = [States]string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT",
	"LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2", "UNREPLIED", "REPLIED", "ASSURED",
	"CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"}

// String is the state as conntrack prints it.
func (s State) String() string {
	if s >= States {
		return "UNKNOWN"
	}
	return stateNames[s]
}

// kind is the rule by which a flow's state moves.
type kind uint8

const (
	kindTCP kind = iota
	kindUDP
	kindICMP    // a while after every packet, never assured
	kindGeneric // all other protocols
	kindSCTP
)

// kindOf is the rule for a flow with that key.
func kindOf(k *packet.Key) kind {
	switch k.Proto {
	case packet.ProtoTCP:
		return kindTCP
	case packet.ProtoUDP:
		return kindUDP
	case packet.ProtoSCTP:
		return kindSCTP
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return kindICMP
	}
	return kindGeneric
}

// Timeouts in seconds.
const (
	// Of a TCP or SCTP flow whose packets so far could not begin one.
	timeoutNone = 10

	// udp_timeouts, net/netfilter/nf_conntrack_proto_udp.c.
	timeoutUDP       = 30
	timeoutUDPStream = 120
	// udpStreamAfter is how long a flow must have lived to be a stream.
	udpStreamAfter = 2

	// nf_ct_icmp_timeout, net/netfilter/nf_conntrack_proto_icmp.c.
	timeoutICMP = 30
	// nf_ct_generic_timeout, net/netfilter/nf_conntrack_proto_generic.c.
	timeoutGeneric = 600

	// TCP_CONNTRACK_UNACK, net/netfilter/nf_conntrack_proto_tcp.c: the most
	// that a connection picked up in the middle gets before it is replied to.
	timeoutUnacked = 300
)

// A flow's control word holds all that its state machine reads and writes, so
// that one compare-and-swap changes it as a whole.
//
//	 0–31  expiry: the second at which the flow is gone
//	32–36  state
//	37–39  kind
//	40     seen a packet in the reply direction
//	41     assured: not to be evicted before the others
//	42     dead: deleted, never to change again
//	43     queued: on the list of changed entries
//	44     wire: its first packet came by an uplink
//	45–46  class: the list the entry is on         } written
//	47–51  the state it is counted under           } with the
//	52     half-open: counted against its owner    } mutex held
//	53–63  UDP and other protocols: the second of its first packet, modulo 2^11
//	       TCP: see tcp.go; SCTP: see sctp.go
type control uint64

const (
	stateShift   = 32
	kindShift    = 37
	classShift   = 45
	countedShift = 47
	ownShift     = 53

	ctlExpiry  control = 1<<32 - 1
	ctlState   control = 31 << stateShift
	ctlKind    control = 7 << kindShift
	ctlReplied control = 1 << 40
	ctlAssured control = 1 << 41
	ctlDead    control = 1 << 42
	ctlQueued  control = 1 << 43
	ctlWire    control = 1 << 44
	ctlClass   control = 3 << classShift
	ctlCounted control = 31 << countedShift
	ctlHalf    control = 1 << 52
	ctlOwn     control = 1<<64 - 1<<ownShift // the bits that each protocol uses as it likes

	// ctlLists is what the lists and counts of the table depend on.
	ctlLists = ctlState | ctlReplied | ctlAssured
)

func (c control) expiry() uint32 { return uint32(c) }
func (c control) state() State   { return State(c >> stateShift & 31) }
func (c control) kind() kind     { return kind(c >> kindShift & 7) }
func (c control) class() class   { return class(c >> classShift & 3) }
func (c control) counted() State { return State(c >> countedShift & 31) }

// age is for how many seconds there has been the flow, modulo half an hour. It is
// meaningless for TCP and SCTP.
func (c control) age(now uint32) uint32 { return (now - uint32(c>>ownShift)) & (1<<11 - 1) }

// with is c in state s until expiry.
func (c control) with(s State, expiry uint32) control {
	return c&^(ctlState|ctlExpiry) | control(s)<<stateShift | control(expiry)
}

// timeout is what the flow gets after a packet that leaves its state as it is.
func (c control) timeout() uint32 {
	switch c.kind() {
	case kindTCP:
		return min(tcpTimeouts[c.state()&31], c.unackedLimit())
	case kindUDP:
		if c&ctlAssured != 0 {
			return timeoutUDPStream
		}
		return timeoutUDP
	case kindICMP:
		return timeoutICMP
	case kindSCTP:
		return sctpTimeouts[c.state()&31]
	}
	return timeoutGeneric
}

// unackedLimit bounds the timeout of a TCP flow that was never answered.
func (c control) unackedLimit() uint32 {
	if c&ctlReplied == 0 {
		return timeoutUnacked
	}
	return 1<<32 - 1
}
