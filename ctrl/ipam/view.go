package ipam

import (
	"net/netip"
	"time"
)

// State of an address.
type State string

// The states.
const (
	Used     State = "used"     // an owner has it
	Cooling  State = "cooling"  // released a short while ago
	Free     State = "free"     // the next one may get it
	Reserved State = "reserved" // it is given to nobody, or held back
)

// Usage is one pool and how many of its addresses are in which state; they add up
// to Size. Counts beyond 1<<63 are that.
type Usage struct {
	CIDR                                netip.Prefix
	Whole                               bool // a Calico block
	Size, Used, Cooling, Free, Reserved uint64
}

// Usage is that of every pool, in the node's order.
func (a *Allocator) Usage(cooldown time.Duration) (all []Usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	cold := a.now().Add(-cooldown)
	for _, p := range a.pools {
		u := Usage{CIDR: p.prefix, Whole: p.whole, Size: sizeOf(p.prefix)}
		for addr := range a.taken {
			if p.prefix.Contains(addr) {
				u.Used++
			}
		}
		for _, r := range p.recent {
			if a.free(r.addr) && r.at.After(cold) {
				u.Cooling++
			}
		}
		for addr := range a.held {
			if _, taken := a.taken[addr]; !taken && p.prefix.Contains(addr) && p.reserved(addr) == "" {
				u.Reserved++
			}
		}
		for addr := range p.never() {
			if _, taken := a.taken[addr]; !taken {
				u.Reserved++
			}
		}
		u.Free = u.Size - min(u.Size, u.Used+u.Cooling+u.Reserved)
		all = append(all, u)
	}
	return all
}

// never are the addresses of the prefix that nobody gets.
func (p *pool) never() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	if p.whole {
		return all
	}
	for a := p.prefix.Addr(); a.Less(p.first); a = a.Next() {
		all[a] = true
	}
	if last := lastOf(p.prefix); p.last.Less(last) {
		all[last] = true
	}
	return all
}

// sizeOf is the number of addresses of a prefix, at most 1<<63.
func sizeOf(p netip.Prefix) uint64 { return 1 << min(p.Addr().BitLen()-p.Bits(), 63) }

// Address is what is known of one address.
type Address struct {
	State State
	CIDR  netip.Prefix // the pool's; not valid: it is in none
	Owner string       // of a used one
	Since time.Time    // when a cooling one was released, or a free one that is remembered
	Why   string       // of a reserved one: "it is ..."
}

// Look says what is known of an address.
func (a *Allocator) Look(addr netip.Addr, cooldown time.Duration) Address {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.holder(addr)
	out := Address{State: Free}
	if p != nil {
		out.CIDR = p.prefix
	}
	if owner, ok := a.taken[addr]; ok {
		out.State, out.Owner = Used, owner
		return out
	}
	if h, ok := a.held[addr]; ok {
		out.State, out.Why = Reserved, h.Why
		return out
	}
	if p == nil {
		return out
	}
	if why := p.reserved(addr); why != "" {
		out.State, out.Why = Reserved, why
		return out
	}
	if at, ok := p.since(addr); ok {
		if out.Since = at; at.After(a.now().Add(-cooldown)) {
			out.State = Cooling
		}
	}
	return out
}

// Owners are all owners and what they have.
func (a *Allocator) Owners() map[string][]netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string][]netip.Addr, len(a.owned))
	for owner, addrs := range a.owned {
		if len(addrs) > 0 {
			all[owner] = append([]netip.Addr(nil), addrs...)
		}
	}
	return all
}
