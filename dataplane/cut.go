package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// cut makes pieces of a big frame, unit bytes of payload each, and stages them for
// the egress port. The big frame is freed. A piece of more than one segment is a
// big frame itself, for a device that takes those.
func (w *worker) cut(f *frame.Frame, rec *record, adj *fib.Adjacency, unit int) {
	info := &rec.info
	s := &w.segmenter
	if r := s.Init(w.pool.Bytes(f.Addr, f.Len)[info.L3:], info, unit); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	s.Step(unit / int(f.SegSize)) // 1, or a piece is a big frame itself
	hdrLen := uint32(s.HeaderLen())
	cite := w.citesPayload(adj.Port, unit)
	if !cite && unit > w.pool.ChunkSize()-frame.Headroom-int(hdrLen) {
		w.discard(f, rec, drop.CannotSegment)
		return
	}
	from := chain{pool: w.pool, f: f}
	from.skip(uint32(info.Payload))
	out := rec.info
	out.L3, out.L4, out.Payload = 0, info.L4-info.L3, info.Payload-info.L3
	out.Flags |= packet.Partial
	if info.Flags&packet.NoChecksum != 0 {
		out.Flags &^= packet.Partial
	}
	r := drop.None
	for more := true; more; {
		var piece frame.Frame
		var n int
		if r = w.newFrame(&piece); r != drop.None {
			break
		}
		_, n, more = s.Next(w.pool.Bytes(piece.Addr, hdrLen))
		piece.Len, piece.Total = hdrLen, hdrLen
		if cite {
			r = w.citePayload(&piece, &from, uint32(n))
		} else {
			from.read(w.pool.Bytes(piece.Addr+uint64(hdrLen), uint32(n)))
			piece.Len, piece.Total = hdrLen+uint32(n), hdrLen+uint32(n)
		}
		if n > int(f.SegSize) {
			piece.SegSize, piece.Flags = f.SegSize, f.Flags&(frame.SegKinds|frame.SegCWR)
			f.Flags &^= frame.SegCWR
		}
		out.L3Len = piece.Total
		if r == drop.None {
			r = w.rewrite(&piece, &out, adj, rec.hash)
		}
		if r != drop.None {
			w.pool.FreeFrame(&piece)
			break
		}
		w.enqueue(&piece, adj.Port)
	}
	w.endBig(f, rec, r)
}

// citesPayload says how pieces with so many bytes of payload get it: as descriptors
// that cite the big frame's chunks, or copied. The kernel gathers a frame's
// chunks in copy mode, too, but at a page and a copy for each
// (net/xdp/xsk.c, xsk_build_skb): a segment is copied cheaper here.
func (w *worker) citesPayload(index uint16, unit int) bool {
	q := w.ports[index%maxPorts]
	if q == nil || q.limits.Chunks < minCiting {
		return false
	}
	return q.limits.Gather || unit > w.pool.ChunkSize()-frame.Headroom-maxHeader
}

const (
	// minCiting is the number of chunks of a segment that is cited: its headers,
	// and payload from two of the big frame's.
	minCiting = 3
	// maxHeader is the length of the longest inner headers of a segment in bytes.
	maxHeader = 128
)

// citePayload makes the next n bytes of the big frame part of the piece.
func (w *worker) citePayload(piece *frame.Frame, from *chain, n uint32) drop.Reason {
	if cap(w.arena)-len(w.arena) < frame.MaxChunks+mergeRoom {
		w.flush() // frames that wait cite the arena
	}
	start := len(w.arena)
	for n > 0 {
		d := from.next(n)
		if d.Len == 0 || !w.pool.Cite(d.Addr) {
			piece.Rest = w.arena[start:]
			return drop.CannotSegment
		}
		w.arena = append(w.arena, d)
		piece.Total += d.Len
		n -= d.Len
	}
	piece.Rest = w.arena[start:len(w.arena):len(w.arena)]
	return drop.None
}

// arenaSize is the number of descriptors for continuation chunks of staged frames:
// several 64 KB frames cut into segments, and a burst merged.
const arenaSize = 8192

// mergeRoom is how much of the arena is left to merging: all chunks of a burst.
const mergeRoom = frame.BurstSize * frame.MaxSegments

// fragment splits a packet whose sender allows it (RFC 791 3.2), each fragment
// in a chunk of its own, and sends the fragments. The packet is freed.
func (w *worker) fragment(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	info := &rec.info
	if info.Flags&packet.Partial != 0 {
		w.completeChecksum(f, info)
	}
	if info.Flags&packet.EmptyCRC != 0 {
		w.trim(f, uint32(info.L3)+info.L3Len)
		w.completeCRC(f, info)
		info.Flags &^= packet.EmptyCRC // what the fragments begin with is no SCTP header
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
		if r = w.rewrite(&frag, &out, adj, rec.hash); r != drop.None {
			w.pool.FreeFrame(&frag)
			break
		}
		w.enqueue(&frag, adj.Port)
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
		for _, q := range w.active {
			if q.limits.TxOnly {
				w.complete(q)
			}
		}
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

// completeCRC writes the CRC32c of an SCTP packet, which ends where the frame does,
// over all of its chunks (RFC 9260 6.8). Its header is in the first.
func (w *worker) completeCRC(f *frame.Frame, info *packet.Info) {
	head := w.pool.Bytes(f.Addr, f.Len)[info.L4:]
	if len(f.Rest) == 0 {
		packet.CompleteSCTP(head)
		return
	}
	crc := packet.CRC32c(0, head) // its own field is empty
	for i := range f.Rest {
		crc = packet.CRC32c(crc, w.pool.Bytes(f.Rest[i].Addr, f.Rest[i].Len))
	}
	packet.SCTP(head).SetCheck(crc)
}

// chain reads a frame's bytes in order across its chunks.
type chain struct {
	pool *frame.Pool
	f    *frame.Frame
	rest int    // index into Rest of the chunk after the current one
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
		d := c.next(uint32(len(dst)))
		if d.Len == 0 {
			return
		}
		dst = dst[copy(dst, c.pool.Bytes(d.Addr, d.Len)):]
	}
}

// next is where the next bytes are, as many as lie in one chunk and at most n; of
// no length at the frame's end.
func (c *chain) next(n uint32) frame.Desc {
	for c.left == 0 {
		if c.rest == len(c.f.Rest) {
			return frame.Desc{}
		}
		d := &c.f.Rest[c.rest]
		c.rest++
		c.addr, c.left = d.Addr, d.Len
	}
	d := frame.Desc{Addr: c.addr, Len: min(n, c.left)}
	c.addr += uint64(d.Len)
	c.left -= d.Len
	return d
}
