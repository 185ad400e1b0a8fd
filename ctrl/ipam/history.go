package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"time"
)

// History is what decides the order of allocation, for keeping across a
// restart. Losing it costs nothing but the order and the cool-down.
type History map[string]PoolHistory

// PoolHistory is the part of one CIDR, which is its key in History.
type PoolHistory struct {
	Cursor netip.Addr   `json:"cursor"`
	Recent []netip.Addr `json:"recent,omitempty"` // released, the oldest first
	// Since is when each of Recent was; an earlier version has not written it.
	Since []time.Time `json:"since,omitempty"`
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
		h[p.prefix.String()] = a.historyOf(p)
	}
	return h
}

// historyOf is a pool's part: what is about to be released is in it.
func (a *Allocator) historyOf(p *pool) PoolHistory {
	h := PoolHistory{Cursor: p.cursor}
	for _, r := range p.recent {
		h.Recent, h.Since = append(h.Recent, r.addr), append(h.Since, r.at)
	}
	for owner, at := range a.leaving {
		for _, addr := range a.owned[owner] {
			if p.prefix.Contains(addr) {
				h.Recent, h.Since = append(h.Recent, addr), append(h.Since, at)
			}
		}
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
	now := a.now()
	for i, addr := range h.Recent {
		at := time.Time{}
		if i < len(h.Since) && h.Since[i].Before(now) {
			at = h.Since[i]
		} else if i < len(h.Since) {
			at = now // the clock was put back
		}
		if _, used := a.taken[addr]; !used && p.prefix.Contains(addr) {
			p.released(addr, at, a.cold())
		}
	}
}

// String is a line for the log: how much of what is taken.
func (a *Allocator) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%d addresses taken of %v", len(a.taken), a.prefixes())
}
