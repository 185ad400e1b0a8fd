package fib

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"culvert/internal/packet"
)

// tables is the obviously right model of a Table: maps, and no sharing.
type tables struct {
	objects []object
	routes  map[netip.Prefix]int // to an index of objects
	hops    []uint16             // their ports
}

// object is an adjacency or a group that was added once.
type object struct {
	id      AdjID
	removed bool
	port    uint16
	hop     int   // an index of hops and 1, or 0
	members []int // of a group: indices of objects
}

func (m *tables) clone() tables {
	return tables{slices.Clone(m.objects), maps.Clone(m.routes), slices.Clone(m.hops)}
}

func (m *tables) port(o int) uint16 {
	if h := m.objects[o].hop; h > 0 {
		return m.hops[h-1]
	}
	return m.objects[o].port
}

func (m *tables) lookup(a netip.Addr) (target int, ok bool) {
	best := -1
	for p, to := range m.routes {
		if p.Contains(a) && p.Bits() > best {
			best, target, ok = p.Bits(), to, true
		}
	}
	return target, ok
}

// check compares a snapshot with the model, at addresses in and beside routes.
func (m *tables) check(t *testing.T, s *Snapshot) {
	t.Helper()
	for p := range m.routes {
		for _, flip := range []byte{0, 1, 0x80} {
			b := p.Addr().AsSlice()
			b[p.Bits()/8%len(b)] ^= flip
			a, _ := netip.AddrFromSlice(b)
			m.checkAddr(t, s, a.Unmap())
		}
	}
	if s.RouteCount() != len(m.routes) {
		t.Fatalf("%d routes, want %d", s.RouteCount(), len(m.routes))
	}
}

func (m *tables) checkAddr(t *testing.T, s *Snapshot, a netip.Addr) {
	t.Helper()
	pa := packet.AddrFrom(a)
	to, want := m.lookup(a)
	id, adj := s.Find(&pa)
	_, byFlow := s.FindFlow(&packet.Key{Dst: pa, SrcPort: uint16(to)})
	if r, _, ok := s.Lookup(pa); ok != want || (adj != nil) != want || (byFlow != nil) != want || ok && r.Adj != m.objects[to].id {
		t.Fatalf("%s: found %v, %v, %v, want %v", a, r, ok, adj, want)
	}
	if !want {
		return
	}
	members := []int{to}
	if m.objects[to].members != nil {
		members = m.objects[to].members
	}
	if id != m.objects[members[0]].id || adj.Port != m.port(members[0]) {
		t.Fatalf("%s: %#x, port %d, want %#x, port %d", a, uint32(id), adj.Port, uint32(m.objects[members[0]].id), m.port(members[0]))
	}
	if !slices.ContainsFunc(members, func(o int) bool { return m.port(o) == byFlow.Port }) {
		t.Fatalf("%s: a flow takes port %d, which is no member's", a, byFlow.Port)
	}
}

// script takes apart what the fuzzer gives.
type script []byte

func (s *script) next() (b byte) {
	if len(*s) > 0 {
		b, *s = (*s)[0], (*s)[1:]
	}
	return b
}

func (s *script) pick(n int) int { return int(s.next()) % n }

// prefix is one of any length, of few addresses, so that prefixes nest.
func (s *script) prefix() netip.Prefix {
	var b [16]byte
	n := s.next()
	fill := s.next()
	for i := range b {
		b[i] = fill & byte(0x11*(1+i%4))
	}
	if n&0x80 != 0 {
		b[0] = 0x20
		return netip.PrefixFrom(netip.AddrFrom16(b), int(n&0x7f)).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), int(n)%33).Masked()
}

// FuzzTables does to a Table and to the model what a script says. What fails
// must change nothing, and a snapshot must stay what it was.
func FuzzTables(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 0, 3, 2, 24, 0xff, 0, 2, 8, 0x0f, 1, 9, 5, 3, 0, 1, 2, 4, 2, 16, 0xff, 3, 9, 1, 0, 9, 3, 24, 0xff, 9})
	f.Add([]byte{7, 4, 6, 0, 6, 0, 2, 0xb0, 1, 0, 2, 0xc0, 1, 1, 2, 0x80, 0, 0, 9, 7, 5, 8, 0, 9, 9, 1, 0, 9, 1, 1, 2, 0xff, 0xff, 0, 9})
	f.Add([]byte{0, 1, 0, 2, 5, 2, 0, 1, 5, 1, 1, 4, 2, 1, 0, 2, 20, 0x55, 2, 1, 0, 1, 2, 9, 3, 20, 0x55, 9, 2, 20, 0x55, 2, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 300 {
			return
		}
		s, table := script(data), NewTable()
		m := tables{routes: map[netip.Prefix]int{}}
		last, lastModel := table.Commit(), m.clone()
		for len(s) > 0 {
			m.step(t, &s, table)
			if s.next()%4 != 0 {
				continue
			}
			now := table.Commit()
			m.check(t, now)
			lastModel.check(t, last)
			last, lastModel = now, m.clone()
		}
		m.check(t, table.Commit())
		lastModel.check(t, last)
	})
}

// step does one thing to both.
func (m *tables) step(t *testing.T, s *script, table *Table) {
	op := s.pick(9)
	if op == 7 {
		m.hops = append(m.hops, uint16(s.next()))
		table.AddHop(NextHop{Port: m.hops[len(m.hops)-1]})
		return
	}
	if op == 0 || len(m.objects) == 0 {
		o := object{port: uint16(s.next())}
		o.id = table.AddAdjacency(Adjacency{Kind: KindDirect, Port: o.port})
		m.objects = append(m.objects, o)
		return
	}
	o := s.pick(len(m.objects))
	switch op {
	case 1:
		if got := table.RemoveAdjacency(m.objects[o].id); got == m.objects[o].removed {
			t.Fatalf("RemoveAdjacency = %v", got)
		}
		m.objects[o].removed = true
	case 2:
		p := s.prefix()
		m.try(t, table, !m.objects[o].removed, table.SetRoute(Route{Prefix: p, Adj: m.objects[o].id}), func() { m.routes[p] = o })
	case 3:
		p := s.prefix()
		_, had := m.routes[p]
		if delete(m.routes, p); table.DeleteRoute(p) != had {
			t.Fatalf("DeleteRoute(%s) of %v", p, had)
		}
	case 4, 5:
		m.regroup(t, s, table, o, op == 4)
	case 6:
		if len(m.hops) == 0 {
			return
		}
		h := 1 + s.pick(len(m.hops))
		ok := table.UpdateAdjacency(m.objects[o].id, Adjacency{Kind: KindDirect, Hop: HopID(h)})
		if want := !m.objects[o].removed && m.objects[o].members == nil; ok != want {
			t.Fatalf("UpdateAdjacency = %v, want %v", ok, want)
		} else if ok {
			m.objects[o].hop = h
		}
	case 8:
		if len(m.hops) > 0 {
			h := s.pick(len(m.hops))
			m.hops[h] = uint16(s.next())
			table.UpdateHop(HopID(h+1), NextHop{Port: m.hops[h]})
		}
	}
}

// regroup adds a group, or updates what may be one.
func (m *tables) regroup(t *testing.T, s *script, table *Table, o int, update bool) {
	var members []int
	var all []Member
	valid := true
	for range 1 + s.pick(4) {
		n := s.pick(len(m.objects))
		valid = valid && !m.objects[n].removed && m.objects[n].members == nil && !slices.Contains(members, n)
		members = append(members, n)
		all = append(all, Member{m.objects[n].id, uint16(1 + s.pick(5))})
	}
	if update {
		valid = valid && !m.objects[o].removed && m.objects[o].members != nil
		m.try(t, table, valid, table.UpdateGroup(m.objects[o].id, all), func() { m.objects[o].members = members })
		return
	}
	id, err := table.AddGroup(all)
	m.try(t, table, valid, err, func() { m.objects = append(m.objects, object{id: id, members: members}) })
}

// try enters a change into the model if it succeeded, as it should.
func (m *tables) try(t *testing.T, table *Table, want bool, err error, enter func()) {
	t.Helper()
	if (err == nil) != want {
		t.Fatalf("error %v, want one: %v", err, !want)
	}
	if err == nil {
		enter()
		return
	}
	m.check(t, table.Commit()) // as it was
}
