package frag

import "culvert/internal/drop"

// hold is one frame that the caller keeps.
type hold struct {
	next   Handle
	chunks uint16
	port   uint16
	reason drop.Reason
}

// chain is a queue of handles.
type chain struct{ first, last Handle }

// hold keeps a fragment that came before the first of its datagram. A port has at
// most half of the room: at its limit the oldest of its own datagrams that wait goes.
func (t *Tracker) hold(i uint16, f *Fragment) Result {
	d, p := &t.datagrams[i], &t.ports[f.Port]
	chunks := int(max(f.Chunks, 1))
	fits := int(d.holds) < t.cfg.HeldEach && chunks <= t.cfg.Chunks && chunks <= t.cfg.Held/2
	for fits && p.held+chunks > t.cfg.Held/2 {
		fits = t.evictOther(p.waits.first, i)
	}
	for fits && t.stats.Chunks+chunks > t.cfg.Held {
		fits = t.evictOther(t.waits.first, i)
	}
	if !fits {
		t.condemn(i, drop.FragmentTableFull)
		return Result{Verdict: Drop, Reason: drop.FragmentTableFull}
	}
	h := t.freeHold
	t.freeHold = t.holds[h].next
	t.holds[h] = hold{chunks: uint16(chunks), port: f.Port}
	t.stats.Chunks += chunks
	p.held += chunks
	t.stats.Held++
	if d.tail != 0 {
		t.holds[d.tail].next = h
	} else {
		d.head = h
	}
	d.tail = h
	d.holds++
	return Result{Verdict: Hold, Handle: h}
}

// evictOther evicts a datagram unless it is none, or the one that room is made
// for.
func (t *Tracker) evictOther(i, keep uint16) bool {
	if i == 0 || i == keep {
		return false
	}
	t.evict(i)
	return true
}

// abandon queues the frames that wait of a datagram for Dropped.
func (t *Tracker) abandon(i uint16, r drop.Reason) {
	d := &t.datagrams[i]
	for h := d.head; h != 0; h = t.holds[h].next {
		t.holds[h].reason = r
		t.unhold(h)
	}
	switch {
	case d.head == 0:
		return
	case t.dropped.last != 0:
		t.holds[t.dropped.last].next = d.head
	default:
		t.dropped.first = d.head
	}
	t.dropped.last = d.tail
	d.holds, d.head, d.tail = 0, 0, 0
}

// unhold no longer counts a frame as one that waits.
func (t *Tracker) unhold(h Handle) {
	n := int(t.holds[h].chunks)
	t.stats.Chunks -= n
	t.ports[t.holds[h].port].held -= n
	t.stats.Held--
}

// Release ends the keeping of a frame that has waited for the first fragment,
// and returns the next one that has.
func (t *Tracker) Release(h Handle) (next Handle) {
	next = t.holds[h].next
	t.unhold(h)
	t.recycle(h)
	return next
}

// Dropped is a frame that the caller has kept and is to drop, or none. Another may
// get its handle with the next Add.
func (t *Tracker) Dropped() (h Handle, r drop.Reason) {
	h = t.dropped.first
	if h == 0 {
		return 0, drop.None
	}
	r = t.holds[h].reason
	t.dropped.first = t.holds[h].next
	if t.dropped.first == 0 {
		t.dropped.last = 0
	}
	t.recycle(h)
	return h, r
}

func (t *Tracker) recycle(h Handle) {
	t.holds[h].next, t.freeHold = t.freeHold, h
}
