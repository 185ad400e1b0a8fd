package program

import (
	"culvert/fib"
)

// apply brings the tables from the rows they have to those that are wanted. An
// adjacency is there before a route cites it and stays until no route does; a
// peer's FDB and neighbour entries go after its routes.
func (p *Programmer) apply(want rows) {
	p.table.SetNode(want.node)
	p.setAdjacencies(want)
	for pfx, r := range want.routes {
		if p.have.routes[pfx] == r {
			continue
		}
		if err := p.table.SetRoute(fib.Route{Prefix: pfx, Adj: p.adjIDs[r.adjacency], Protocol: r.protocol}); err != nil {
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
	for name := range p.have.adjacencies {
		if _, ok := want.adjacencies[name]; !ok {
			p.table.RemoveAdjacency(p.adjIDs[name])
			delete(p.adjIDs, name)
		}
	}
	p.have = want
}

// setAdjacencies adds and updates, and forgets the routes of one that could not
// be added so that they are tried again.
func (p *Programmer) setAdjacencies(want rows) {
	for name, adj := range want.adjacencies {
		old, had := p.have.adjacencies[name]
		switch {
		case !had:
			id := p.table.AddAdjacency(adj)
			if id == 0 {
				p.log.Error("the adjacency table is full", "adjacency", name)
				delete(want.adjacencies, name)
				continue
			}
			p.adjIDs[name] = id
		case old != adj:
			p.table.UpdateAdjacency(p.adjIDs[name], adj)
		}
	}
}
