package flow

import (
	"encoding/binary"

	"culvert/internal/packet"
)

// onlyTimestamps is the first word of the options that Linux puts into every
// segment of a connection with timestamps: two fillers, kind 8, 10 bytes.
const onlyTimestamps = optNop<<24 | optNop<<16 | 8<<8 | 10

// glide is tcpStep for nearly all packets: segments with nothing but an ACK, in
// the window, of an established connection whose control word stays as it is. It
// reports false, and has changed nothing, if that is not what it is.
func (e *Entry) glide(c control, dir Direction, info *packet.Info, l4 []byte) bool {
	if info.TCPFlags&(tcpFIN|tcpSYN|tcpRST|tcpACK) != tcpACK || len(l4) < hdrLen || info.Flags&packet.Fragment != 0 {
		return false
	}
	w := e.window()
	s, r := &w[dir&1], &w[dir.Other()&1]
	var p segment
	p.seq = binary.BigEndian.Uint32(l4[seqAt:])
	p.ack = binary.BigEndian.Uint32(l4[ackAt:])
	p.win = uint32(binary.BigEndian.Uint16(l4[winAt:]))
	p.end = p.seq + uint32(info.PayloadLen())
	meta, other := load32(&s.meta), load32(&r.meta)
	if meta&metaAcked == 0 {
		return false
	}
	end := load32(&s.end)
	if c&ctlLiberal == 0 && !inside(s, r, meta, other, end, info, &p, l4) {
		return false
	}
	if after(p.end, end) {
		store32(&s.end, p.end)
	}
	if after(p.ack, load32(&s.maxack)) {
		store32(&s.maxack, p.ack)
	}
	e.note(dir, s, meta, other, &p)
	return true
}

// inside is check for glide, and notes the right edge of the window.
func inside(s, r *side, meta, other, end uint32, info *packet.Info, p *segment, l4 []byte) bool {
	if n := info.Payload - info.L4; n != hdrLen && other&metaSACK != 0 &&
		(n != hdrLen+12 || len(l4) < hdrLen+4 || binary.BigEndian.Uint32(l4[hdrLen:]) != onlyTimestamps) {
		return false // it may have a selective acknowledgment
	}
	maxwin, otherMax := maxwinOf(meta), maxwinOf(other)
	wide := p.win << scaleOf(meta)
	otherEnd, edge := load32(&r.end), load32(&r.edge)
	if after(p.seq, edge) || after(p.end, edge) || after(p.ack, otherEnd) ||
		!after(p.end, end-otherMax-1) || !after(p.ack, otherEnd-max(maxwin, maxAckWindow)-1) ||
		wide > maxwin || otherMax == 0 {
		return false
	}
	if at := p.ack + max(wide, 1); after(at, load32(&s.edge)) {
		store32(&s.edge, at)
	}
	return true
}

// note is what setLast and move note of a segment with nothing but an ACK.
func (e *Entry) note(dir Direction, s *side, meta, other uint32, p *segment) {
	turn := (other ^ uint32(dir)*metaTurn) & metaTurn
	is := meta&^(metaEvent|metaTurn|metaAgain|metaZero) | turn | uint32(evACK)<<eventShift
	if p.win == 0 {
		is |= metaZero
	}
	print := p.print()
	n := &e.counts[dir&1].packets
	count := load(n)
	if meta&metaTurn == turn && uint16(count>>printShift) == print {
		is |= min(meta>>againShift&3+1, tcpMaxRetrans) << againShift
	}
	store(n, count&packetsMask|uint64(print)<<printShift)
	if is != meta {
		store32(&s.meta, is)
	}
}
