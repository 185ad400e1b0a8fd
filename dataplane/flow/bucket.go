package flow

import (
	"math/bits"
	"sync/atomic"
)

// slots is the number of keys in a bucket.
const slots = 8

// bucket is a cache line of the hash table. Keys that find their bucket full go
// on to the next one with room, and every bucket they pass counts them: a
// lookup goes on only where that count is not 0. Nothing is ever moved, so a
// reader needs no lock. Only the holder of the table's mutex writes.
type bucket struct {
	tags atomic.Uint64        // a byte a slot; 0 is an empty slot
	refs [slots]atomic.Uint32 // entry index<<1 | direction; meaningless where the tag is 0
	over atomic.Uint32        // keys that went on from here
	_    [20]byte
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// tagOf is the byte that stands for a hash in its bucket, never 0, in all eight
// positions. It comes from other bits than the bucket's number.
func tagOf(hash uint64) uint64 {
	tag := hash & 0xff
	if tag == 0 {
		tag = 1
	}
	return tag * lowBits
}

// match marks the high bit of each byte of tags that equals the one in tag. Bytes
// above a true match may be marked wrongly; the lowest mark is always right.
func match(tags, tag uint64) uint64 {
	x := tags ^ tag
	return (x - lowBits) &^ x & highBits
}

// home is the number of the bucket where a hash begins, of n.
func home(hash uint64, n int) int {
	return int((hash >> 32) * uint64(n) >> 32)
}

// put stores a reference in a free slot and reports whether there was one.
func (b *bucket) put(tag uint64, ref uint32) bool {
	tags := b.tags.Load()
	free := match(tags, 0)
	if free == 0 {
		return false
	}
	slot := bits.TrailingZeros64(free) / 8
	b.refs[slot].Store(ref)
	b.tags.Store(tags | tag&(0xff<<(8*slot)))
	return true
}

// take removes a reference and reports whether it was here.
func (b *bucket) take(tag uint64, ref uint32) bool {
	tags := b.tags.Load()
	for m := match(tags, tag); m != 0; m &= m - 1 {
		slot := bits.TrailingZeros64(m) / 8
		if b.refs[slot].Load() == ref && tags>>(8*slot)&0xff == tag&0xff {
			b.tags.Store(tags &^ (0xff << (8 * slot)))
			return true
		}
	}
	return false
}

// link makes a reference findable under hash. There are more slots than
// references, so there is room somewhere.
func (t *Table) link(hash uint64, ref uint32) {
	tag := tagOf(hash)
	for at := home(hash, len(t.buckets)); ; at = t.after(at) {
		b := &t.buckets[at]
		if b.put(tag, ref) {
			return
		}
		b.over.Add(1)
	}
}

// unlink undoes link.
func (t *Table) unlink(hash uint64, ref uint32) {
	tag := tagOf(hash)
	for at := home(hash, len(t.buckets)); ; at = t.after(at) {
		b := &t.buckets[at]
		if b.take(tag, ref) {
			return
		}
		b.over.Add(^uint32(0))
	}
}

// after is the bucket that follows.
func (t *Table) after(at int) int {
	if at++; at < len(t.buckets) {
		return at
	}
	return 0
}
