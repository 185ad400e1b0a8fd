package fib

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// persistent is the writer's side of one bart table whose versions are shared
// with snapshots. A change copies the path to its prefix, until so many changes
// have come since the last freeze that one copy of everything is cheaper.
type persistent[V any] struct {
	t     *bart.Table[V]
	owned bool // t is in no snapshot: it may be changed in place
	ops   int  // changes by path copying since the last freeze
}

// Copying a path costs about 10 µs in a table of a million, copying everything
// about 0.1 µs an entry.
const (
	copyAllAfter = 64
	copyAllShare = 64
)

func newPersistent[V any]() persistent[V] {
	return persistent[V]{t: new(bart.Table[V]), owned: true}
}

// freeze returns the table as it is, never to change again.
func (p *persistent[V]) freeze() *bart.Table[V] {
	p.owned, p.ops = false, 0
	return p.t
}

// own copies everything when that has become the cheaper way.
func (p *persistent[V]) own() bool {
	if p.owned {
		return true
	}
	p.ops++
	if p.ops > copyAllAfter && p.ops > p.t.Size()/copyAllShare {
		p.t, p.owned = p.t.Clone(), true
	}
	return p.owned
}

func (p *persistent[V]) set(pfx netip.Prefix, v V) {
	if p.own() {
		p.t.Insert(pfx, v)
		return
	}
	p.t = p.t.InsertPersist(pfx, v)
}

func (p *persistent[V]) delete(pfx netip.Prefix) {
	if p.own() {
		p.t.Delete(pfx)
		return
	}
	p.t = p.t.DeletePersist(pfx)
}
