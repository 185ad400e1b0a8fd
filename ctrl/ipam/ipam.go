// Package ipam gives pods addresses out of the node's pod CIDRs: at most one
// a family and owner, never one twice, and a released one as late as it can: not
// before its cool-down is over, unless every other address is taken.
//
// Of a pod CIDR three addresses are never given: the first (the node's tunnel
// address), the one after it (a gateway elsewhere, in Flannel for one), and of
// IPv4 the last (broadcast). Of a Calico block all are. Addresses that somebody
// else has, as far as the cluster's objects say, are held back.
//
// The allocator is memory only. What is taken comes back at a restart from
// the pod records (Reserve); what decides the order comes from History.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

var (
	// ErrNoCIDR says that the node has no pod CIDR yet.
	ErrNoCIDR = errors.New("the node has no pod CIDR yet")
	// ErrExhausted says that every address of a CIDR is taken.
	ErrExhausted = errors.New("no free address")
)

// RefusedError says why an address that was asked for is not given.
type RefusedError struct {
	Addr netip.Addr
	Why  string
}

// Error names the address and the reason.
func (e *RefusedError) Error() string { return fmt.Sprintf("address %s refused: %s", e.Addr, e.Why) }

// Allocator gives addresses. It is safe for concurrent use. The zero value is
// not usable; see New.
type Allocator struct {
	mu    sync.Mutex
	pools []*pool                 // one a CIDR, in the node's order
	taken map[netip.Addr]string   // owner by address, inside the CIDRs or not
	owned map[string][]netip.Addr // addresses by owner
	known History                 // of CIDRs that the node does not have, or not yet
	held  map[netip.Addr]Held
	// leaving are owners that are about to release what they have, and since when.
	leaving  map[string]time.Time
	cooldown time.Duration
	now      func() time.Time
}

// Pool is a prefix that pods get addresses of.
type Pool struct {
	CIDR netip.Prefix
	// Whole: the first two addresses and the last are as good as the others.
	Whole bool
}

// Held is an address that is not given by itself.
type Held struct {
	Addr netip.Addr
	Why  string // "it is ..."
	// Ask: it is given to who asks for it.
	Ask bool
}

// New makes an allocator for the node's pod CIDRs, which may be none as yet.
func New(cidrs ...netip.Prefix) (*Allocator, error) {
	a := &Allocator{taken: map[netip.Addr]string{}, owned: map[string][]netip.Addr{}, known: History{},
		leaving: map[string]time.Time{}, now: time.Now}
	if err := a.SetCIDRs(cidrs); err != nil {
		return nil, err
	}
	return a, nil
}

// SetCooldown sets how long a released address is not given while there is another,
// and the clock that this goes by; nil: the real one. Call it before anything else.
func (a *Allocator) SetCooldown(d time.Duration, now func() time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cooldown = d; now != nil {
		a.now = now
	}
}

// Cooldown is what SetCooldown set.
func (a *Allocator) Cooldown() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cooldown
}

// cold is the time up to which what was released has cooled down.
func (a *Allocator) cold() time.Time { return a.now().Add(-a.cooldown) }

// Cooling reports whether an address was released less than d ago; 0: than the cool-down.
func (a *Allocator) Cooling(addr netip.Addr, d time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.holder(addr)
	if p == nil {
		return false
	}
	if d == 0 {
		d = a.cooldown
	}
	at, ok := p.since(addr)
	return ok && a.now().Before(at.Add(d))
}

// SetCIDRs is SetPools with pod CIDRs.
func (a *Allocator) SetCIDRs(cidrs []netip.Prefix) error {
	pools := make([]Pool, len(cidrs))
	for i, c := range cidrs {
		pools[i].CIDR = c
	}
	return a.SetPools(pools, nil)
}

// SetPools replaces the CIDRs and the addresses in them that are held back.
// Addresses taken outside of the new ones stay taken until their owner releases
// them. On error nothing changes.
func (a *Allocator) SetPools(want []Pool, held []Held) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var pools []*pool
	for i, w := range want {
		for _, other := range want[:i] {
			if w.CIDR.Overlaps(other.CIDR) {
				return fmt.Errorf("pod CIDRs %s and %s overlap", other.CIDR, w.CIDR)
			}
		}
		if old := a.poolOf(w); old != nil {
			pools = append(pools, old)
			continue
		}
		p, err := newPool(w)
		if err != nil {
			return err
		}
		a.recall(p)
		pools = append(pools, p)
	}
	a.known = a.history()
	a.pools = pools
	a.held = make(map[netip.Addr]Held, len(held))
	for _, h := range held {
		a.held[h.Addr] = h
	}
	return nil
}

// CIDRs are the prefixes in force.
func (a *Allocator) CIDRs() []netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []netip.Prefix
	for _, p := range a.pools {
		out = append(out, p.prefix)
	}
	return out
}

func (a *Allocator) poolOf(w Pool) *pool {
	for _, p := range a.pools {
		if p.prefix == w.CIDR.Masked() && p.whole == w.Whole {
			return p
		}
	}
	return nil
}

// Allocate gives owner one address of every family that the node has a CIDR
// of: those in want, and any for a family that want does not name. It is all
// or nothing. Errors are ErrNoCIDR, ErrExhausted (wrapped), or a *RefusedError.
func (a *Allocator) Allocate(owner string, want ...netip.Addr) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pools) == 0 {
		return nil, ErrNoCIDR
	}
	if have := a.owned[owner]; len(have) > 0 {
		return nil, fmt.Errorf("%s has addresses already: %v", owner, have)
	}
	if err := a.grantable(want); err != nil {
		return nil, err
	}
	given := slices.Clone(want)
	for _, v6 := range []bool{false, true} {
		if hasFamily(want, v6) || !a.serves(v6) {
			continue
		}
		addr, err := a.next(v6)
		if err != nil {
			return nil, err
		}
		given = append(given, addr)
	}
	slices.SortFunc(given, netip.Addr.Compare) // IPv4 first
	a.take(owner, given)
	return given, nil
}

// grantable checks every address that was asked for.
func (a *Allocator) grantable(want []netip.Addr) error {
	for i, addr := range want {
		if hasFamily(want[:i], addr.Is6()) {
			return &RefusedError{addr, "one address of a family is possible, and two were asked for"}
		}
		p := a.holder(addr)
		if p == nil {
			return &RefusedError{addr, fmt.Sprintf("it is in none of the node's pod CIDRs %v", a.prefixes())}
		}
		if why := p.reserved(addr); why != "" {
			return &RefusedError{addr, why}
		}
		if owner, ok := a.taken[addr]; ok {
			return &RefusedError{addr, "it is in use by " + owner}
		}
		if h, ok := a.held[addr]; ok && !h.Ask {
			return &RefusedError{addr, h.Why}
		}
	}
	return nil
}

// next finds a free address of a family in the CIDRs' order: one that has cooled
// down, or else the one that was released first.
func (a *Allocator) next(v6 bool) (netip.Addr, error) {
	var full []netip.Prefix
	var oldest released
	for _, p := range a.pools {
		if p.prefix.Addr().Is6() != v6 {
			continue
		}
		if addr, ok := p.next(a.free, len(a.taken)+len(a.held), a.cold()); ok {
			return addr, nil
		}
		if r, ok := p.oldest(a.free); ok && (!oldest.addr.IsValid() || r.at.Before(oldest.at)) {
			oldest = r
		}
		full = append(full, p.prefix)
	}
	if oldest.addr.IsValid() {
		return oldest.addr, nil
	}
	return netip.Addr{}, fmt.Errorf("%w in %v: all are taken by pods", ErrExhausted, full)
}

// free reports whether an address may be given to anybody.
func (a *Allocator) free(addr netip.Addr) bool {
	_, taken := a.taken[addr]
	_, held := a.held[addr]
	return !taken && !held
}

// Reserve marks addresses as the owner's, wherever they are: a pod that is
// there keeps its address when the node's CIDRs change. It fails when another
// owner has one of them, and then reserves none.
func (a *Allocator) Reserve(owner string, addrs ...netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, addr := range addrs {
		if other, ok := a.taken[addr]; ok && other != owner {
			return &RefusedError{addr, "it is in use by " + other}
		}
	}
	a.take(owner, addrs)
	return nil
}

// take records addresses as taken. The caller has checked them.
func (a *Allocator) take(owner string, addrs []netip.Addr) {
	delete(a.leaving, owner)
	for _, addr := range addrs {
		a.taken[addr] = owner
		if !slices.Contains(a.owned[owner], addr) {
			a.owned[owner] = append(a.owned[owner], addr)
		}
		if p := a.holder(addr); p != nil {
			p.forget(addr)
		}
	}
}

// Retire notes that owner is about to release what it has: a History from now on has
// these addresses among the released ones, so that one that is kept before whatever
// tells of the owner goes loses nothing to a crash. They stay the owner's.
func (a *Allocator) Retire(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.leaving[owner]; !ok && len(a.owned[owner]) > 0 {
		a.leaving[owner] = a.now()
	}
}

// Release frees everything that owner has. An owner without addresses is no
// error: a DEL may come twice.
func (a *Allocator) Release(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, cold := a.now(), a.cold()
	for _, addr := range a.owned[owner] {
		delete(a.taken, addr)
		if p := a.holder(addr); p != nil {
			p.released(addr, at, cold)
		}
	}
	delete(a.owned, owner)
	delete(a.leaving, owner)
}

// Owner says who has an address.
func (a *Allocator) Owner(addr netip.Addr) (owner string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	owner, ok = a.taken[addr]
	return owner, ok
}

// Taken is the number of addresses in use.
func (a *Allocator) Taken() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.taken)
}

// holder is the pool that an address belongs to, or nil.
func (a *Allocator) holder(addr netip.Addr) *pool {
	for _, p := range a.pools {
		if p.prefix.Contains(addr) {
			return p
		}
	}
	return nil
}

func (a *Allocator) prefixes() (out []netip.Prefix) {
	for _, p := range a.pools {
		out = append(out, p.prefix)
	}
	return out
}

func (a *Allocator) serves(v6 bool) bool {
	return slices.ContainsFunc(a.pools, func(p *pool) bool { return p.prefix.Addr().Is6() == v6 })
}

func hasFamily(addrs []netip.Addr, v6 bool) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is6() == v6 })
}
