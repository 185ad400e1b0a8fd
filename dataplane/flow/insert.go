package flow

import "culvert/internal/packet"

// reclaimAt is the number of deleted entries from which Insert tries to use them
// again rather than memory never used before.
const reclaimAt = 64

// Insert adds a flow: orig is the key of its first packet, reply that of the
// answers, owner the port that the packet came by, Wire, or Towards. now is in seconds.
// The caller then calls Touch for that packet, of which Begin has said that it
// can begin a flow.
//
// When the flow is there already, because another worker has just added it, that
// one is returned; dir is then the packet's direction in it. When the table is
// full a flow is evicted: the oldest embryonic one from the wire, else the oldest
// embryonic one of a pod, else the oldest that is closing, else an established
// one that has been silent for five minutes.
//
// A refusal other than Accepted says why there is no flow; e is then nil.
//
// It takes the mutex and does not allocate.
func (t *Table) Insert(orig, reply *packet.Key, owner uint16, now uint32) (e *Entry, dir Direction, r Refusal) {
	hash, replyHash := orig.Hash(), reply.Hash()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(now)
	if e, dir, ok := t.Lookup(orig, hash); ok {
		return e, dir, Accepted
	}
	if _, _, ok := t.Lookup(reply, replyHash); ok {
		t.stats.InsertFailures.Clash++
		return nil, Original, Clash
	}
	t.settle()
	if !t.mayOwn(owner) {
		t.stats.InsertFailures.Limit++
		return nil, Original, Limit
	}
	i := t.room()
	if i == 0 {
		t.stats.InsertFailures.Full++
		return nil, Original, Full
	}
	e = &t.entries[i]
	t.fill(e, i, orig, reply, owner)
	if hash != replyHash || *orig != *reply {
		t.link(replyHash, i<<1|uint32(Reply))
	}
	t.link(hash, i<<1|uint32(Original))
	// Another worker may have found the flow and changed its state by now: the
	// class and the counted state are still ours.
	c := control(e.ctl.Load())
	t.enqueue(i, c.class())
	t.charge(i, c, +1)
	t.arm(i, c.expiry())
	t.stats.Len++
	t.stats.States[c.counted()]++
	t.stats.Inserts++
	if c.counted() != None {
		t.note(e, Began) // a TCP flow has no state before its first packet is accounted for: see relist
	}
	return e, Original, Accepted
}

// fill writes a new flow into entry i, which nobody can see.
func (t *Table) fill(e *Entry, i uint32, orig, reply *packet.Key, owner uint16) {
	for d := range e.half {
		h := &e.half[d]
		h.verdict.Store(0)
		h.ctx.Store(0)
		h.mss.Store(0)
		store(&e.counts[d].packets, 0)
		store(&e.counts[d].bytes, 0)
	}
	e.half[Original].mss.Store(uint32(owner) << 16)
	e.half[Original].key, e.half[Reply].key, e.self = *orig, *reply, i
	kind := kindOf(orig)
	c := control(kind) << kindShift
	if fromWire(owner) {
		c |= ctlWire
	}
	timeout := uint32(timeoutNone)
	if kind == kindTCP || kind == kindSCTP { // in state None
		e.window().clear()
	} else {
		c |= control(Unreplied)<<stateShift | control(t.now)<<ownShift
		timeout = c.timeout()
	}
	e.ctl.Store(uint64(c.with(c.state(), t.now+timeout).listed()))
	e.half[Original].seq.Add(1)
	e.half[Reply].seq.Add(1)
}

// room is the index of an entry to use, 0 when there is none.
func (t *Table) room() uint32 {
	unused := int(t.fresh) < len(t.entries)
	if t.free == 0 && (!unused || t.limbo.waiting.count+t.limbo.later.count >= reclaimAt) {
		t.reclaim()
	}
	if t.free == 0 && !unused {
		return 0
	}
	if t.stats.Len >= t.capacity && !t.evict() {
		return 0
	}
	i := t.free
	if i != 0 {
		t.free = t.entries[i].order.next
		return i
	}
	t.fresh++
	return t.fresh - 1
}

// remove takes entry i, which is marked dead, out of the table, and counts it.
// Evictions are their caller's to count, who knows of what class it was.
func (t *Table) remove(i uint32, why Change) {
	e := &t.entries[i]
	t.note(e, why)
	orig, reply := &e.half[Original].key, &e.half[Reply].key
	t.unlink(orig.Hash(), i<<1|uint32(Original))
	if *orig != *reply {
		t.unlink(reply.Hash(), i<<1|uint32(Reply))
	}
	e.half[Original].seq.Add(1)
	e.half[Reply].seq.Add(1)
	c := control(e.ctl.Load())
	t.dequeue(i, c.class())
	t.disarm(i)
	t.charge(i, c, -1)
	t.blame(i, c, why)
	t.stats.Len--
	t.stats.States[c.counted()]--
	switch why {
	case Expired:
		t.stats.Expired++
	case Flushed:
		t.stats.Flushed++
	case Gone:
		t.stats.Gone++
	}
	t.bury(i)
}
