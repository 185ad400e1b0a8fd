package flavour

import (
	"maps"
	"net/netip"
	"slices"

	"culvert/internal/packet"
)

// Cache keeps what was found out about lists of objects that are the same in the
// next set: whose thousands of blocks are, when only a Node has changed. The zero Cache is
// empty; nil keeps nothing. One goroutine at a time uses it.
type Cache struct {
	calico   *calico
	frontend frontend
	backends map[string]backend // by the text of backend-data
}

// mostBackends is how many texts are remembered, some hundred bytes each, before they
// are forgotten together: nodes come and go for years.
const mostBackends = 65536

// backend is readBackend, of which the JSON of thousands of nodes costs more than all
// the rest of a set.
func (k *Cache) backend(s string) backend {
	if k == nil {
		return readBackend(s)
	}
	b, known := k.backends[s]
	if known {
		return b
	}
	if k.backends == nil || len(k.backends) >= mostBackends {
		k.backends = map[string]backend{}
	}
	b = readBackend(s)
	k.backends[s] = b
	return b
}

// keep remembers pools and blocks as they are before nodes are looked at.
func (k *Cache) keep(c *calico) {
	if k == nil {
		return
	}
	kept, base := *c, *c.collector
	kept.collector = &base
	base.Annotations, base.ips, base.macs = nil, nil, nil // of the nodes
	k.calico = &kept
}

// ground is what was kept, for the same objects but Nodes, whose names and order are
// the same; nil if there is none.
func (k *Cache) ground(base *collector) *calico {
	if k == nil || k.calico == nil {
		return nil
	}
	old, now := k.calico.objs, base.objs
	if !sameList(old.IPAMBlocks, now.IPAMBlocks) || !sameList(old.BlockAffinities, now.BlockAffinities) ||
		!sameList(old.IPPools, now.IPPools) || !sameList(old.FelixConfigurations, now.FelixConfigurations) ||
		!maps.Equal(k.calico.labels, labelsOf(base.own)) || base.opt.Node != k.calico.opt.Node || (base.own == nil) != (k.calico.own == nil) {
		return nil
	}
	for i, n := range base.nodes {
		if i >= len(k.calico.nodes) || k.calico.nodes[i].Name != n.Name {
			return nil
		}
	}
	if len(base.nodes) != len(k.calico.nodes) {
		return nil
	}
	c, of := *k.calico, *k.calico.collector
	c.collector = &of
	of.opt, of.objs, of.nodes, of.own = base.opt, base.objs, base.nodes, base.own
	of.Annotations, of.ips, of.macs = map[string]string{}, make(map[netip.Addr]string, len(of.nodes)), make(map[packet.MAC]string, len(of.nodes))
	of.Conflicts, of.Pools, of.Also = slices.Clone(of.Conflicts), slices.Clip(of.Pools), slices.Clip(of.Also)
	return &c
}

// sameList reports whether two lists are one and the same: sources keep the lists, and
// never change one.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
