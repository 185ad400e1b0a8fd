package fib

// pageSize is the number of adjacencies that are copied when one changes.
const pageSize = 64

// adjacent is one adjacency of one snapshot with its identifier, by which a
// stale identifier is told from the slot's present owner. A group has no
// adjacency of its own.
type adjacent struct {
	id    AdjID
	group *group
	Adjacency
}

// adjPage is a page. Between two commits the writer copies it once: epoch says
// whether it has. Readers leave epoch alone.
type adjPage struct {
	at    [pageSize]*adjacent
	epoch uint32
}

// adjView is an immutable array of adjacencies by slot. The zero value is empty.
type adjView []*adjPage

// entry is what id names, or nil.
func (v adjView) entry(id AdjID) *adjacent {
	slot := id.slot()
	if int(slot/pageSize) >= len(v) {
		return nil
	}
	a := v[slot/pageSize].at[slot%pageSize]
	if a == nil || a.id != id {
		return nil
	}
	return a
}

// at is the adjacency that id names, of a group its first member's, or nil.
func (v adjView) at(id AdjID) *Adjacency {
	a := v.entry(id)
	if a == nil {
		return nil
	}
	if a.group != nil {
		return v.at(a.group.members[0].Adj)
	}
	return &a.Adjacency
}

// adjSlot is what the writer knows about a slot.
type adjSlot struct {
	use     uint32 // part of the identifier of its present or last owner
	cited   uint32 // by so many routes and groups
	live    bool
	removed bool // by the writer's user; it lives on while it is cited

	// With a next hop: which, where the slot is among its dependants, and what
	// the owner was given before the hop's part was put in.
	hop   HopID
	rank  uint32
	mtu   uint16
	ready bool
}

// adjTable is the writer's side of adjView.
type adjTable struct {
	view  adjView
	owned bool // view's outer array is not in any snapshot
	epoch uint32
	slots []adjSlot
	free  []uint32 // slots to use again, oldest first
}

// slot is the writer's record of the live adjacency id, or nil.
func (t *adjTable) slot(id AdjID) *adjSlot {
	n := int(id.slot())
	if n >= len(t.slots) {
		return nil
	}
	s := &t.slots[n]
	if !s.live || makeAdjID(id.slot(), s.use) != id {
		return nil
	}
	return s
}

// freeze returns the view as it is, never to change again.
func (t *adjTable) freeze() adjView {
	t.owned = false
	t.epoch++
	return t.view
}

// add stores a, whose identifier is yet to be given, under a new one; 0 when all
// are taken.
func (t *adjTable) add(a *adjacent) AdjID {
	var n uint32
	switch {
	case len(t.free) > pageSize || len(t.free) > 0 && len(t.slots) == maxSlots:
		n = t.free[0]
		t.free = t.free[1:]
	case len(t.slots) < maxSlots:
		n = uint32(len(t.slots))
		t.slots = append(t.slots, adjSlot{})
	default:
		return 0
	}
	s := &t.slots[n]
	*s = adjSlot{use: s.use + 1, live: true}
	a.id = makeAdjID(n, s.use)
	t.store(n, a)
	return a.id
}

// store puts a, or nothing, into slot n of a copy of its page.
func (t *adjTable) store(n uint32, a *adjacent) {
	if !t.owned {
		t.view = append(make(adjView, 0, len(t.view)+1), t.view...)
		t.owned = true
	}
	at := int(n / pageSize)
	if at == len(t.view) {
		t.view = append(t.view, &adjPage{epoch: t.epoch})
	} else if t.view[at].epoch != t.epoch {
		page := *t.view[at]
		page.epoch = t.epoch
		t.view[at] = &page
	}
	t.view[at].at[n%pageSize] = a
}

// cite counts a route or a group that leads to id.
func (t *adjTable) cite(id AdjID) { t.slots[id.slot()].cited++ }

// release frees the slot of what nothing holds any more. One whose identifiers are
// used up stays empty for ever.
func (t *adjTable) release(id AdjID, s *adjSlot) {
	s.live, s.removed = false, false
	t.store(id.slot(), nil)
	if s.use < maxUses {
		t.free = append(t.free, id.slot())
	}
}
