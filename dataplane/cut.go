package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// forwardBig takes a packet that is larger than its egress allows. A TCP packet
// beyond what the far side sends unsegmented is a GSO frame and is cut as the
// kernel would have; any other is what a router treats so: fragmented where
// its sender permits, refused with the size that fits where not (RFC 1191).
func (w *worker) forwardBig(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	info := &rec.info
	switch {
	case info.Proto == packet.ProtoTCP && info.L4 != 0 && info.L3Len > uint32(w.in.port.spec.MTU):
		w.segment(f, rec, adj)
	case info.Flags&(packet.V4|packet.DF) == packet.V4:
		w.fragment(f, rec, adj)
	default:
		w.refuse(f, rec, adj, drop.TooBig)
	}
}

// segment cuts a GSO frame into TCP segments for the egress port, each in a
// chunk of its own, and sends them. The big frame is freed.
func (w *worker) segment(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	info := &rec.info
	w.ageHop(f, rec)
	head := w.pool.Bytes(f.Addr, f.Len)[info.L3:]
	hdrLen := uint32(info.Payload - info.L3)
	mss := w.segmentSize(rec, adj, hdrLen)
	if mss <= 0 {
		w.discard(f, rec, drop.CannotSegment)
		return
	}
	s := &w.segmenter
	if r := s.Init(head, info, mss); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	from := chain{pool: w.pool, f: f}
	from.skip(uint32(info.Payload))
	out := rec.info
	out.L3, out.L4, out.Payload = 0, info.L4-info.L3, info.Payload-info.L3
	out.Flags |= packet.Partial
	var packets, bytes uint32
	r := drop.None
	for more := true; more; {
		var seg frame.Frame
		var n int
		if r = w.newFrame(&seg); r != drop.None {
			break
		}
		_, n, more = s.Next(w.pool.Bytes(seg.Addr, hdrLen))
		from.read(w.pool.Bytes(seg.Addr+uint64(hdrLen), uint32(n)))
		seg.Len = hdrLen + uint32(n)
		seg.Total = seg.Len
		out.L3Len = seg.Len
		bytes += seg.Len
		packets++
		if r = w.rewrite(&seg, &out, adj, rec.hash); r != drop.None {
			w.pool.FreeFrame(&seg)
			break
		}
		w.enqueue(&seg, adj.Port)
	}
	if packets > 0 && rec.entry != nil {
		rec.entry.Touch(rec.dir, info, bytes, packets, w.now)
	}
	w.endBig(f, rec, r)
}

// minSegment is the least payload of a segment, whatever a SYN announced: Linux's
// default of net.ipv4.tcp_min_snd_mss. Without it one frame could become 64,000.
const minSegment = 48

// segmentSize is the payload of one segment: what the receiver announced in its
// SYN, less the options that each segment carries (RFC 6691), within the
// egress MTU and one chunk.
func (w *worker) segmentSize(rec *record, adj *fib.Adjacency, hdrLen uint32) int {
	room := min(int(adj.MTU), w.pool.ChunkSize()-frame.Headroom) - int(hdrLen)
	if rec.entry != nil {
		if mss := int(rec.entry.MSS(rec.dir.Other())); mss != 0 {
			options := int(rec.info.Payload-rec.info.L4) - packet.TCPLen
			room = min(room, max(mss-options, minSegment))
		}
	}
	return room
}

// fragment splits a packet whose sender allows it (RFC 791 3.2), each fragment
// in a chunk of its own, and sends the fragments. The packet is freed.
func (w *worker) fragment(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	info := &rec.info
	if info.Flags&packet.Partial != 0 {
		w.completeChecksum(f, info)
	}
	w.ageHop(f, rec)
	s := &w.fragmenter
	head := w.pool.Bytes(f.Addr, f.Len)[info.L3:]
	mtu := min(int(adj.MTU), w.pool.ChunkSize()-frame.Headroom)
	if r := s.Init(head, info, mtu); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	hdrLen := uint32(packet.IPv4(head).HeaderLen())
	from := chain{pool: w.pool, f: f}
	from.skip(uint32(info.L3) + hdrLen)
	out := *info
	out.L3, out.L4, out.Payload = 0, 0, uint16(hdrLen)
	out.Flags &^= packet.Partial
	var packets, bytes uint32
	r := drop.None
	for more := true; more; {
		var frag frame.Frame
		var n int
		if r = w.newFrame(&frag); r != drop.None {
			break
		}
		_, _, n, more = s.Next(w.pool.Bytes(frag.Addr, hdrLen))
		from.read(w.pool.Bytes(frag.Addr+uint64(hdrLen), uint32(n)))
		frag.Len = hdrLen + uint32(n)
		frag.Total = frag.Len
		out.L3Len = frag.Len
		bytes += frag.Len
		packets++
		if r = w.rewrite(&frag, &out, adj, rec.hash); r != drop.None {
			w.pool.FreeFrame(&frag)
			break
		}
		w.enqueue(&frag, adj.Port)
	}
	if packets > 0 && rec.entry != nil {
		rec.entry.Touch(rec.dir, info, bytes, packets, w.now)
	}
	w.endBig(f, rec, r)
}

// endBig frees a frame that was cut, counting it as dropped when the cut ended early.
func (w *worker) endBig(f *frame.Frame, rec *record, r drop.Reason) {
	if r != drop.None {
		w.discard(f, rec, r)
		return
	}
	rec.live = false
	w.pool.FreeFrame(f)
}

// newFrame takes a chunk for a frame that the worker builds. When none is free
// it sends what is staged, so that completions come back, and tries again.
func (w *worker) newFrame(f *frame.Frame) drop.Reason {
	addr, ok := w.pool.Alloc()
	if !ok {
		w.flush()
		if addr, ok = w.pool.Alloc(); !ok {
			return drop.NoBuffer
		}
	}
	*f = frame.Frame{Addr: addr}
	return drop.None
}

// completeChecksum finishes a partial layer-4 checksum over all of a frame's chunks.
func (w *worker) completeChecksum(f *frame.Frame, info *packet.Info) {
	offset, ok := packet.ChecksumOffset(info.Proto)
	if !ok {
		return
	}
	end := uint32(info.L3) + info.L3Len
	first := w.pool.Bytes(f.Addr, f.Len)
	w.sum.Reset(0)
	w.sum.Add(first[info.L4:min(f.Len, end)])
	done := f.Len
	for i := range f.Rest {
		if done >= end {
			break
		}
		w.sum.Add(w.pool.Bytes(f.Rest[i].Addr, min(f.Rest[i].Len, end-done)))
		done += f.Rest[i].Len
	}
	packet.StoreChecksum(first[int(info.L4)+offset:], w.sum.Sum())
	info.Flags &^= packet.Partial
}

// chain reads a frame's bytes in order across its chunks.
type chain struct {
	pool *frame.Pool
	f    *frame.Frame
	next int    // index into Rest of the chunk after the current one
	addr uint64 // of the next byte
	left uint32 // bytes left in the current chunk
}

// skip passes over n bytes from the frame's start. They lie in the first chunk.
func (c *chain) skip(n uint32) {
	c.addr, c.left = c.f.Addr+uint64(n), c.f.Len-n
}

// read fills dst with the next bytes; the frame holds enough of them.
func (c *chain) read(dst []byte) {
	for len(dst) > 0 {
		if c.left == 0 {
			if c.next == len(c.f.Rest) {
				return
			}
			d := &c.f.Rest[c.next]
			c.next++
			c.addr, c.left = d.Addr, d.Len
			continue
		}
		n := copy(dst, c.pool.Bytes(c.addr, c.left))
		dst = dst[n:]
		c.addr += uint64(n)
		c.left -= uint32(n)
	}
}
