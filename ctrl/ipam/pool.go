package ipam

import (
	"fmt"
	"net/netip"
	"slices"
)

// maxRecent bounds how many released addresses a pool keeps from reuse. A /24
// has fewer: there the address released last is always the last to return.
const maxRecent = 256

// pool is one CIDR: a cursor that goes round, and the addresses released last,
// which are skipped until nothing else is free.
type pool struct {
	prefix      netip.Prefix
	whole       bool
	first, last netip.Addr // the range that is given
	cursor      netip.Addr // where the next search begins
	recent      []netip.Addr
}

// newPool makes a pool, or says why no pod can live in it.
func newPool(w Pool) (*pool, error) {
	c := w.CIDR
	if !c.IsValid() {
		return nil, fmt.Errorf("pod CIDR %q is not valid", c)
	}
	c = c.Masked()
	p := &pool{prefix: c, whole: w.Whole, last: lastOf(c)}
	switch {
	case w.Whole:
		p.first = c.Addr()
	case c.Addr().BitLen()-c.Bits() >= 2:
		p.first = c.Addr().Next().Next()
		if c.Addr().Is4() {
			p.last = p.last.Prev()
		}
	}
	if !p.first.IsValid() || p.last.Less(p.first) {
		return nil, fmt.Errorf("pod CIDR %s is too small: the first two addresses and the last are not for pods", c)
	}
	p.cursor = p.first
	return p, nil
}

// lastOf is the last address of a prefix.
func lastOf(c netip.Prefix) netip.Addr {
	b := c.Addr().AsSlice()
	for i := range b {
		if host := 8*(i+1) - c.Bits(); host > 0 {
			b[i] |= byte(1<<min(host, 8) - 1)
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// reserved says why an address of the prefix is never given, or nothing.
func (p *pool) reserved(a netip.Addr) string {
	switch {
	case p.whole:
	case a == p.prefix.Addr():
		return "the first address of the pod CIDR is the node's tunnel address"
	case a.Less(p.first):
		return "the second address of the pod CIDR is kept for a gateway"
	case p.last.Less(a):
		return "the last address of the pod CIDR is its broadcast address"
	}
	return ""
}

// next finds a free address: from the cursor round, else the one that was
// released longest ago. At most used addresses are not free. The caller takes it.
func (p *pool) next(free func(netip.Addr) bool, used int) (netip.Addr, bool) {
	skip := make(map[netip.Addr]bool, len(p.recent))
	for _, a := range p.recent {
		skip[a] = true
	}
	// Among that many addresses one must be free if one is.
	tries := used + len(p.recent) + 1
	for a := p.cursor; tries > 0; tries-- {
		if free(a) && !skip[a] {
			p.cursor = p.after(a)
			return a, true
		}
		if a = p.after(a); a == p.cursor {
			break
		}
	}
	for _, a := range p.recent {
		if free(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// after is the next address of the range, going round.
func (p *pool) after(a netip.Addr) netip.Addr {
	if a == p.last {
		return p.first
	}
	return a.Next()
}

// released remembers an address as given back last.
func (p *pool) released(a netip.Addr) {
	if p.reserved(a) != "" {
		return
	}
	p.forget(a)
	p.recent = append(p.recent, a)
	if over := len(p.recent) - maxRecent; over > 0 {
		p.recent = slices.Delete(p.recent, 0, over)
	}
}

// forget takes an address out of the recent ones: it is in use again.
func (p *pool) forget(a netip.Addr) {
	if i := slices.Index(p.recent, a); i >= 0 {
		p.recent = slices.Delete(p.recent, i, i+1)
	}
}
