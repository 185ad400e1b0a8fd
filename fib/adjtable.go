package fib

// pageSize is the number of adjacencies that are copied when one changes.
const pageSize = 64

// adjacent is one adjacency of one snapshot with its identifier, by which a
// stale identifier is told from the slot's present owner.
type adjacent struct {
	id AdjID
	Adjacency
}

type adjPage [pageSize]*adjacent

// adjView is an immutable array of adjacencies by slot. The zero value is empty.
type adjView []*adjPage

// at is the adjacency that id names, or nil.
func (v adjView) at(id AdjID) *Adjacency {
	slot := id.slot()
	if int(slot/pageSize) >= len(v) {
		return nil
	}
	a := v[slot/pageSize][slot%pageSize]
	if a == nil || a.id != id {
		return nil
	}
	return &a.Adjacency
}

// adjSlot is what the writer knows about a slot.
type adjSlot struct {
	use     uint32 // part of the identifier of its present or last owner
	routes  uint32 // that cite the owner
	live    bool
	removed bool // by the writer's user; it lives on while routes cite it
}

// adjTable is the writer's side of adjView.
type adjTable struct {
	view  adjView
	owned bool // view's outer array is not in any snapshot
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

// add stores a under a new identifier; 0 when all are taken.
func (t *adjTable) add(a Adjacency) AdjID {
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
	id := makeAdjID(n, s.use)
	t.store(n, &adjacent{id, a})
	return id
}

// store puts a, or nothing, into slot n of a copy of its page.
func (t *adjTable) store(n uint32, a *adjacent) {
	if !t.owned {
		t.view = append(make(adjView, 0, len(t.view)+1), t.view...)
		t.owned = true
	}
	page := new(adjPage)
	if at := int(n / pageSize); at == len(t.view) {
		t.view = append(t.view, page)
	} else {
		*page = *t.view[at]
		t.view[at] = page
	}
	page[n%pageSize] = a
}

// cite and uncite count the routes of an adjacency. uncite reports whether the
// last one of a removed adjacency is gone, and it with that.
func (t *adjTable) cite(id AdjID) { t.slots[id.slot()].routes++ }

func (t *adjTable) uncite(id AdjID) {
	s := &t.slots[id.slot()]
	s.routes--
	t.reap(id, s)
}

// reap frees the slot of an adjacency that nothing holds any more. A slot whose
// identifiers are used up stays empty for ever.
func (t *adjTable) reap(id AdjID, s *adjSlot) {
	if !s.removed || s.routes != 0 {
		return
	}
	s.live, s.removed = false, false
	t.store(id.slot(), nil)
	if s.use < maxUses {
		t.free = append(t.free, id.slot())
	}
}
