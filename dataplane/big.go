package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// admitBig settles what a received big frame is. Devices with a virtio_net_hdr say
// what it is to be cut into; one that came through XDP has lost it (the program
// sees bytes, skb_shinfo(skb)->gso_size is none of them): a TCP packet beyond
// what the far side sends unsegmented is taken for a GSO frame all the same.
func (w *worker) admitBig(f *frame.Frame, rec *record) {
	info := &rec.info
	kind := segKind(info)
	if f.SegSize == 0 {
		if kind != frame.SegTCP4 && kind != frame.SegTCP6 {
			return // too long for its port, and no GSO frame: forward refuses or fragments it
		}
		mtu := w.in.port.spec.MTU
		f.SegSize = uint16(max(mtu-int(info.Payload-info.L3), minSegment))
		f.Flags |= kind
		if info.TCPFlags&packet.TCPCwr != 0 {
			f.Flags |= frame.SegCWR
		}
		rec.guessed = true
	} else if f.Flags&frame.SegKinds != kind || info.PayloadLen() <= 0 {
		w.discard(f, rec, drop.CannotSegment)
		return
	}
	f.HeaderLen = info.Payload
	w.in.rxPackets += uint64(f.Segments() - 1)
	w.in.rxBytes += f.WireBytes() - uint64(f.Total)
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
	switch {
	case f.SegSize != 0:
		w.forwardSegments(f, rec, adj)
	case rec.info.Flags&(packet.V4|packet.DF) == packet.V4:
		w.fragment(f, rec, adj)
	default:
		w.refuse(f, rec, adj, drop.TooBig)
	}
}

// forwardSegments sends a frame that stands for many: whole, where the egress
// device takes it so, else cut.
func (w *worker) forwardSegments(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	info := &rec.info
	hdrLen := int(info.Payload - info.L3)
	size := w.segmentSize(f, rec, int(adj.MTU)-hdrLen)
	if size <= 0 || info.PayloadLen()/size > maxPieces {
		w.discard(f, rec, drop.CannotSegment)
		return
	}
	if size < int(f.SegSize) && f.Flags&frame.SegUDP != 0 {
		w.refuse(f, rec, adj, drop.TooBig) // datagrams are not to be made smaller
		return
	}
	f.SegSize = uint16(size)
	if rec.entry != nil {
		n := f.Segments()
		rec.entry.Touch(rec.dir, info, info.L3Len+(n-1)*uint32(hdrLen), n, w.now)
	}
	w.ageHop(f, rec)
	unit := w.wholeUnit(f, rec, adj, hdrLen)
	if unit < info.PayloadLen() {
		w.cut(f, rec, adj, unit)
		return
	}
	if r := w.rewrite(f, info, adj, rec.hash); r != drop.None {
		w.discard(f, rec, r)
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
	if q == nil || adj.Kind == fib.KindIPIP || adj.Rewrite.NeedsSum() {
		return size // no offload knows IPIP, or sums an outer checksum
	}
	most := q.limits.Bytes - int(adj.Rewrite.Len) - hdrLen
	if outer := int(adj.Rewrite.Len) - packet.EthernetLen; outer > 0 {
		most = min(most, maxIPPacket-outer-hdrLen)
	}
	whole := *f
	whole.Total, whole.OuterL4 = 0, uint8(adj.Rewrite.OuterL4())
	switch {
	case !q.limits.Takes(&whole) || most < size:
		return size
	case payload <= most:
		return payload
	}
	return most / size * size
}

// maxIPPacket is the length of the longest IP packet that is no GSO frame, in bytes.
const maxIPPacket = 65535

// maxPieces bounds the frames that one becomes.
const maxPieces = frame.MaxBytes / minSegment

// minSegment is the least payload of a segment, whatever a SYN announced: Linux's
// default of net.ipv4.tcp_min_snd_mss. Without it one frame could become 64,000.
const minSegment = 48

// segmentSize is the payload of one segment within room bytes: what the sender
// said, or if that was lost what the receiver announced in its SYN, less the
// options that each segment carries (RFC 6691).
func (w *worker) segmentSize(f *frame.Frame, rec *record, room int) int {
	size := int(f.SegSize)
	if rec.guessed && rec.entry != nil {
		if mss := int(rec.entry.MSS(rec.dir.Other())); mss != 0 {
			options := int(rec.info.Payload-rec.info.L4) - packet.TCPLen
			size = min(size, mss-options)
		}
	}
	if f.Flags&frame.SegUDP == 0 {
		size = max(size, minSegment)
	}
	return min(size, room)
}
