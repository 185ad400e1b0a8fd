package fib

import (
	"math/bits"
	"slices"
)

// leaf is the 16 bits behind an IPv6 /32 as ranges with one answer each: the n
// first values of the ranges in order, two in a word, then the n answers. The
// first range begins at 0.
type leaf []uint32

// noLeaf has no answer: one range, of 0.
var noLeaf = leaf{0, 0}

func (l leaf) none() bool { return len(l) == 2 && l[1] == 0 }

// find is the answer for a value: of the range that begins last at or before it.
func (l leaf) find(v uint16) AdjID {
	n := len(l) * 2 / 3
	at, words := 0, l[:(n+1)/2]
	// As many steps for all leaves of up to 64 ranges: the processor guesses
	// right when the loop ends.
	for half := max(32, 1<<bits.Len(uint(n))>>1); half > 0; half >>= 1 {
		next := min(at+half, n-1)
		if uint16(words[next>>1]>>(next&1*16)) <= v {
			at = next
		}
	}
	return AdjID(l[len(words)+at])
}

// ranges collects a leaf. Routes are added in the order of their prefixes, so
// that a longer one comes after those that it is in.
type ranges struct {
	starts []uint32
	adj    []AdjID
	open   []open // the routes that the next one may be in, outermost first
}

// open is a route whose end has not come.
type open struct {
	end uint32
	adj AdjID
}

// add adds a route of the values start to end, end not included.
func (r *ranges) add(start, end uint32, adj AdjID) {
	r.close(start)
	r.begin(start, adj)
	if n := len(r.open); n > 0 && r.open[n-1] == (open{end, adj}) {
		return
	}
	r.open = append(r.open, open{end, adj})
}

// close ends the routes that end at v or before.
func (r *ranges) close(v uint32) {
	for n := len(r.open) - 1; n >= 0 && r.open[n].end <= v; n-- {
		outer := AdjID(0)
		if n > 0 {
			outer = r.open[n-1].adj
		}
		r.begin(r.open[n].end, outer)
		r.open = r.open[:n]
	}
}

// begin begins a range. One of no length is forgotten, and equal neighbours are
// one.
func (r *ranges) begin(start uint32, adj AdjID) {
	if n := len(r.starts) - 1; n >= 0 && r.starts[n] == start {
		r.starts, r.adj = r.starts[:n], r.adj[:n]
	}
	if n := len(r.adj); n > 0 && r.adj[n-1] == adj {
		return
	}
	r.starts, r.adj = append(r.starts, start), append(r.adj, adj)
}

// reset empties r.
func (r *ranges) reset() {
	r.starts, r.adj, r.open = append(r.starts[:0], 0), append(r.adj[:0], 0), r.open[:0]
}

// leaf is what was added, noLeaf if nothing was.
func (r *ranges) leaf() leaf {
	const end = 1 << 16
	r.close(end)
	if n := len(r.starts); r.starts[n-1] == end {
		r.starts, r.adj = r.starts[:n-1], r.adj[:n-1]
	}
	if slices.Equal(r.adj, []AdjID{0}) {
		return noLeaf
	}
	n := len(r.starts)
	l := make(leaf, (n+1)/2+n)
	for i, s := range r.starts {
		l[i>>1] |= s << (i & 1 * 16)
		l[(n+1)/2+i] = uint32(r.adj[i])
	}
	return l
}
