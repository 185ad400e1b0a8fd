package fib

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// compiler is the writer's side of a matcher. What changes is noted, and made
// anew from bart when the tables are published: a page or block that changes is
// copied, the others are shared with the matchers before.
type compiler struct {
	now    matcher
	epoch  uint32
	short  []netip.Prefix       // changed routes of IPv4 up to 16 bits, of IPv6 up to 24
	long4  map[uint32]*slots    // by /16: which /24 have to be looked at
	long6  map[uint32]*changed6 // by /24
	ranges ranges
}

// slots is a set of 256.
type slots [4]uint64

func (s *slots) add(from, n int) {
	for i := from; i < from+n; i++ {
		s[i>>6] |= 1 << (i & 63)
	}
}

func (s *slots) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// each calls f with every member.
func (s *slots) each(f func(i int)) {
	for w, left := range s {
		for ; left != 0; left &= left - 1 {
			f(w<<6 + bits.TrailingZeros64(left))
		}
	}
}

// changed6 is which /32 of a /24 have another route of their own or a shorter
// one, and which have other longer ones.
type changed6 struct{ adj, leaf slots }

func newCompiler() compiler {
	return compiler{
		now:   matcher{new(root[block]), new(root[*page[*block6]])},
		long4: map[uint32]*slots{}, long6: map[uint32]*changed6{},
	}
}

// note remembers that the route of a prefix changed.
func (c *compiler) note(p netip.Prefix) {
	n := p.Bits()
	if p.Addr().Is4() {
		if n <= 16 {
			c.short = append(c.short, p)
			return
		}
		a := bits4(p.Addr())
		s := c.long4[a>>16]
		if s == nil {
			s = new(slots)
			c.long4[a>>16] = s
		}
		s.add(int(a>>8&255), 1<<max(0, 24-n))
		return
	}
	if n <= 24 {
		c.short = append(c.short, p)
		return
	}
	a := bits6(p.Addr())
	ch := c.long6[uint32(a>>40)]
	if ch == nil {
		ch = new(changed6)
		c.long6[uint32(a>>40)] = ch
	}
	if n <= 32 {
		ch.adj.add(int(a>>32&255), 1<<(32-n))
	} else {
		ch.leaf.add(int(a>>32&255), 1)
	}
}

func bits4(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }
func bits6(a netip.Addr) uint64 { b := a.As16(); return binary.BigEndian.Uint64(b[:8]) }

func prefix4(a uint32, n int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.PrefixFrom(netip.AddrFrom4(b), n)
}

func prefix6(a uint64, n int) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a)
	return netip.PrefixFrom(netip.AddrFrom16(b), n)
}

// freeze is the matcher for the routes as they are now.
func (c *compiler) freeze(t *bart.Table[routed]) matcher {
	if len(c.short)+len(c.long4)+len(c.long6) == 0 {
		return c.now
	}
	c.epoch++
	c.now = matcher{clone(c.now.v4), clone(c.now.v6)}
	for _, p := range c.short {
		if p.Addr().Is4() {
			c.short4(t, p)
		} else {
			c.short6(t, p)
		}
	}
	for at, s := range c.long4 {
		c.block4(t, at, s)
	}
	for at, ch := range c.long6 {
		c.block6(t, at, ch)
	}
	c.short = nil
	// Maps anew: a walk of one that was large once takes as long for ever.
	c.long4, c.long6 = map[uint32]*slots{}, map[uint32]*changed6{}
	return c.now
}

func clone[T any](v *T) *T { c := *v; return &c }

// writable is a page that may be changed now: new, or copied once an epoch.
func writable[C any](at **page[C], epoch uint32) *page[C] {
	switch {
	case *at == nil:
		*at = &page[C]{epoch: epoch}
	case (*at).epoch != epoch:
		*at = clone(*at)
		(*at).epoch = epoch
	}
	return *at
}

// cover is what the longest route that holds all of p leads to, if it is longer
// than longer bits.
func cover(t *bart.Table[routed], p netip.Prefix, longer int) AdjID {
	if v, ok := t.LookupPrefix(p); ok && int(v.bits) > longer {
		return v.adj
	}
	return 0
}

// holdsLonger reports whether there is a route in p that is longer.
func holdsLonger(t *bart.Table[routed], p netip.Prefix) bool {
	for q := range t.Subnets(p) {
		if q.Bits() > p.Bits() {
			return true
		}
	}
	return false
}

// short4 looks again at all /16 in p.
func (c *compiler) short4(t *bart.Table[routed], p netip.Prefix) {
	first := bits4(p.Addr()) >> 16
	for at := first; at < first+1<<(16-p.Bits()); at++ {
		writable(&c.now.v4[at>>8], c.epoch).short[at&255] = cover(t, prefix4(at<<16, 16), -1)
	}
}

// short6 looks again at all /16 in p, or at all /24 if it is longer than 16 bits.
func (c *compiler) short6(t *bart.Table[routed], p netip.Prefix) {
	a := bits6(p.Addr())
	if p.Bits() <= 16 {
		first := uint32(a >> 48)
		for at := first; at < first+1<<(16-p.Bits()); at++ {
			writable(&c.now.v6[at>>8], c.epoch).short[at&255] = cover(t, prefix6(uint64(at)<<48, 16), -1)
		}
		return
	}
	first := uint32(a >> 40)
	for at := first; at < first+1<<(24-p.Bits()); at++ {
		c.page6(at).short[at&255] = cover(t, prefix6(uint64(at)<<40, 24), 16)
	}
}

// page6 is the page that the /24 of these bits is in, to be changed.
func (c *compiler) page6(at uint32) *page[*block6] {
	return writable(&writable(&c.now.v6[at>>16], c.epoch).kids[at>>8&255], c.epoch)
}

// paintFrom is the number of changed /24 of a /16 from which on walking all
// routes in it is cheaper than looking each up.
const paintFrom = 32

// block4 makes a block anew.
func (c *compiler) block4(t *bart.Table[routed], at uint32, changed *slots) {
	p := writable(&c.now.v4[at>>8], c.epoch)
	old := p.kids[at&255]
	var all [256]AdjID
	if changed.len() > paintFrom {
		paint(t, prefix4(at<<16, 16), &all)
	} else {
		if old != nil {
			for i := range all {
				all[i] = old.find(uint8(i))
			}
		}
		changed.each(func(i int) {
			slot := prefix4(at<<16|uint32(i)<<8, 24)
			if all[i] = cover(t, slot, 16); holdsLonger(t, slot) {
				all[i] = deep
			}
		})
	}
	if all == [256]AdjID{} {
		p.kids[at&255] = nil
		return
	}
	r, n := newRuns(func(i int) bool { return all[i] != all[i-1] })
	b := make(block, blockHead, blockHead+n)
	copy(b, r.starts[:])
	for w, n := range r.before {
		b[8+w>>2] |= uint32(n) << (w & 3 * 8)
	}
	for i := range all {
		if r.begins(i) {
			b = append(b, uint32(all[i]))
		}
	}
	p.kids[at&255] = b
}

// paint fills the /24 of a /16 with the routes in it that are longer, in the
// order of their prefixes.
func paint(t *bart.Table[routed], p netip.Prefix, all *[256]AdjID) {
	for q, v := range t.Subnets(p) {
		i := int(bits4(q.Addr()) >> 8 & 255)
		switch n := q.Bits(); {
		case n > 24:
			all[i] = deep
		case n > 16:
			for end := i + 1<<(24-n); i < end; i++ {
				all[i] = v.adj
			}
		}
	}
}

// newRuns is the n runs of slots of which differs says where one begins.
func newRuns(differs func(i int) bool) (r runs, n int) {
	r.starts[0] = 1
	for i := 1; i < 256; i++ {
		if differs(i) {
			r.starts[i>>5] |= 1 << (i & 31)
		}
	}
	for w := range r.starts {
		r.before[w] = uint8(n) // at most 224
		n += bits.OnesCount32(r.starts[w])
	}
	return r, n
}

func (r *runs) begins(i int) bool { return r.starts[i>>5]>>(i&31)&1 != 0 }

// block6 makes a block anew.
func (c *compiler) block6(t *bart.Table[routed], at uint32, changed *changed6) {
	p := c.page6(at)
	var all [256]below
	for i := range all {
		all[i].leaf = noLeaf
	}
	if old := p.kids[at&255]; old != nil {
		for i := range all {
			all[i] = old.below[old.index(uint8(i))-1]
		}
	}
	slot := func(i int) netip.Prefix { return prefix6(uint64(at)<<40|uint64(i)<<32, 32) }
	changed.adj.each(func(i int) { all[i].adj = cover(t, slot(i), 24) })
	changed.leaf.each(func(i int) { all[i].leaf = c.leafOf(t, slot(i)) })
	if !slices.ContainsFunc(all[:], func(b below) bool { return b.adj != 0 || !b.leaf.none() }) {
		p.kids[at&255] = nil
		return
	}
	r, n := newRuns(func(i int) bool {
		return all[i].adj != all[i-1].adj || !all[i].leaf.none() || !all[i-1].leaf.none()
	})
	b := &block6{r, make([]below, 0, n)}
	for i := range all {
		if b.begins(i) {
			b.below = append(b.below, all[i])
		}
	}
	p.kids[at&255] = b
}

// leafOf is the leaf of a /32: its routes that are longer.
func (c *compiler) leafOf(t *bart.Table[routed], p netip.Prefix) leaf {
	c.ranges.reset()
	for q, v := range t.Subnets(p) {
		start := uint32(bits6(q.Addr()) >> 16 & 0xffff)
		switch n := q.Bits(); {
		case n > 48:
			c.ranges.add(start, start+1, deep)
		case n > 32:
			c.ranges.add(start, start+1<<(48-n), v.adj)
		}
	}
	return c.ranges.leaf()
}
