package frag

import (
	"math/bits"

	"culvert/internal/drop"
	"culvert/internal/packet"
)

// extent is which bytes of a datagram have come. Fragments in order move two
// numbers; the others are noted in the datagram's cover.
type extent struct {
	low  uint32 // everything below has come; a multiple of unit, or the end
	high uint32 // nothing from here on has
	got  uint32 // bytes
	end  uint32 // of the datagram, once the last fragment has come, else 0
	used bool   // the cover is not empty
}

// unit is what fragments are counted in (RFC 791 3.2).
const unit = 8

// cover has a bit for each unit.
type cover [65536 / unit / 64]uint64

func (e *extent) reset(c *cover) {
	if e.used {
		clear(c[:])
	}
	*e = extent{}
}

// whole reports whether all of the datagram has come.
func (e *extent) whole() bool { return e.end != 0 && e.got == e.end }

// add notes a fragment, or says why it, or the whole datagram, is not sound. It
// may leave less than the truth of one that is not.
func (e *extent) add(c *cover, p *packet.Piece) drop.Reason {
	from, to := p.Offset, p.Offset+p.Len
	if p.More && e.end != 0 && to > e.end || !p.More && (to < e.high || e.end != 0 && to != e.end) {
		return drop.FragmentEnd
	}
	if from < e.high {
		switch n := e.count(c, from/unit, (to+unit-1)/unit); {
		case n == (to+unit-1)/unit-from/unit:
			return drop.FragmentDuplicate // inet_frag_queue_insert: IPFRAG_DUP
		case n != 0:
			return drop.FragmentOverlap
		}
	}
	if from == e.low {
		e.low = to
	} else {
		c.set(from/unit, (to+unit-1)/unit)
		e.used = true
	}
	e.got += p.Len
	e.high = max(e.high, to)
	if !p.More {
		e.end = to
	}
	return drop.None
}

// count is how many of the units from, … to-1 have come.
func (e *extent) count(c *cover, from, to uint32) (n uint32) {
	low := (e.low + unit - 1) / unit
	if from < low {
		n = min(low, to) - from
		from += n
	}
	if e.used {
		n += c.count(from, to)
	}
	return n
}

// mask has the bits from, … to-1 of word w, with from < to.
func mask(w, from, to uint32) uint64 {
	m := ^uint64(0)
	if w == from/64 {
		m <<= from % 64
	}
	if w == (to-1)/64 {
		m &= ^uint64(0) >> (63 - (to-1)%64)
	}
	return m
}

func (c *cover) set(from, to uint32) {
	for w := from / 64; w*64 < to; w++ {
		c[w] |= mask(w, from, to)
	}
}

func (c *cover) count(from, to uint32) (n uint32) {
	for w := from / 64; from < to && w*64 < to; w++ {
		n += uint32(bits.OnesCount64(c[w] & mask(w, from, to)))
	}
	return n
}
