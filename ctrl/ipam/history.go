package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// History is what decides the order of allocation, for keeping across a
// restart. Losing it costs nothing but the order.
type History map[string]PoolHistory

// PoolHistory is the part of one CIDR, which is its key in History.
type PoolHistory struct {
	Cursor netip.Addr   `json:"cursor"`
	Recent []netip.Addr `json:"recent,omitempty"` // released, the oldest first
}

// History is the order as of now.
func (a *Allocator) History() History {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.history()
}

func (a *Allocator) history() History {
	h := maps.Clone(a.known)
	for _, p := range a.pools {
		h[p.prefix.String()] = PoolHistory{Cursor: p.cursor, Recent: slices.Clone(p.recent)}
	}
	return h
}

// SetHistory takes over an order, for CIDRs that the node has and for those
// that it gets later. Addresses that do not belong or are taken are skipped.
func (a *Allocator) SetHistory(h History) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.known, h)
	for _, p := range a.pools {
		a.recall(p)
	}
}

// recall gives a pool its place in the order, if one is known.
func (a *Allocator) recall(p *pool) {
	h, ok := a.known[p.prefix.String()]
	if !ok {
		return
	}
	if p.prefix.Contains(h.Cursor) && p.reserved(h.Cursor) == "" {
		p.cursor = h.Cursor
	}
	for _, addr := range h.Recent {
		if _, used := a.taken[addr]; !used && p.prefix.Contains(addr) {
			p.released(addr)
		}
	}
}

// String is a line for the log: how much of what is taken.
func (a *Allocator) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%d addresses taken of %v", len(a.taken), a.prefixes())
}
