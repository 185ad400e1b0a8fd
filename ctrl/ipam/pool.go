package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// maxRecent bounds how many released addresses a pool keeps from reuse, beside those
// that cool down, of which there are at most maxCooling. A /24 has fewer: there the
// address released last is always the last to return.
const (
	maxRecent  = 256
	maxCooling = 2048
)

// released is an address that was given back.
type released struct {
	addr netip.Addr
	at   time.Time // zero: nobody knows
}

// pool is one CIDR: a cursor that goes round, and the addresses released last,
// which are skipped until nothing else is free.
type pool struct {
	prefix      netip.Prefix
	whole       bool
	first, last netip.Addr // the range that is given
	cursor      netip.Addr // where the next search begins
	recent      []released // the oldest first
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
// released longest ago, if that was before cold. At most used addresses are not
// free. The caller takes it.
func (p *pool) next(free func(netip.Addr) bool, used int, cold time.Time) (netip.Addr, bool) {
	skip := make(map[netip.Addr]bool, len(p.recent))
	for _, r := range p.recent {
		skip[r.addr] = true
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
	for _, r := range p.recent {
		if free(r.addr) && !r.at.After(cold) {
			return r.addr, true
		}
	}
	return netip.Addr{}, false
}

// oldest is the free address that was released longest ago, however short that is.
func (p *pool) oldest(free func(netip.Addr) bool) (r released, ok bool) {
	for _, r := range p.recent {
		if free(r.addr) {
			return r, true
		}
	}
	return released{}, false
}

// after is the next address of the range, going round.
func (p *pool) after(a netip.Addr) netip.Addr {
	if a == p.last {
		return p.first
	}
	return a.Next()
}

// released remembers an address as given back at a time, after those of before it.
// Those that were given back by cold need not be remembered.
func (p *pool) released(a netip.Addr, at, cold time.Time) {
	if p.reserved(a) != "" {
		return
	}
	p.forget(a)
	i := len(p.recent)
	for i > 0 && p.recent[i-1].at.After(at) {
		i--
	}
	p.recent = slices.Insert(p.recent, i, released{a, at})
	for len(p.recent) > maxRecent && (len(p.recent) > maxCooling || !p.recent[0].at.After(cold)) {
		p.recent = slices.Delete(p.recent, 0, 1)
	}
}

// since is when an address was given back, if it is among the recent ones.
func (p *pool) since(a netip.Addr) (at time.Time, ok bool) {
	i := slices.IndexFunc(p.recent, func(r released) bool { return r.addr == a })
	if i < 0 {
		return time.Time{}, false
	}
	return p.recent[i].at, true
}

// forget takes an address out of the recent ones: it is in use again.
func (p *pool) forget(a netip.Addr) {
	if i := slices.IndexFunc(p.recent, func(r released) bool { return r.addr == a }); i >= 0 {
		p.recent = slices.Delete(p.recent, i, i+1)
	}
}
