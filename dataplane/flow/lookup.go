package flow

import (
	"math/bits"

	"culvert/internal/packet"
)

// Lookup finds the flow and direction of a packet with key k. hash is k.Hash().
// It takes no lock and does not allocate. Only workers that are between two
// calls of Quiesce may call it; others use Find.
func (t *Table) Lookup(k *packet.Key, hash uint64) (e *Entry, dir Direction, ok bool) {
	// Nineteen in twenty keys are behind the first tag that matches in their
	// first bucket; search starts again for the others.
	tag := tagOf(hash)
	b := &t.buckets[home(hash, len(t.buckets))]
	m := match(b.tags.Load(), tag)
	if m == 0 {
		if b.over.Load() == 0 {
			return nil, Original, false
		}
		return t.search(k, hash)
	}
	ref := b.refs[bits.TrailingZeros64(m)/8&(slots-1)].Load()
	e = &t.entries[ref>>1]
	if !e.half[ref&1].is(k) {
		return t.search(k, hash)
	}
	return e, Direction(ref & 1), true
}

// is reports whether h belongs to a flow in the table and has key k. A reader may
// come upon an entry while it is filled anew: what it then reads of the key is
// worth nothing, and seq, which is even or has changed, says so. The race
// detector would call it a race.
//
//go:norace
func (h *half) is(k *packet.Key) bool {
	seq := h.seq.Load()
	return sameKey(&h.key, k) && seq&1 != 0 && h.seq.Load() == seq
}

// search is Lookup without the short cut.
func (t *Table) search(k *packet.Key, hash uint64) (e *Entry, dir Direction, ok bool) {
	tag := tagOf(hash)
	at := home(hash, len(t.buckets))
	for range t.buckets {
		b := &t.buckets[at]
		for m := match(b.tags.Load(), tag); m != 0; m &= m - 1 {
			ref := b.refs[bits.TrailingZeros64(m)/8&(slots-1)].Load()
			if e := &t.entries[ref>>1]; e.half[ref&1].is(k) {
				return e, Direction(ref & 1), true
			}
		}
		if b.over.Load() == 0 {
			break
		}
		at = t.after(at)
	}
	return nil, Original, false
}

// Find is Lookup for those that are no workers: it takes the mutex and returns
// a copy.
func (t *Table) Find(k *packet.Key) (v View, dir Direction, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, dir, ok := t.Lookup(k, k.Hash())
	if !ok {
		return View{}, Original, false
	}
	t.view(e, &v)
	return v, dir, true
}
