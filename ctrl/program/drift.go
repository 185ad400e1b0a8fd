package program

import (
	"net/netip"
	"time"

	"culvert/fib"
)

// Drift is how many rows of each table were not what they ought to be.
type Drift struct{ Adjacencies, Routes, FDB, Neighbours int }

// Any reports whether there was any.
func (d Drift) Any() bool { return d != Drift{} }

// Repair compares the tables, row by row, with what is wanted, and mends what is not:
// nobody else writes them, so that it is a defect that it finds. Do it rarely, it
// takes some milliseconds for ten thousand rows.
func (p *Programmer) Repair() (d Drift) {
	p.mu.Lock()
	defer p.mu.Unlock()
	start := time.Now()
	d.Adjacencies = p.repairAdjacencies()
	names := make(map[fib.AdjID]string, len(p.adjIDs))
	for name, id := range p.adjIDs {
		names[id] = name
	}
	s := p.table.Commit()
	routes := make(map[netip.Prefix]route, len(p.routes.held))
	for r := range s.Routes() {
		routes[r.Prefix] = route{names[r.Adj], r.Protocol}
	}
	d.Routes = p.routes.audit(routes)
	fdb := make(map[fdbKey]fib.FDBEntry, len(p.fdb.held))
	for e := range s.FDB() {
		fdb[keyOfFDB(&e)] = e
	}
	d.FDB = p.fdb.audit(fdb)
	neighbours := make(map[neighKey]fib.Neighbour, len(p.neighbours.held))
	for n := range s.Neighbours() {
		neighbours[keyOfNeighbour(&n)] = n
	}
	d.Neighbours = p.neighbours.audit(neighbours)
	p.settle()
	p.publish(start)
	return d
}

// repairAdjacencies writes every adjacency and next hop again and counts those
// that were not there or others.
func (p *Programmer) repairAdjacencies() (wrong int) {
	before := p.table.Commit()
	again := func(o *owner) {
		u := update{o, o.rows}
		for i := range u.want.hops {
			p.table.UpdateHop(p.hopIDs[u.want.hops[i].key], u.want.hops[i].NextHop)
		}
		for i := range u.want.adjacencies {
			row := &u.want.adjacencies[i]
			if id, known := p.adjIDs[row.name]; known && !p.table.UpdateAdjacency(id, row.Adjacency) {
				delete(p.adjIDs, row.name) // what it was is gone
				p.setAdjacencies(&u)
			}
		}
		p.setGroups(&u)
	}
	for _, owners := range []map[string]*owner{p.peerOwners, p.podOwners, {"": p.node}, {"": p.kernel}, {"": p.services}} {
		for _, o := range owners {
			again(o)
			if now := p.table.Commit(); now != before {
				before = now
				wrong++
			}
		}
	}
	return wrong
}
