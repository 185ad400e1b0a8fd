package flow

import "culvert/internal/packet"

// Start says what becomes of a packet that belongs to no flow.
type Start uint8

const (
	// Starts: it begins a flow, or is of one that is under way.
	Starts Start = iota
	// Alone: it can only be of a connection that we know nothing of and that
	// ends, or is refused, or is half begun: to be forwarded without a flow.
	// Linux calls it INVALID, but its flows outlive whoever reads this.
	Alone
	// Broken: no sender means that; to be dropped.
	Broken
)

// Begin decides what becomes of a trackable packet for which Lookup found nothing.
// info and l4 are as for Touch.
func Begin(info *packet.Info, l4 []byte) Start {
	switch {
	case info.Flags&packet.Fragment != 0 || info.L4 == 0:
	case info.Proto == packet.ProtoTCP:
		return beginTCP(info.TCPFlags)
	case info.Proto == packet.ProtoSCTP:
		return beginSCTP(l4)
	}
	return Starts
}

func beginTCP(flags uint8) Start {
	switch ev := tcpEvents[flags&31]; {
	case !validFlags(flags):
		return Broken
	case ev == evSYN, ev == evACK:
		return Starts
	}
	return Alone
}

func beginSCTP(l4 []byte) Start {
	if len(l4) < sctpHeader {
		return Broken
	}
	set, ok := chunkTypes(l4[sctpHeader:])
	tag := l4[4] | l4[5] | l4[6] | l4[7]
	switch {
	case !ok, set.has(chunkInit) && (tag != 0 || len(l4) < sctpHeader+initHeader):
		return Broken
	case set.any(1<<chunkAbort | 1<<chunkShutdownDone | 1<<chunkCookieAck): // RFC 9260 8.4
		return Alone
	}
	return Starts
}
