package flavour

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/ctrl/source"
)

// block is a prefix that a node takes pods' addresses of.
type block struct {
	cidr netip.Prefix
	node string // its node; empty if it has none any more
	// confirmed: that node may take addresses of it.
	confirmed bool
	obj       *source.IPAMBlock // nil where only an affinity is there
	ref       source.Ref
	made      time.Time
	rank      int // of its node, in the order of claims
}

// before reports whether a goes before b where both are of one CIDR: what was there
// first goes on.
func (b *block) before(other *block) bool {
	return cmp.Or(b.made.Compare(other.made), strings.Compare(b.ref.Name, other.ref.Name)) < 0
}

// readBlocks finds whose every block and every address given out of another node's
// block is. As for Felix, an IPAMBlock says whose it is; a confirmed affinity
// does where the block is not there.
func (c *calico) readBlocks() {
	all := make(map[netip.Prefix]*block, len(c.objs.IPAMBlocks))
	c.byCIDR = all
	for _, obj := range c.objs.IPAMBlocks {
		c.readBlock(all, obj)
	}
	for _, obj := range c.objs.BlockAffinities {
		c.readAffinity(all, obj)
	}
	known := make(map[string]int, len(c.nodes))
	for i, n := range c.nodes {
		known[n.Name] = i + 1
	}
	c.blocks = make([]*block, 0, len(all))
	for _, b := range all { // this node's first, then as nodes come, then nobody's
		b.rank = cmp.Or(known[b.node], len(known)+1)
		c.blocks = append(c.blocks, b)
	}
	slices.SortFunc(c.blocks, func(a, b *block) int { return cmp.Or(a.rank-b.rank, comparePrefixes(a.cidr, b.cidr)) })
	for _, b := range c.blocks {
		c.claimBlock(b, known)
	}
	// After all blocks: an address may be in a block whose node comes later.
	for _, b := range c.blocks {
		c.borrowed(b, known)
	}
}

func (c *calico) readBlock(all map[netip.Prefix]*block, obj *source.IPAMBlock) {
	ref := source.Ref{Kind: "IPAMBlock", Name: obj.Name}
	if obj.Spec.Deleted {
		return
	}
	cidr, what := source.ParseCIDR(obj.Spec.CIDR)
	if what != "" {
		c.conflict(ref, "spec.cidr", "%s", what)
		return
	}
	b := &block{cidr: cidr, obj: obj, ref: ref, made: obj.CreationTimestamp.Time}
	if a := obj.Spec.Affinity; a != nil {
		host, ok := strings.CutPrefix(*a, "host:")
		if ok {
			b.node, b.confirmed = host, true
		} else if !strings.HasPrefix(*a, "virtual:") { // addresses of load balancers, which no node routes
			c.conflict(ref, "spec.affinity", "%q is no affinity; write host:NODE", *a)
		}
	}
	if other := all[cidr]; other != nil {
		if other.before(b) {
			other, b = b, other
		}
		c.conflict(other.ref, "spec.cidr", "%s is also that of %s, so this one is left out; delete one of them", cidr, b.ref).Reason = DuplicateBlock
	}
	all[cidr] = b
}

func (c *calico) readAffinity(all map[netip.Prefix]*block, obj *source.BlockAffinity) {
	ref := source.Ref{Kind: "BlockAffinity", Name: obj.Name}
	spec := &obj.Spec
	if spec.Deleted == "true" || spec.Type != "" && spec.Type != "host" {
		return
	}
	cidr, what := source.ParseCIDR(spec.CIDR)
	if what != "" {
		c.conflict(ref, "spec.cidr", "%s", what)
		return
	}
	have, b := all[cidr], &block{cidr: cidr, node: spec.Node, confirmed: true, ref: ref, made: obj.CreationTimestamp.Time}
	switch {
	case spec.State != "confirmed":
		if have != nil && have.obj != nil && have.node == spec.Node {
			have.confirmed = false // it is being made, or given up
		}
	case have == nil:
		all[cidr] = b
	case have.node != spec.Node:
		if have.obj == nil && b.before(have) {
			all[cidr], have, b = b, b, have
		}
		c.conflict(b.ref, "spec.node", "%s of Node %s is that of %q by %s, which counts; delete the affinity", cidr, b.node, have.node, have.ref).Reason = DuplicateBlock
	}
}

// claimBlock gives a block to its node, unless it cannot be.
func (c *calico) claimBlock(b *block, known map[string]int) {
	if c.pools.of(b.cidr) == nil {
		c.conflict(b.ref, "spec.cidr", "%s is in no IPPool, so it is left out; create the pool, or delete the block", b.cidr).Reason = OutsidePool
		b.node, b.obj = "", nil
		return
	}
	if other, owner, taken := c.cidrs.overlap(b.cidr); taken {
		c.conflict(b.ref, "spec.cidr", "%s overlaps %s of Node %s, so it is left out; delete one of the blocks", b.cidr, other, owner).Reason = DuplicateBlock
		b.node, b.obj = "", nil
		return
	}
	c.cidrs.add(b.cidr, cmp.Or(b.node, "nobody"))
	if b.node == "" {
		return
	}
	if known[b.node] == 0 {
		c.conflict(b.ref, "spec.affinity", "%s is of Node %s, which is not there, so it is not routed; delete the block, or create the node", b.cidr, b.node)
		return
	}
	c.prefixes[b.node] = append(c.prefixes[b.node], b.cidr)
}

// borrowed routes the addresses that other nodes have out of a block to them
// (libcalico-go/lib/backend/model/block.go NonAffineAllocations).
func (c *calico) borrowed(b *block, known map[string]int) {
	if b.obj == nil {
		return
	}
	b.each(func(a netip.Addr, i int, at *source.IPAMBlockAttribute) {
		if at == nil {
			c.conflict(b.ref, fmt.Sprintf("spec.allocations[%d]", i), "is no index of attributes, which has %d, so %s is not routed to anybody", len(b.obj.Spec.Attributes), a)
			return
		}
		node := at.Secondary["node"]
		if node == "" || node == b.node || known[node] == 0 {
			return
		}
		c.prefixes[node] = append(c.prefixes[node], hostPrefix(a))
	})
	if size := b.size(); len(b.obj.Spec.Allocations) > size {
		c.conflict(b.ref, "spec.allocations", "has %d entries and %s has %d addresses; the others are not routed", len(b.obj.Spec.Allocations), b.cidr, size)
	}
}

// size is the number of addresses, as far as a block can have them.
func (b *block) size() int {
	return 1 << min(b.cidr.Addr().BitLen()-b.cidr.Bits(), 16)
}

// each calls f for every address that is given, with its attributes; nil if
// there are none of the index.
func (b *block) each(f func(a netip.Addr, ordinal int, at *source.IPAMBlockAttribute)) {
	a := b.cidr.Addr()
	for i, index := range b.obj.Spec.Allocations {
		if !b.cidr.Contains(a) {
			return
		}
		switch attrs := b.obj.Spec.Attributes; {
		case index == nil:
		case *index < 0 || *index >= len(attrs):
			f(a, i, nil)
		default:
			f(a, i, &attrs[*index])
		}
		a = a.Next()
	}
}
