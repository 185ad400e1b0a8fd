package flow

import (
	"encoding/binary"

	"culvert/internal/packet"
)

// onlyTimestamps is the first word of the options that Linux puts into every
// segment of a connection with timestamps: two fillers, kind 8, 10 bytes.
const onlyTimestamps = optNop<<24 | optNop<<16 | 8<<8 | 10

// glide is all that Touch does for nearly all TCP packets: segments with nothing
// but an ACK, in the window, of an established connection whose control word
// stays as it is. It reports false, and has changed nothing, if that is not what
// it is.
func (e *Entry) glide(c control, dir Direction, info *packet.Info, l4 []byte, bytes, packets uint32) bool {
	if info.TCPFlags&(tcpFIN|tcpSYN|tcpRST|tcpACK) != tcpACK || len(l4) < hdrLen || info.Flags&packet.Fragment != 0 {
		return false
	}
	w := e.window()
	s, r := &w[dir&1], &w[dir&1^1]
	meta, other := load32(&s.meta), load32(&r.meta)
	h := (*[hdrLen]byte)(l4)
	seq, ack := binary.BigEndian.Uint32(h[seqAt:]), binary.BigEndian.Uint32(h[ackAt:])
	win := uint32(binary.BigEndian.Uint16(h[winAt:]))
	end := seq + uint32(info.PayloadLen())
	sent, edge := load32(&s.end), load32(&s.edge)
	wide := win << scaleOf(meta)
	if meta&metaAcked == 0 {
		return false
	}
	if c&ctlLiberal == 0 {
		otherSent, maxwin := load32(&r.end), maxwinOf(meta)
		limit, otherMax := load32(&r.edge), maxwinOf(other)
		if n := info.Payload - info.L4; n != hdrLen && other&metaSACK != 0 && !plain(n, l4) ||
			after(end, limit) || after(seq, limit) || after(ack, otherSent) ||
			!after(end, sent-otherMax-1) || !after(ack, otherSent-max(maxwin, maxAckWindow)-1) ||
			wide > maxwin || otherMax == 0 {
			return false
		}
		if at := ack + max(wide, 1); after(at, edge) {
			store32(&s.edge, at)
		}
	}
	if after(end, sent) {
		store32(&s.end, end)
	}
	if after(ack, load32(&s.maxack)) {
		store32(&s.maxack, ack)
	}
	// What setLast and repeat note.
	digest := printOf(seq, ack, end, win)
	n := &e.counts[dir&1]
	count := load(&n.packets)
	turn := other&metaTurn ^ uint32(dir&1)*metaTurn
	is := meta&^(metaEvent|metaTurn|metaAgain|metaZero) | turn | uint32(evACK)<<eventShift
	if win == 0 {
		is |= metaZero
	}
	if uint16(count>>printShift) == digest && meta&metaTurn == turn {
		is |= min(meta>>againShift&3+1, tcpMaxRetrans) << againShift
	}
	if is != meta {
		store32(&s.meta, is)
	}
	store(&n.packets, (count+uint64(packets))&packetsMask|uint64(digest)<<printShift)
	add(&n.bytes, uint64(bytes))
	return true
}

// plain reports whether a header of n bytes has no selective acknowledgment, by
// what Linux sends.
func plain(n uint16, l4 []byte) bool {
	return n == hdrLen+12 && len(l4) >= hdrLen+4 && binary.BigEndian.Uint32(l4[hdrLen:]) == onlyTimestamps
}
