package fib

import (
	"fmt"
	"net/netip"
)

// Route sends a prefix to an adjacency or a group. Prefixes have no host bits, no zone,
// and IPv4 ones are not mapped into IPv6.
type Route struct {
	Prefix netip.Prefix
	Adj    AdjID
	// Protocol says who installed it, as iproute2 prints it.
	Protocol string
}

// routed is a Route in the table, without pointers so that the garbage
// collector never walks a million of them.
type routed struct {
	adj   AdjID
	proto uint16 // index of the protocol's name
	bits  uint8  // the prefix length
}

// canonical is p as the table keeps it.
func canonical(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, fmt.Errorf("fib: %v is no prefix", p)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// SetRoute adds r, or replaces the route of the same prefix. Its adjacency or
// group must exist and stays in the tables as long as a route cites it.
func (t *Table) SetRoute(r Route) error {
	pfx, err := canonical(r.Prefix)
	if err != nil {
		return err
	}
	if s := t.adjs.slot(r.Adj); s == nil || s.removed {
		return fmt.Errorf("fib: route %s: no adjacency %#x", pfx, uint32(r.Adj))
	}
	proto, err := t.intern(r.Protocol)
	if err != nil {
		return fmt.Errorf("fib: route %s: %w", pfx, err)
	}
	v := routed{r.Adj, proto, uint8(pfx.Bits())}
	old, had := t.routes.t.Get(pfx)
	if had && old == v {
		return nil
	}
	t.dirty = true
	t.adjs.cite(r.Adj)
	t.routes.set(pfx, v)
	t.fast.note(pfx)
	if had {
		t.uncite(old.adj)
	}
	return nil
}

// DeleteRoute removes the route of exactly that prefix and reports whether
// there was one.
func (t *Table) DeleteRoute(p netip.Prefix) bool {
	pfx, err := canonical(p)
	if err != nil {
		return false
	}
	old, had := t.routes.t.Get(pfx)
	if !had {
		return false
	}
	t.dirty = true
	t.routes.delete(pfx)
	t.fast.note(pfx)
	t.uncite(old.adj)
	return true
}

// intern gives a protocol's name a small number for good: there are a handful.
func (t *Table) intern(name string) (uint16, error) {
	for i, have := range t.protocols {
		if have == name {
			return uint16(i), nil
		}
	}
	if len(t.protocols) == 1<<16 {
		return 0, fmt.Errorf("protocol %q: there are %d different ones already", name, 1<<16)
	}
	t.protocols = append(t.protocols, name)
	return uint16(len(t.protocols) - 1), nil
}
