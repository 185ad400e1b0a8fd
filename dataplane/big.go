package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// admitBig checks what a device says of a big frame, and counts the frames that
// it stands for.
func (w *worker) admitBig(f *frame.Frame, rec *record) {
	if f.Flags&frame.SegKinds != segKind(&rec.info) || rec.info.PayloadLen() <= 0 {
		w.discard(f, rec, drop.CannotSegment)
		return
	}
	f.HeaderLen = rec.info.Payload
	w.countBig(f, rec.popped)
}

// countBig adds to the ingress port's counters what a big frame is on a wire, with
// so many bytes of tunnel headers in front of each segment.
func (w *worker) countBig(f *frame.Frame, popped uint16) {
	packets, bytes := f.OnWire()
	w.in.rxPackets += packets - 1
	w.in.rxBytes += bytes - uint64(f.Total) + (packets-1)*uint64(popped)
}

// guess recognises a big frame of which no device has said what it is to be cut
// into: what comes through XDP has lost it (a program sees bytes, and
// skb_shinfo(skb)->gso_size is none of them). A TCP packet beyond what the far
// side sends unsegmented is a GSO frame. Its segments are what the receiver
// announced in its SYN, less the options that each carries (RFC 6691).
func (w *worker) guess(f *frame.Frame, rec *record) {
	info := &rec.info
	kind := segKind(info)
	if kind&(frame.SegTCP4|frame.SegTCP6) == 0 || info.L3Len <= uint32(w.in.port.spec.MTU) {
		return
	}
	size := w.in.port.spec.MTU - int(info.Payload-info.L3)
	if rec.entry != nil {
		if mss := int(rec.entry.MSS(rec.dir.Other())); mss != 0 {
			size = min(size, mss-(int(info.Payload-info.L4)-packet.TCPLen))
		}
	}
	f.SegSize = uint16(max(size, minSegment))
	f.HeaderLen = info.Payload
	f.Flags |= kind
	if info.TCPFlags&packet.TCPCwr != 0 {
		f.Flags |= frame.SegCWR
	}
	w.countBig(f, rec.popped)
}

// segKind is what a packet is cut into if it is big, 0 if it cannot be.
func segKind(info *packet.Info) frame.Flags {
	if info.L4 == 0 || info.Flags&packet.Fragment != 0 {
		return 0
	}
	switch {
	case info.Proto == packet.ProtoUDP:
		return frame.SegUDP
	case info.Proto != packet.ProtoTCP:
		return 0
	case info.Flags&packet.V4 != 0:
		return frame.SegTCP4
	}
	return frame.SegTCP6
}

// forwardBig takes a frame that is to be cut, or a packet that is larger than its
// egress allows: that one is treated as a router does, fragmented where its
// sender permits, refused with the size that fits where not (RFC 1191).
func (w *worker) forwardBig(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	if f.SegSize == 0 {
		w.guess(f, rec)
	}
	switch {
	case f.SegSize != 0:
		w.forwardSegments(f, rec, adj)
	case rec.info.Flags&(packet.V4|packet.DF) == packet.V4:
		if w.admit(f, rec, adj, rec.info.L3Len, 1) {
			w.fragment(f, rec, adj)
		}
	default:
		w.refuse(f, rec, adj, drop.TooBig)
	}
}

// takesChain reports whether the egress device sends a frame of so many chunks.
func (w *worker) takesChain(f *frame.Frame, adj *fib.Adjacency) bool {
	q := w.ports[adj.Port%maxPorts]
	return q == nil || len(f.Rest) < q.limits.Chunks
}

// largest is the length of the largest packet that leaves by adj: what the path takes,
// and one chunk if the port's device sends no chains, as zero-copy drivers may.
func (w *worker) largest(adj *fib.Adjacency) uint16 {
	if q := w.ports[adj.Port%maxPorts]; q != nil && q.limits.Chunks == 1 {
		return min(adj.MTU, uint16(w.pool.ChunkSize()-frame.Headroom))
	}
	return adj.MTU
}

// forwardSegments sends a frame that stands for many: whole, where the egress
// device takes it so, else cut.
func (w *worker) forwardSegments(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	info := &rec.info
	hdrLen := int(info.Payload - info.L3)
	size := int(f.SegSize)
	if f.Flags&frame.SegUDP == 0 {
		size = max(size, minSegment)
	}
	size = min(size, w.mostPayload(adj, hdrLen))
	if size <= 0 || info.PayloadLen()/size > maxPieces || f.Flags&frame.SegUDP != 0 && info.PayloadLen()/size > maxDatagrams {
		w.discard(f, rec, drop.CannotSegment)
		return
	}
	if size < int(f.SegSize) && f.Flags&frame.SegUDP != 0 {
		w.refuse(f, rec, adj, drop.TooBig) // datagrams are not to be made smaller
		return
	}
	if f.SegSize = uint16(size); info.PayloadLen() <= size { // one segment is no big frame
		f.SegSize, f.Flags = 0, f.Flags&^(frame.SegKinds|frame.SegCWR)
	}
	if n := f.Segments(); !w.admit(f, rec, adj, info.L3Len+(n-1)*uint32(hdrLen), n) {
		return
	}
	w.ageHop(f, rec)
	unit := info.PayloadLen()
	if f.SegSize != 0 {
		unit = w.wholeUnit(f, rec, adj, hdrLen)
	}
	if unit < info.PayloadLen() {
		bump(&w.gauges.cut, 1)
		w.cut(f, rec, adj, unit)
		return
	}
	if r := w.rewrite(f, info, adj, rec.hash); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	bump(&w.gauges.whole, 1)
	if info.Proto == packet.ProtoTCP && rec.entry != nil && adj.Kind == fib.KindPod {
		w.enqueueSegment(f, rec, adj)
		return
	}
	rec.live = false
	w.enqueue(f, adj.Port)
}

// wholeUnit is the payload of the largest piece of a big frame that its egress
// port takes: all of it, as much as a tunnel's outer header can describe, or one
// segment.
func (w *worker) wholeUnit(f *frame.Frame, rec *record, adj *fib.Adjacency, hdrLen int) int {
	size, payload := int(f.SegSize), rec.info.PayloadLen()
	q := w.ports[adj.Port%maxPorts]
	if q == nil || adj.Kind == fib.KindIPIP || rec.info.Flags&packet.Partial == 0 {
		return size // no offload knows IPIP, or a frame whose checksum is of the whole, or none
	}
	most := q.limits.Bytes - int(adj.Rewrite.Len) - hdrLen
	if outer := int(adj.Rewrite.Len) - packet.EthernetLen; outer > 0 {
		most = min(most, maxIPPacket-outer-hdrLen)
	}
	whole := *f
	whole.Total, whole.OuterL4 = 0, uint8(adj.Rewrite.OuterL4())
	if adj.Rewrite.NeedsSum() {
		whole.Flags |= frame.SegOuterSum
	}
	switch {
	case !q.limits.Takes(&whole) || most < size:
		return size
	case payload <= most:
		return payload
	}
	return max(min(most, maxIPPacket-hdrLen)/size*size, size)
}

// maxIPPacket is the length of the longest IP packet that is no GSO frame, in bytes.
const maxIPPacket = 65535

// mostPayload is the largest payload of a segment that leaves by adj: what the path
// takes, and one chunk if the port's device sends no chains.
func (w *worker) mostPayload(adj *fib.Adjacency, hdrLen int) int {
	room := int(adj.MTU) - hdrLen
	if q := w.ports[adj.Port%maxPorts]; q == nil || q.limits.Chunks < minCiting {
		room = min(room, w.pool.ChunkSize()-frame.Headroom-hdrLen)
	}
	return room
}

// What one frame may become, at most: a pod may forge a frame's segment size, and
// nobody else is served while it is cut. UDP has UDP_MAX_SEGMENTS of
// include/linux/udp.h.
const (
	maxPieces    = 1500
	maxDatagrams = 128
)

// minSegment is the least payload of a segment, whatever a SYN announced: Linux's
// default of net.ipv4.tcp_min_snd_mss. Without it one frame could become 64,000.
const minSegment = 48
