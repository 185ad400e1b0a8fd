package program

import (
	"fmt"
	"net/netip"
	"slices"

	"culvert/fib"
)

// apply brings the tables to what owners want from now on. An adjacency is there
// before a route cites it and stays until no route does; a peer's FDB and
// neighbour entries go after its routes.
func (p *Programmer) apply(updates []update) {
	p.setHops(updates)
	for _, u := range updates {
		p.setAdjacencies(&u)
		p.setGroups(&u)
		p.claim(&u)
	}
	p.settle()
	for _, u := range updates {
		p.removeUnwanted(&u)
		u.rows = u.want
	}
	for _, key := range p.left {
		if id, known := p.hopIDs[key]; known && p.hopUsers[key] == 0 && p.table.RemoveHop(id) {
			delete(p.hopIDs, key)
			delete(p.hopUsers, key)
		}
	}
	p.left = p.left[:0]
}

// setHops counts who leans on which next hop, and adds and updates them. One that is
// left by all and whose adjacencies go another way from now on becomes that one in
// place: a new gateway for ten thousand peers is one update, as its new MAC is.
func (p *Programmer) setHops(updates []update) {
	for _, u := range updates {
		for i := range u.rows.adjacencies {
			p.leave(u.rows.adjacencies[i].by)
		}
		for i := range u.want.adjacencies {
			if by := u.want.adjacencies[i].by; by != (hopKey{}) {
				p.hopUsers[by]++
			}
		}
	}
	for _, u := range updates {
		for i := range min(len(u.rows.adjacencies), len(u.want.adjacencies)) {
			had, to := &u.rows.adjacencies[i], &u.want.adjacencies[i]
			if had.name == to.name {
				p.moveHop(had.by, to.by)
			}
		}
		for i := range u.want.hops {
			h := &u.want.hops[i]
			if id, ok := p.hopIDs[h.key]; ok {
				p.table.UpdateHop(id, h.NextHop)
			} else {
				p.hopIDs[h.key] = p.table.AddHop(h.NextHop)
			}
		}
	}
}

// leave ends an adjacency's hold on its next hop.
func (p *Programmer) leave(by hopKey) {
	if by == (hopKey{}) {
		return
	}
	if p.hopUsers[by]--; p.hopUsers[by] == 0 {
		p.left = append(p.left, by)
	}
}

// moveHop makes a next hop that nobody wants any more the one that is not there yet.
func (p *Programmer) moveHop(from, to hopKey) {
	id, known := p.hopIDs[from]
	if _, taken := p.hopIDs[to]; !known || taken || to == (hopKey{}) || p.hopUsers[from] != 0 {
		return
	}
	p.hopIDs[to] = id
	delete(p.hopIDs, from)
	delete(p.hopUsers, from)
}

// setAdjacencies adds and updates those of an owner. One that could not be added is
// tried again with the next change of its owner.
func (p *Programmer) setAdjacencies(u *update) {
	for i := range u.want.adjacencies {
		row := &u.want.adjacencies[i]
		row.Hop = p.hopIDs[row.by]
		id, had := p.adjIDs[row.name]
		if had {
			if !slices.Contains(u.rows.adjacencies, *row) {
				p.table.UpdateAdjacency(id, row.Adjacency)
			}
			continue
		}
		if id = p.table.AddAdjacency(row.Adjacency); id == 0 {
			p.log.Error("the adjacency table is full", "adjacency", row.name)
			continue
		}
		p.adjIDs[row.name] = id
	}
}

// setGroups adds and updates groups, whose members are there already.
func (p *Programmer) setGroups(u *update) {
	for _, g := range u.want.groups {
		all := make([]fib.Member, len(g.members))
		for i, m := range g.members {
			all[i] = fib.Member{Adj: p.adjIDs[m.adjacency], Weight: m.weight}
		}
		var err error
		if id, had := p.adjIDs[g.name]; had {
			err = p.table.UpdateGroup(id, all)
		} else if id, err = p.table.AddGroup(all); err == nil {
			p.adjIDs[g.name] = id
		}
		if err != nil {
			p.log.Error("a group of next hops could not be set", "group", g.name, "cause", err)
		}
	}
}

// claim notes what an owner wants for which keys, and what no more.
func (p *Programmer) claim(u *update) {
	for i := range u.rows.routes {
		p.routes.drop(u.rows.routes[i].prefix, u.owner)
	}
	for i := range u.rows.fdb {
		p.fdb.drop(keyOfFDB(&u.rows.fdb[i]), u.owner)
	}
	for i := range u.rows.neighbours {
		p.neighbours.drop(keyOfNeighbour(&u.rows.neighbours[i]), u.owner)
	}
	for _, r := range u.want.routes {
		p.routes.set(r.prefix, u.owner, r.route)
	}
	for _, e := range u.want.fdb {
		p.fdb.set(keyOfFDB(&e), u.owner, e)
	}
	for _, n := range u.want.neighbours {
		p.neighbours.set(keyOfNeighbour(&n), u.owner, n)
	}
}

func keyOfFDB(e *fib.FDBEntry) fdbKey          { return fdbKey{e.VNI, e.MAC} }
func keyOfNeighbour(n *fib.Neighbour) neighKey { return neighKey{n.Addr, n.Dev} }

// settle brings the tables of keys to what is claimed: routes before the FDB and
// the neighbours.
func (p *Programmer) settle() {
	setRoute, removeRoute := p.routeSetters()
	if err := p.routes.settle(setRoute, removeRoute); err != nil {
		p.log.Error("a route could not be set; it is tried again with the next change", "cause", err)
	}
	_ = p.fdb.settle(
		func(_ fdbKey, e fib.FDBEntry) error { p.table.SetFDB(e); return nil },
		func(k fdbKey) { p.table.DeleteFDB(k.vni, k.mac) })
	_ = p.neighbours.settle(
		func(_ neighKey, n fib.Neighbour) error { p.table.SetNeighbour(n); return nil },
		func(k neighKey) { p.table.DeleteNeighbour(k.addr, k.dev) })
}

// removeUnwanted lets go of what an owner's routes led to.
func (p *Programmer) removeUnwanted(u *update) {
	for _, g := range u.rows.groups {
		if !slices.ContainsFunc(u.want.groups, func(w groupRow) bool { return w.name == g.name }) {
			p.removeAdjacency(g.name)
		}
	}
	for i := range u.rows.adjacencies {
		name := u.rows.adjacencies[i].name
		if !slices.ContainsFunc(u.want.adjacencies, func(w adjacencyRow) bool { return w.name == name }) {
			p.removeAdjacency(name)
		}
	}
}

func (p *Programmer) removeAdjacency(name string) {
	p.table.RemoveAdjacency(p.adjIDs[name])
	delete(p.adjIDs, name)
}

// routeSetters write routes, whose adjacencies go by name until here.
func (p *Programmer) routeSetters() (set func(netip.Prefix, route) error, remove func(netip.Prefix)) {
	set = func(pfx netip.Prefix, r route) error {
		id, ok := p.adjIDs[r.to]
		if !ok {
			return fmt.Errorf("route %s: there is no adjacency %q", pfx, r.to)
		}
		return p.table.SetRoute(fib.Route{Prefix: pfx, Adj: id, Protocol: r.protocol})
	}
	return set, func(pfx netip.Prefix) { p.table.DeleteRoute(pfx) }
}
