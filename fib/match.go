package fib

import (
	"encoding/binary"
	"math/bits"

	"culvert/internal/packet"
)

// matcher answers what packets ask: which adjacency the longest prefix leads to.
// It is compiled from the routes (compile.go) and never changes. bart, which
// holds them, answers any question about them, and that takes a dozen loads that
// wait for each other; this takes three to six, from a fraction of the memory.
//
//	IPv4  16 bits  page ─ 8 bits  block                    ─ longer than 24 bits: bart
//	IPv6  16 bits  page ─ 8 bits  page ─ 8 bits  block6 ─ 16 bits  leaf ─ longer than 48 bits: bart
//
// Each level knows the routes that end in its own bits and says 0 where there is
// none: the level above decides then. So a short route is in few places, however
// many longer ones there are below.
type matcher struct {
	v4 *root[block]
	v6 *root[*page[*block6]]
}

// deep stands for: bart knows. No adjacency has that identifier.
const deep = AdjID(1<<32 - 1)

// root is indexed by the first byte of an address.
type root[C any] [256]*page[C]

// page is indexed by a byte. short is the best route that ends above or in the
// byte, where it is not left to the page above; kids are the longer ones.
// epoch is the writer's.
type page[C any] struct {
	epoch uint32
	short [256]AdjID
	kids  [256]C
}

// runs are 256 slots as runs of equal ones: a bit for each slot with which a run
// begins, slot 0's always set, and for each word how many runs began before it.
type runs struct {
	starts [8]uint32
	before [8]uint8
}

// index is the number of the run that slot i is in, from 1 on.
func (r *runs) index(i uint8) int {
	w := i >> 5
	return int(r.before[w]) + bits.OnesCount32(r.starts[w]<<(31-i&31))
}

// block are the 256 /24 of an IPv4 /16: runs in blockHead words, then what each
// run leads to. All is in one piece so that a lookup waits for memory once.
type block []uint32

const blockHead = 8 + 2

func (b block) find(i uint8) AdjID {
	head := (*[blockHead]uint32)(b)
	w := i >> 5
	before := uint8(head[8+w>>2] >> (w & 3 * 8))
	return AdjID(b[blockHead-1+int(before)+bits.OnesCount32(head[w]<<(31-i&31))])
}

// block6 are the 256 /32 of an IPv6 /24.
type block6 struct {
	runs
	below []below // by run
}

// below is what is known of an IPv6 /32: the best route of 25 to 32 bits, and
// the longer ones, noLeaf if there are none.
type below struct {
	adj  AdjID
	leaf leaf
}

// find4 is the best route for an address of 32 bits: 0 is none. Among what the
// levels say is chosen by conditional moves, here and below: a branch that is
// guessed wrong costs the overlap with the next packet's lookup.
func (m *matcher) find4(a uint32) AdjID {
	p := m.v4[a>>24]
	if p == nil {
		return 0
	}
	id := p.short[uint8(a>>16)]
	if b := p.kids[uint8(a>>16)]; b != nil {
		if longer := b.find(uint8(a >> 8)); longer != 0 {
			id = longer
		}
	}
	return id
}

// find6 is the best route for an address with these first 64 bits: 0 is none.
func (m *matcher) find6(a uint64) AdjID {
	top := m.v6[a>>56]
	if top == nil {
		return 0
	}
	id := top.short[uint8(a>>48)]
	p := top.kids[uint8(a>>48)]
	if p == nil {
		return id
	}
	if longer := p.short[uint8(a>>40)]; longer != 0 {
		id = longer
	}
	b := p.kids[uint8(a>>40)]
	if b == nil {
		return id
	}
	e := &b.below[b.index(uint8(a>>32))-1]
	if e.adj != 0 {
		id = e.adj
	}
	if longer := e.leaf.find(uint16(a >> 16)); longer != 0 {
		id = longer
	}
	return id
}

// match is what the route of the longest prefix that holds a leads to; 0 is
// nowhere.
func (s *Snapshot) match(a *packet.Addr) AdjID {
	var id AdjID
	if a.Is4() {
		id = s.fast.find4(a.V4())
	} else {
		id = s.fast.find6(binary.BigEndian.Uint64(a[:8]))
	}
	if id == deep {
		v, _ := s.routes.Lookup(unmapped(a))
		return v.adj
	}
	return id
}
