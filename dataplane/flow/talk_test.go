package flow

import (
	"encoding/binary"

	"culvert/internal/packet"
)

// tcpHeader is a TCP header with options padded to a word.
func tcpHeader(seq, ack uint32, win uint16, flags uint8, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, optEnd)
	}
	h := make([]byte, hdrLen, hdrLen+len(options))
	binary.BigEndian.PutUint32(h[seqAt:], seq)
	binary.BigEndian.PutUint32(h[ackAt:], ack)
	binary.BigEndian.PutUint16(h[winAt:], win)
	h[12], h[13] = uint8(hdrLen+len(options))<<2, flags
	return append(h, options...)
}

// tcpInfo is what Parse makes of an IPv4 packet with such a header.
func tcpInfo(h []byte, payload int) packet.Info {
	return packet.Info{L3: 14, L4: 34, Payload: uint16(34 + len(h)), L3Len: uint32(20 + len(h) + payload), Proto: packet.ProtoTCP, TCPFlags: h[13]}
}

// sendTCP is one segment of a flow.
func sendTCP(e *Entry, dir Direction, h []byte, payload int, now uint32) Result {
	info := tcpInfo(h, payload)
	return e.Touch(dir, &info, h, info.L3Len, 1, now)
}

// talk is a connection whose two ends say what they should: each segment carries
// on where the one before it ended.
type talk struct {
	e   *Entry
	iss [2]uint32
	nxt [2]uint32
}

// say sends a segment with these flags and so much payload.
func (c *talk) say(dir Direction, flags uint8, payload int, now uint32) Result {
	if flags&tcpSYN != 0 {
		if state := c.e.State(); state == TimeWait || state == Close || state == None {
			c.iss[dir] += 1_000_000
			c.nxt[dir.Other()] = 0
		}
		c.nxt[dir] = c.iss[dir]
	}
	ack := uint32(0)
	if flags&tcpACK != 0 {
		ack = c.nxt[dir.Other()]
	}
	r := sendTCP(c.e, dir, tcpHeader(c.nxt[dir], ack, 8192, flags), payload, now)
	c.nxt[dir] += uint32(payload) + uint32(flags>>1&1) + uint32(flags&1)
	return r
}

// establish takes a TCP flow through its handshake.
func establish(e *Entry, now uint32) {
	c := talk{e: e, iss: [2]uint32{1 << 31, 1<<32 - 1}}
	c.say(Original, tcpSYN, 0, now)
	c.say(Reply, tcpSYN|tcpACK, 0, now)
	c.say(Original, tcpACK, 0, now)
	c.say(Reply, tcpACK, 0, now)
}

// keepOn is the segment that both ends of an established flow may repeat.
func keepOn(dir Direction) []byte {
	if dir == Reply {
		return tcpHeader(0, 1<<31+1_000_001, 8192, tcpACK)
	}
	return tcpHeader(1<<31+1_000_001, 0, 8192, tcpACK)
}

// insert adds a flow that came by the wire.
func insert(t *Table, orig, reply *packet.Key, now uint32) (e *Entry, dir Direction, ok bool) {
	e, dir, r := t.Insert(orig, reply, Wire, now)
	return e, dir, r == Accepted
}

// touch accounts for a packet of a protocol without states.
func touch(e *Entry, dir Direction, now uint32) Result {
	return e.Touch(dir, &packet.Info{}, nil, 1, 1, now)
}
