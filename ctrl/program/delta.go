package program

import (
	"culvert/fib"
)

// apply brings the tables from the rows they have to those that are wanted. An
// adjacency is there before a route cites it and stays until no route does; a
// peer's FDB and neighbour entries go after its routes.
func (p *Programmer) apply(want rows) {
	p.table.SetNode(want.node)
	p.setHops(want)
	p.setAdjacencies(want)
	p.setGroups(want)
	for pfx, r := range want.routes {
		if p.have.routes[pfx] == r {
			continue
		}
		if err := p.table.SetRoute(fib.Route{Prefix: pfx, Adj: p.adjIDs[r.to], Protocol: r.protocol}); err != nil {
			p.log.Error("a route could not be set", "dst", pfx, "cause", err)
			delete(want.routes, pfx) // tried again with the next change
		}
	}
	for pfx := range p.have.routes {
		if _, ok := want.routes[pfx]; !ok {
			p.table.DeleteRoute(pfx)
		}
	}
	for key, e := range want.fdb {
		if p.have.fdb[key] != e {
			p.table.SetFDB(e)
		}
	}
	for key := range p.have.fdb {
		if _, ok := want.fdb[key]; !ok {
			p.table.DeleteFDB(key.vni, key.mac)
		}
	}
	for key, n := range want.neighbours {
		if p.have.neighbours[key] != n {
			p.table.SetNeighbour(n)
		}
	}
	for key := range p.have.neighbours {
		if _, ok := want.neighbours[key]; !ok {
			p.table.DeleteNeighbour(key.addr, key.dev)
		}
	}
	p.removeUnwanted(want)
	p.have = want
}

// removeUnwanted lets go of what routes lead to, when none does any more.
func (p *Programmer) removeUnwanted(want rows) {
	remove := func(name string) {
		p.table.RemoveAdjacency(p.adjIDs[name])
		delete(p.adjIDs, name)
	}
	for name := range p.have.groups {
		if _, ok := want.groups[name]; !ok {
			remove(name)
		}
	}
	for name := range p.have.adjacencies {
		if _, ok := want.adjacencies[name]; !ok {
			remove(name)
		}
	}
	for key, id := range p.hopIDs {
		if _, ok := want.hops[key]; !ok && p.table.RemoveHop(id) {
			delete(p.hopIDs, key)
		}
	}
}

// setHops adds and updates next hops. One that is gone and whose adjacencies go
// another way from now on becomes that one in place: a new gateway for ten
// thousand peers is one update, as its new MAC is.
func (p *Programmer) setHops(want rows) {
	for name, had := range p.have.adjacencies {
		to := want.adjacencies[name].by
		if _, stays := want.hops[had.by]; stays || to == (hopKey{}) {
			continue
		}
		id, known := p.hopIDs[had.by]
		if _, taken := p.hopIDs[to]; known && !taken {
			p.hopIDs[to] = id
			delete(p.hopIDs, had.by)
			p.table.UpdateHop(id, want.hops[to])
		}
	}
	for key, h := range want.hops {
		if id, ok := p.hopIDs[key]; ok {
			p.table.UpdateHop(id, h)
		} else {
			p.hopIDs[key] = p.table.AddHop(h)
		}
	}
}

// setAdjacencies adds and updates, and forgets one that could not be added so
// that it is tried again.
func (p *Programmer) setAdjacencies(want rows) {
	for name, adj := range want.adjacencies {
		adj.Hop = p.hopIDs[adj.by]
		want.adjacencies[name] = adj
		old, had := p.have.adjacencies[name]
		switch {
		case !had:
			id := p.table.AddAdjacency(adj.Adjacency)
			if id == 0 {
				p.log.Error("the adjacency table is full", "adjacency", name)
				delete(want.adjacencies, name)
				continue
			}
			p.adjIDs[name] = id
		case old.Adjacency != adj.Adjacency:
			p.table.UpdateAdjacency(p.adjIDs[name], adj.Adjacency)
		}
	}
}

// setGroups adds and updates groups, whose members are there already.
func (p *Programmer) setGroups(want rows) {
	for name, members := range want.groups {
		all := make([]fib.Member, len(members))
		for i, m := range members {
			all[i] = fib.Member{Adj: p.adjIDs[m.adjacency], Weight: m.weight}
		}
		var err error
		if id, had := p.adjIDs[name]; had {
			err = p.table.UpdateGroup(id, all)
		} else if id, err = p.table.AddGroup(all); err == nil {
			p.adjIDs[name] = id
		} else {
			delete(want.groups, name) // its routes are tried again, too
		}
		if err != nil {
			p.log.Error("a group of next hops could not be set", "group", name, "cause", err)
		}
	}
}
