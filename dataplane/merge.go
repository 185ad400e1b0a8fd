package dataplane

import (
	"math/bits"

	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/packet"
)

// groups are the big frames in the making: TCP segments from the wire, or big frames
// from anywhere, that follow each other in their flow and leave by the same port
// become one frame, as Linux's GRO makes it of segments. A group lives from its first segment to the flush of its
// port, so that nothing waits for a later burst. Its first frame stands in the
// port's tx; the others' payloads are chained behind it at the end.
//
// A flow may use any slot of the set that its hash names, so that few flows in a
// burst close each other's groups.
type groups struct {
	open  uint32 // slots in use, a bit each
	slot  [groupSlots]group
	turn  uint // of the slots to be given to another flow
	links [frame.BurstSize]link
	used  int
}

// groupSlots is the number of flows whose segments can be merged at once: a bit
// each in groups.open. Linux's GRO has as many buckets, of eight flows
// (GRO_HASH_BUCKETS, MAX_GRO_SKBS in net/core/gro.c).
const (
	groupSlots = groupSets * groupWays
	groupSets  = 8
	groupWays  = 4
)

// group is the big frame of one flow.
type group struct {
	q     *portQueue // nil: the slot is free
	entry *flow.Entry
	merge packet.Merge
	info  packet.Info // of the first segment
	dir   flow.Direction
	sound bool   // the first segment's checksum is known to be right
	l2Len uint16 // offset of the IP header in the frames
	head  uint16 // of the first segment in q.tx
	first int16  // its links
	last  int16
	// chunks is the number of them in the frame as far as it is.
	chunks int
}

// link is the payload of one further segment, or of a big frame.
type link struct {
	desc frame.Desc
	rest []frame.Desc
	next int16
}

// enqueueSegment stages a TCP segment, or a big frame of them, as part of the group
// of its flow if it continues that.
func (w *worker) enqueueSegment(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	q := w.ports[adj.Port%maxPorts]
	if q == nil || q.limits.Offload&frame.OffloadTCP == 0 || f.Rest != nil && f.SegSize == 0 {
		rec.live = false
		w.enqueue(f, adj.Port)
		return
	}
	l2Len := uint16(adj.Rewrite.Len)
	ip := w.pool.Bytes(f.Addr, f.Len)[l2Len:]
	i := w.groups.find(q, rec)
	g := &w.groups.slot[i]
	if g.of(q, rec) && w.join(g, f, ip, rec) {
		return
	}
	if g.q != nil {
		w.closeGroup(i)
		w.groups.turn++
	}
	rec.live = false
	w.enqueue(f, adj.Port)
	if !g.start(ip, f, rec, q.limits.Bytes) || g.merge.Closed() {
		return
	}
	g.q, g.entry, g.dir, g.info = q, rec.entry, rec.dir, rec.info
	g.sound = rec.info.Flags&packet.Partial != 0
	g.l2Len, g.head, g.first, g.last = l2Len, uint16(q.ntx-1), -1, -1
	g.chunks = 1 + len(f.Rest)
	w.groups.open |= 1 << i
}

// of reports whether the group is of the segment's flow and direction, on its way to q.
func (g *group) of(q *portQueue, rec *record) bool {
	return g.q == q && g.entry == rec.entry && g.dir == rec.dir
}

// start begins a group with f, whose IP packet is at ip, in frames of most bytes.
func (g *group) start(ip []byte, f *frame.Frame, rec *record, most int) bool {
	if f.SegSize == 0 {
		return g.merge.Start(ip, &rec.info)
	}
	return g.merge.StartBig(ip, &rec.info, int(f.SegSize), most-packet.EthernetLen)
}

// add makes the packet at ip, which is f's, a part of the group.
func (g *group) add(first, ip []byte, f *frame.Frame, rec *record) bool {
	if f.SegSize == 0 {
		return g.merge.Add(first, ip, &rec.info)
	}
	return g.merge.AddBig(first, ip, &rec.info, int(f.SegSize))
}

// find is the slot of the segment's group, or else one that its group may have:
// a free one of its set, or each of them in turn.
func (gs *groups) find(q *portQueue, rec *record) uint {
	first := uint(rec.hash%groupSets) * groupWays
	best := first + gs.turn%groupWays
	for i := first; i < first+groupWays; i++ {
		g := &gs.slot[i]
		if g.of(q, rec) {
			return i
		}
		if g.q == nil {
			best = i
		}
	}
	return best
}

// join makes f part of the group, if it continues it and nothing is wrong with it:
// who takes a big frame does not look at checksums any more.
func (w *worker) join(g *group, f *frame.Frame, ip []byte, rec *record) bool {
	gs := &w.groups
	if g.merge.Closed() || gs.used == len(gs.links) || g.chunks+1+len(f.Rest) > g.q.limits.Chunks {
		return false
	}
	head := &g.q.tx[g.head]
	first := w.pool.Bytes(head.Addr, head.Len)[g.l2Len:]
	if !g.sound {
		if !packet.VerifyTransport(first, &g.info) {
			return false
		}
		g.sound = true
	}
	if rec.info.Flags&packet.Partial == 0 && !packet.VerifyTransport(ip, &rec.info) {
		return false
	}
	n := uint32(rec.info.PayloadLen())
	if int(head.Total)+g.more()+int(n) > g.q.limits.Bytes || !g.add(first, ip, f, rec) {
		return false
	}
	rec.live = false
	i := int16(gs.used)
	gs.used++
	headers := f.Total - n
	gs.links[i] = link{desc: frame.Desc{Addr: f.Addr + uint64(headers), Len: f.Len - headers}, rest: f.Rest, next: -1}
	g.chunks += 1 + len(f.Rest)
	if g.last < 0 {
		g.first = i
	} else {
		gs.links[g.last].next = i
	}
	g.last = i
	return true
}

// more is the number of payload bytes behind those of the group's first frame.
func (g *group) more() int { return g.merge.Len() - g.info.PayloadLen() }

// closeGroups ends the groups whose first segment waits at q.
func (w *worker) closeGroups(q *portQueue) {
	for open := w.groups.open; open != 0; open &= open - 1 {
		if i := uint(bits.TrailingZeros32(open)); w.groups.slot[i].q == q {
			w.closeGroup(i)
		}
	}
}

// closeAllGroups ends every group, before the burst is flushed.
func (w *worker) closeAllGroups() {
	for w.groups.open != 0 {
		w.closeGroup(uint(bits.TrailingZeros32(w.groups.open)))
	}
}

// closeGroup makes the group's first segment the big frame that it stands for.
func (w *worker) closeGroup(i uint) {
	g := &w.groups.slot[i%groupSlots]
	q := g.q
	g.q, g.entry = nil, nil
	w.groups.open &^= 1 << i
	if g.first < 0 {
		return
	}
	bump(&w.gauges.merged, 1)
	head := &q.tx[g.head]
	b := w.pool.Bytes(head.Addr, head.Len)
	g.merge.Finish(b[g.l2Len:])
	start := len(w.arena)
	w.arena = append(w.arena, head.Rest...)
	for i := g.first; i >= 0; i = w.groups.links[i].next {
		l := &w.groups.links[i]
		w.arena = append(w.arena, l.desc)
		w.arena = append(w.arena, l.rest...)
	}
	head.Rest = w.arena[start:len(w.arena):len(w.arena)]
	head.Total += uint32(g.more())
	head.SegSize = uint16(g.merge.Size())
	head.HeaderLen = g.l2Len + g.info.Payload - g.info.L3
	head.Flags = frame.CsumPartial | segKind(&g.info)
	head.CsumStart = g.l2Len + g.info.L4 - g.info.L3
	head.CsumOffset = tcpChecksum
	head.OuterL4 = 0 // groups are made for pods
}

// tcpChecksum is the offset of the checksum in a TCP header.
const tcpChecksum = 16
