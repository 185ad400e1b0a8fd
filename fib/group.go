package fib

import (
	"fmt"
	"slices"

	"culvert/internal/packet"
)

// A group spreads flows over next hops as a resilient group of Linux does
// (net/ipv4/nexthop.c, nh_res_table): a table of buckets that never changes its
// size, each bucket one member's, a flow in the bucket that its hash says. When
// a member leaves, its own buckets move and no others; when one joins, it gets
// its share and the other buckets stay.
const (
	// Buckets is the number of buckets of every group: a power of two.
	Buckets = 256
	// MaxMembers is the most members that a group may have.
	MaxMembers = 64
	// MaxWeight is the largest weight: net/ipv4/nexthop.c has 1 to 256, too.
	MaxWeight = 256
)

// Member is one adjacency of a group.
type Member struct {
	Adj AdjID
	// Weight is the share of the flows, as against the other members' weights: 1
	// to MaxWeight.
	Weight uint16
}

// group never changes once it is in the tables.
type group struct {
	buckets [Buckets]AdjID
	members []Member // at least one, in the order given
}

// bucketOf is the bucket of a flow. Both directions are in the same one: Hash
// differs between them, the sum does not.
func bucketOf(k *packet.Key) uint8 {
	back := k.Reverse()
	h := (k.Hash() + back.Hash()) * 0x9e3779b97f4a7c15 // the upper bits of a product depend on all of a factor's
	return uint8(h >> (64 - 8))
}

// The bucket is 8 bits of the hash.
var _ [Buckets]struct{} = [1 << 8]struct{}{}

// AddGroup stores a group and returns the identifier by which routes cite it.
// Its members stay in the tables as long as it does.
func (t *Table) AddGroup(members []Member) (AdjID, error) {
	if err := t.checkMembers(members); err != nil {
		return 0, err
	}
	g := regroup(nil, members)
	id := t.adjs.add(&adjacent{group: g})
	if id == 0 {
		return 0, fmt.Errorf("fib: the adjacency table is full: %d", maxSlots)
	}
	t.dirty = true
	for _, m := range members {
		t.adjs.cite(m.Adj)
	}
	return id, nil
}

// UpdateGroup replaces the members of a group. A bucket moves only if its member
// is gone, or has more than its share while another has less. On an error the
// group is what it was.
func (t *Table) UpdateGroup(id AdjID, members []Member) error {
	s := t.adjs.slot(id)
	if s == nil || s.removed || t.adjs.view.entry(id).group == nil {
		return fmt.Errorf("fib: no group %#x", uint32(id))
	}
	if err := t.checkMembers(members); err != nil {
		return err
	}
	old := t.adjs.view.entry(id).group
	if slices.Equal(old.members, members) {
		return nil
	}
	t.dirty = true
	t.adjs.store(id.slot(), &adjacent{id: id, group: regroup(old, members)})
	for _, m := range members {
		t.adjs.cite(m.Adj)
	}
	for _, m := range old.members {
		t.uncite(m.Adj)
	}
	return nil
}

// checkMembers says what a group cannot be made of.
func (t *Table) checkMembers(members []Member) error {
	if len(members) == 0 || len(members) > MaxMembers {
		return fmt.Errorf("fib: a group of %d members: 1 to %d are possible", len(members), MaxMembers)
	}
	for i, m := range members {
		s := t.adjs.slot(m.Adj)
		switch {
		case s == nil || s.removed:
			return fmt.Errorf("fib: group member %d: no adjacency %#x", i, uint32(m.Adj))
		case t.adjs.view.entry(m.Adj).group != nil:
			return fmt.Errorf("fib: group member %d: %#x is a group itself", i, uint32(m.Adj))
		case m.Weight == 0 || m.Weight > MaxWeight:
			return fmt.Errorf("fib: group member %d: weight %d: must be 1 to %d", i, m.Weight, MaxWeight)
		}
		if slices.ContainsFunc(members[:i], func(o Member) bool { return o.Adj == m.Adj }) {
			return fmt.Errorf("fib: group member %d: adjacency %#x twice", i, uint32(m.Adj))
		}
	}
	return nil
}

// regroup is a group of these members that leaves as many buckets of the old
// one, if any, where they are as the shares allow.
//
// Every member may have its exact share rounded down or up. Linux rounds the sums
// of the shares instead (nh_res_group_rebalance), which can move a bucket between
// two members that stay when a third one leaves.
func regroup(old *group, members []Member) *group {
	g := &group{members: slices.Clone(members)}
	total := 0
	for _, m := range members {
		total += int(m.Weight)
	}
	least, most := make([]int, len(members)), make([]int, len(members))
	for i, m := range members {
		least[i] = Buckets * int(m.Weight) / total
		most[i] = (Buckets*int(m.Weight) + total - 1) / total
	}
	have := make([]int, len(members))
	free := make([]int, 0, Buckets)
	for b := range g.buckets {
		i := -1
		if old != nil {
			i = slices.IndexFunc(members, func(m Member) bool { return m.Adj == old.buckets[b] })
		}
		if i < 0 || have[i] == most[i] {
			free = append(free, b)
			continue
		}
		g.buckets[b] = members[i].Adj
		have[i]++
	}
	// Whoever lacks part of his least gets it: from what is free, and then from
	// those who have more than theirs. When members left and nothing else
	// happened, what they had is all there is to give.
	onlyLeft := old != nil && !slices.ContainsFunc(members, func(m Member) bool { return !slices.Contains(old.members, m) })
	for i := range members {
		for ; have[i] < least[i]; have[i]++ {
			if len(free) == 0 && onlyLeft {
				break
			}
			if len(free) == 0 {
				free = append(free, g.takeOne(have, least))
			}
			g.buckets[free[0]], free = members[i].Adj, free[1:]
		}
	}
	// What is left, a bucket each, goes to those whose share was rounded down
	// most.
	for _, b := range free {
		i := neediest(members, have, most, total)
		g.buckets[b] = members[i].Adj
		have[i]++
	}
	return g
}

// takeOne takes a bucket from a member that has more than its least.
func (g *group) takeOne(have, least []int) int {
	for b := range g.buckets {
		i := slices.IndexFunc(g.members, func(m Member) bool { return m.Adj == g.buckets[b] })
		if i >= 0 && have[i] > least[i] {
			have[i]--
			return b
		}
	}
	panic("fib: the least shares of a group are more than its buckets")
}

// neediest is the member that is furthest below its exact share.
func neediest(members []Member, have, most []int, total int) int {
	best, bestLack := -1, 0
	for i, m := range members {
		if lack := Buckets*int(m.Weight) - have[i]*total; have[i] < most[i] && (best < 0 || lack > bestLack) {
			best, bestLack = i, lack
		}
	}
	return best
}

// Share is a member of a group as a snapshot has it.
type Share struct {
	Member
	// Buckets is how many of the group's buckets are the member's.
	Buckets int
	*Adjacency
}

// Members are the members of a group, nil of what is no group.
func (s *Snapshot) Members(id AdjID) []Share {
	e := s.adjs.entry(id)
	if e == nil || e.group == nil {
		return nil
	}
	all := make([]Share, len(e.group.members))
	for i, m := range e.group.members {
		all[i] = Share{Member: m, Adjacency: s.adjs.at(m.Adj)}
		for _, owner := range e.group.buckets {
			if owner == m.Adj {
				all[i].Buckets++
			}
		}
	}
	return all
}
