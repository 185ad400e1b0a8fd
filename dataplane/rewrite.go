package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// ageHop does what every router does to a packet it forwards: one hop less
// (RFC 1812 5.3.1), and the ECN mark that the outer header brought. The record
// follows what is now in the packet. The node's own stack is no router on the way.
func (w *worker) ageHop(f *frame.Frame, rec *record) {
	if rec.nat {
		w.translate(f, rec)
	}
	b := w.pool.Bytes(f.Addr, f.Len)[rec.info.L3:]
	if rec.info.Flags&packet.V4 != 0 {
		h := packet.IPv4(b)
		if rec.tos != rec.info.TOS {
			h.UpdateTOS(rec.tos)
		}
		if !rec.same {
			packet.DecrementTTL4(h)
		}
	} else {
		h := packet.IPv6(b)
		if rec.tos != rec.info.TOS {
			h.SetTrafficClass(rec.tos)
		}
		if !rec.same {
			h.SetHopLimit(rec.info.TTL - 1)
		}
	}
	rec.info.TOS = rec.tos
	if !rec.same {
		rec.info.TTL--
	}
}

// rewrite replaces everything in front of the IP header by the adjacency's
// header and cuts off trailing padding. The packet's own bytes are not moved.
// hash is that of the flow: it becomes the tunnel's source port.
func (w *worker) rewrite(f *frame.Frame, info *packet.Info, adj *fib.Adjacency, hash uint64) drop.Reason {
	n := uint32(adj.Rewrite.Len)
	l3 := f.Addr + uint64(info.L3)
	if w.pool.HeadroomOf(l3) < int(n) {
		return drop.NoHeadroom
	}
	w.trim(f, uint32(info.L3)+info.L3Len)
	if info.Flags&packet.EmptyCRC != 0 {
		w.completeCRC(f, info)
	}
	grow := n - uint32(info.L3) // may wrap: popping more than is pushed
	f.Addr = l3 - uint64(n)
	f.Len += grow
	f.Total += grow
	w.ident++
	if w.ident == 0 {
		w.ident = 1
	}
	// Filled in place: a value built here and copied stalls on its own stores.
	in := &w.inner
	in.Len, in.SrcPort, in.ID = int(info.L3Len), encap.SourcePort(hash), w.ident
	in.TOS, in.TTL = info.TOS, info.TTL
	in.DF, in.V6 = info.Flags&packet.DF != 0, info.Flags&packet.V6 != 0
	f.Flags &= frame.SegKinds | frame.SegCWR
	if adj.Rewrite.NeedsSum() {
		if in.PartialSum = f.SegSize != 0; in.PartialSum {
			f.Flags |= frame.SegOuterSum
		} else {
			in.Sum = w.sumInner(f, info, n)
		}
	}
	adj.Rewrite.Push(w.pool.Bytes(f.Addr, n), in)
	if f.SegSize != 0 {
		f.HeaderLen = uint16(n) + info.Payload - info.L3
		f.OuterL4 = uint8(adj.Rewrite.OuterL4())
	}
	if info.Flags&packet.Partial != 0 {
		offset, _ := packet.ChecksumOffset(info.Proto)
		f.Flags |= frame.CsumPartial
		f.CsumStart = uint16(n) + info.L4 - info.L3
		f.CsumOffset = uint16(offset)
	}
	return drop.None
}

// trim cuts the frame to n bytes: what follows the IP packet is Ethernet
// padding. Chunks that hold nothing else are freed.
func (w *worker) trim(f *frame.Frame, n uint32) {
	for f.Total > n {
		over := f.Total - n
		last := len(f.Rest) - 1
		if last < 0 {
			f.Len, f.Total = f.Len-over, n
			return
		}
		d := &f.Rest[last]
		if d.Len > over {
			d.Len -= over
			f.Total = n
			return
		}
		f.Total -= d.Len
		w.pool.Free(d.Addr)
		f.Rest = f.Rest[:last]
	}
}
