package flow

import (
	"math/bits"

	"culvert/internal/packet"
)

// Lookup finds the flow and direction of a packet with key k. hash is k.Hash().
// It takes no lock and does not allocate. Only workers that are between two
// calls of Quiesce may call it; others use Find.
func (t *Table) Lookup(k *packet.Key, hash uint64) (e *Entry, dir Direction, ok bool) {
	return t.FinishLookup(k, hash, t.probe(hash))
}

// Probe is a lookup under way: the entry and direction that is likely, 0 for none.
type Probe uint32

// BeginLookups begins the lookups of a burst, for FinishLookup to end each: probes[i] is that of
// hashes[i]. Most of a lookup in a large table is waiting for memory. Here the
// processor waits for many cache lines at a time: the loops are so short that it
// has begun dozens of rounds before the first line comes.
func (t *Table) BeginLookups(hashes []uint64, probes []Probe) {
	probes = probes[:len(hashes)]
	n := len(t.buckets)
	for _, hash := range hashes {
		t.buckets[home(hash, n)].tags.Load()
	}
	for i, hash := range hashes {
		probes[i] = t.probe(hash)
	}
	for _, p := range probes {
		e := &t.entries[p>>1]
		e.half[p&1].seq.Load()
	}
}

// probe looks into the first bucket of a hash.
func (t *Table) probe(hash uint64) Probe {
	b := &t.buckets[home(hash, len(t.buckets))]
	m := match(b.tags.Load(), tagOf(hash))
	if m == 0 {
		return 0
	}
	return Probe(b.refs[bits.TrailingZeros64(m)/8&(slots-1)].Load())
}

// FinishLookup is the rest of Lookup. Nineteen in twenty keys are behind the first tag that
// matches in their first bucket; search starts again for the others.
func (t *Table) FinishLookup(k *packet.Key, hash uint64, p Probe) (e *Entry, dir Direction, ok bool) {
	if e = &t.entries[p>>1]; p == 0 || !e.half[p&1].is(k) {
		return t.search(k, hash)
	}
	return e, Direction(p & 1), true
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
	if t.entries == nil {
		return View{}, Original, false // closed
	}
	e, dir, ok := t.Lookup(k, k.Hash())
	if !ok {
		return View{}, Original, false
	}
	t.view(e, &v)
	return v, dir, true
}
