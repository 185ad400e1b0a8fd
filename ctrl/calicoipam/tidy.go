package calicoipam

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"culvert/ctrl/source"
)

// spareAge is how long an empty block has been this node's before it is given up:
// pods come and go.
const spareAge = 10 * time.Minute

// tidy finishes what was begun with this node's blocks, gives up those that it does
// not need, and returns the others.
func (c *Client) tidy(ctx context.Context) ([]*block, error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	c.set, c.own = nil, nil
	clear(c.blocks)
	s, err := c.settings(ctx)
	if err != nil {
		return nil, err
	}
	own, err := c.affinities(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.adoptBlocks(ctx, own); err != nil {
		return nil, err
	}
	if own, err = c.affinities(ctx); err != nil {
		return nil, err
	}
	var blocks []*block
	for _, a := range own {
		b, err := c.tidyBlock(ctx, s, a)
		switch {
		case errors.Is(err, errTaken), again(err): // not ours, or changing just now: the next look tells
		case err != nil:
			return nil, err
		case b != nil:
			blocks = append(blocks, b)
		}
	}
	return c.dropSpare(ctx, s, blocks)
}

// tidyBlock is the block of an affinity. One that is not there is made only where the
// node may use its pool.
func (c *Client) tidyBlock(ctx context.Context, s *settings, a affinity) (*block, error) {
	if p := s.poolOf(a.cidr.Addr()); p == nil || !p.here {
		b, err := c.getBlock(ctx, a.cidr)
		if errors.Is(err, ErrNotFound) {
			return nil, c.deleteAffinity(ctx, a)
		}
		if err == nil && b.empty() && b.node() == c.cfg.Node {
			return nil, c.giveUp(ctx, c.cfg.Node, a.cidr, &b.spec.SequenceNumber)
		}
	}
	return c.blockFor(ctx, a)
}

// adoptBlocks gives this node's blocks that have lost their affinity a new one.
func (c *Client) adoptBlocks(ctx context.Context, own []affinity) error {
	known := map[netip.Prefix]bool{}
	for _, a := range own {
		known[a.cidr] = true
	}
	for _, obj := range c.cfg.Blocks() {
		cidr, what := source.ParseCIDR(obj.Spec.CIDR)
		if what != "" || known[cidr] || obj.Spec.Affinity == nil || *obj.Spec.Affinity != hostAffinity(c.cfg.Node) {
			continue
		}
		b, err := c.getBlock(ctx, cidr) // it may be gone since it was seen
		if err == nil && b.node() == c.cfg.Node {
			_, err = c.claim(ctx, cidr)
		}
		if err != nil && !again(err) {
			return err
		}
	}
	return nil
}

// dropSpare gives up empty blocks as long as another block of the same pool has room
// enough: a quarter of its addresses.
func (c *Client) dropSpare(ctx context.Context, s *settings, blocks []*block) (kept []*block, err error) {
	room := map[netip.Prefix]int{} // blocks with room, by pool
	roomy := func(b *block) bool { return 4*len(b.spec.Unallocated) >= len(b.spec.Allocations) }
	for _, b := range blocks {
		if p := s.poolOf(b.cidr.Addr()); p != nil && roomy(b) {
			room[p.cidr]++
		}
	}
	for _, b := range blocks {
		p := s.poolOf(b.cidr.Addr())
		if p == nil || !b.empty() || room[p.cidr] < 2 || b.age(c.cfg.Now()) < spareAge || c.inUse(b) {
			kept = append(kept, b)
			continue
		}
		err := c.giveUp(ctx, c.cfg.Node, b.cidr, &b.spec.SequenceNumber)
		if Away(err) || errors.Is(err, ErrRefused) {
			return nil, err
		}
		room[p.cidr]--
	}
	return kept, nil
}

// inUse reports whether a pod of this node has an address of a block that says otherwise.
func (c *Client) inUse(b *block) bool {
	for ord := range b.spec.Allocations {
		if c.cfg.Taken(b.addr(ord)) {
			return true
		}
	}
	return false
}

// readBlocks reads the blocks of these addresses, each once, beside those that are there.
func (c *Client) readBlocks(ctx context.Context, have []*block, addrs []netip.Addr) ([]*block, error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	s, err := c.settings(ctx)
	if err != nil {
		return nil, err
	}
	known := map[netip.Prefix]bool{}
	for _, b := range have {
		known[b.cidr] = true
	}
	for _, a := range addrs {
		p := s.poolOf(a)
		if p == nil || known[p.blockOf(a)] {
			continue
		}
		known[p.blockOf(a)] = true
		b, err := c.getBlock(ctx, p.blockOf(a))
		if err == nil {
			have = append(have, b)
		} else if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return have, nil
}
