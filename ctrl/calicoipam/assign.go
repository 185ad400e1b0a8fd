package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"culvert/ctrl/ipam"
)

// Request says for whom addresses are.
type Request struct {
	Handle string
	Attrs  map[string]string // the attributes in the block
	// Namespace is the pod's, for pools with a namespaceSelector; empty: all fit.
	Namespace string
	// Want are addresses that are asked for by name, one of a family at most.
	Want []netip.Addr
	// Keep are further addresses of the handle, which Settle leaves alone.
	Keep []netip.Addr
}

// TakenError says that somebody else has an address.
type TakenError struct {
	Addr  netip.Addr
	Block string // the IPAMBlock
	By    string // the handle of who has it, as the block says
}

// Error names the address and who has it.
func (e *TakenError) Error() string {
	return fmt.Sprintf("address %s is taken: IPAMBlock %s says that it is of %s", e.Addr, e.Block, e.By)
}

func isRefusal(err error) bool {
	var refused *ipam.RefusedError
	return errors.As(err, &refused) || errors.Is(err, ipam.ErrExhausted) || errors.Is(err, ipam.ErrNoCIDR)
}

// Assign gives one address of every family that there is a pool of: those that are
// wanted, and any for the other family. On an error what it has given stays given;
// Settle takes it back. Errors are those of ctrl/ipam, *TakenError, ErrRefused, or
// one that is Away.
func (c *Client) Assign(ctx context.Context, r Request) (given []netip.Addr, err error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	s, err := c.settings(ctx)
	if err != nil {
		return nil, err
	}
	for i, a := range r.Want {
		if slices.ContainsFunc(r.Want[:i], func(b netip.Addr) bool { return b.Is4() == a.Is4() }) {
			return nil, &ipam.RefusedError{Addr: a, Why: "one address of a family is possible, and two were asked for"}
		}
		if err := c.assignThis(ctx, s, r, a); err != nil {
			return given, err
		}
		given = append(given, a)
	}
	for _, v6 := range []bool{false, true} {
		if slices.ContainsFunc(r.Want, func(a netip.Addr) bool { return a.Is6() == v6 }) {
			continue
		}
		pools, err := c.forPods(ctx, s, v6, r.Namespace)
		if err != nil {
			return given, err
		}
		if len(pools) == 0 {
			continue
		}
		a, err := c.assignAny(ctx, s, pools, r, v6)
		if err != nil {
			return given, err
		}
		given = append(given, a)
	}
	if len(given) == 0 {
		return nil, fmt.Errorf("%w: there is no IPPool that its pods may use", ipam.ErrNoCIDR)
	}
	slices.SortFunc(given, netip.Addr.Compare) // IPv4 first
	return given, nil
}

// assignAny gives an address of an own block, else of a new one, else of another
// node's if that is allowed. An address that cools down gives way when the own blocks
// have no other, and where the cluster asks for a cool-down, when no block can be
// claimed, either.
func (c *Client) assignAny(ctx context.Context, s *settings, pools []pool, r Request, v6 bool) (netip.Addr, error) {
	first := func(b *block) (netip.Addr, bool) { return b.next(c.notFree(s)) }
	got, blocks, err := c.assignOwn(ctx, pools, r, func(b *block) (netip.Addr, bool) { return b.next(c.notCold(s)) })
	if errors.Is(err, errNoRoom) && s.cooldown == 0 {
		got, blocks, err = c.assignOwn(ctx, pools, r, first)
	}
	if !errors.Is(err, errNoRoom) {
		return got, err
	}
	if blocks < s.maxBlocks && s.claims {
		b, err := c.claimAny(ctx, s, pools)
		if err == nil {
			return c.give(ctx, b, r, first)
		}
		if !errors.Is(err, errNoRoom) {
			return netip.Addr{}, err
		}
	}
	if s.cooldown > 0 {
		if got, _, err = c.assignOwn(ctx, pools, r, first); !errors.Is(err, errNoRoom) {
			return got, err
		}
	}
	exhausted := fmt.Errorf("%w in the blocks of this node, and it can claim no more", ipam.ErrExhausted)
	if blocks >= s.maxBlocks {
		return netip.Addr{}, fmt.Errorf("%w: it has %d, the most that a node may have (IPAMConfig maxBlocksPerHost)", exhausted, blocks)
	}
	if s.strict {
		return netip.Addr{}, fmt.Errorf("%w: no block of its pools is free, and strictAffinity forbids to borrow", exhausted)
	}
	return c.borrow(ctx, pools, r, first)
}

// assignOwn gives an address of the node's own blocks in the pools, of which it says
// how many there are; errNoRoom: pick finds none in any.
func (c *Client) assignOwn(ctx context.Context, pools []pool, r Request, pick picker) (got netip.Addr, blocks int, err error) {
	own, err := c.affinities(ctx)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	for _, a := range slices.Clone(own) {
		if !inPools(pools, a.cidr) {
			continue
		}
		blocks++
		got, err := c.assignFrom(ctx, a, r, pick)
		if err == nil || !errors.Is(err, errNoRoom) {
			return got, blocks, err
		}
	}
	return netip.Addr{}, blocks, errNoRoom
}

// notCold are those of notFree, and addresses that cool down.
func (c *Client) notCold(s *settings) func(netip.Addr) bool {
	notFree := c.notFree(s)
	return func(a netip.Addr) bool { return notFree(a) || c.cfg.Cooling(a, s.cooldown) }
}

// notFree are addresses that are given to nobody, whatever the blocks say.
func (c *Client) notFree(s *settings) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return s.isReserved(a) || c.cfg.Taken(a) }
}

// assignFrom gives an address of the block of an affinity; errNoRoom: there is none,
// or the block is not this node's any more.
func (c *Client) assignFrom(ctx context.Context, a affinity, r Request, pick picker) (netip.Addr, error) {
	b := c.blocks[a.cidr]
	if a.spec.State != confirmed {
		b = nil // somebody was about to take it
	}
	for range tries {
		if b == nil {
			var err error
			b, err = c.blockFor(ctx, a)
			if again(err) && !errors.Is(err, errTaken) {
				b, err = c.claim(ctx, a.cidr)
			}
			if errors.Is(err, errTaken) {
				return netip.Addr{}, errNoRoom
			}
			if err != nil {
				return netip.Addr{}, err
			}
		}
		got, err := c.give(ctx, b, r, pick)
		if !errors.Is(err, ErrNotFound) {
			return got, err
		}
		b = nil // somebody took it back, for it was empty: claim it again
	}
	return netip.Addr{}, fmt.Errorf("block %s: %w", a.cidr, errBusy)
}

// picker chooses an address of a block; false: it has none.
type picker func(*block) (netip.Addr, bool)

// give writes an address into a block: the handle is counted first, so that every
// address has one. errNoRoom: pick finds none. ErrNotFound: the block is gone.
func (c *Client) give(ctx context.Context, b *block, r Request, pick picker) (netip.Addr, error) {
	cidr, counted := b.cidr, false
	back := func(err error) (netip.Addr, error) {
		if !counted || Away(err) { // who knows what is written: Settle will
			return netip.Addr{}, err
		}
		if failed := c.count(ctx, r.Handle, cidr, -1); failed != nil {
			return netip.Addr{}, failed
		}
		return netip.Addr{}, err
	}
	for range tries {
		a, ok := pick(b)
		if !ok {
			return back(errNoRoom)
		}
		if !counted {
			if err := c.count(ctx, r.Handle, cidr, 1); err != nil {
				return netip.Addr{}, err
			}
			counted = true
		}
		b = b.clone()
		b.assign(a, r.Handle, r.Attrs)
		_, err := c.putBlock(ctx, b)
		if err == nil {
			return a, nil
		}
		if errors.Is(err, ErrConflict) {
			b, err = c.getBlock(ctx, cidr)
		}
		if err != nil {
			return back(err)
		}
	}
	return back(fmt.Errorf("block %s: %w", cidr, errBusy))
}

// borrow gives an address of somebody else's block.
func (c *Client) borrow(ctx context.Context, pools []pool, r Request, first picker) (netip.Addr, error) {
	have, err := c.listBlocks(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	var lenders []netip.Prefix
	for cidr, was := range have {
		if was.free > 0 && was.node != c.cfg.Node && inPools(pools, cidr) {
			lenders = append(lenders, cidr)
		}
	}
	slices.SortFunc(lenders, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for i := range lenders { // not all nodes from the same one
		cidr := lenders[(i+int(hostNumber(c.cfg.Node)))%len(lenders)]
		b, err := c.getBlock(ctx, cidr)
		if err == nil && !b.lends() {
			continue
		}
		var a netip.Addr
		if err == nil {
			a, err = c.give(ctx, b, r, first)
		}
		if err == nil || Away(err) {
			return a, err
		}
	}
	return netip.Addr{}, fmt.Errorf("%w in %d pools: all blocks are claimed and full", ipam.ErrExhausted, len(pools))
}

// lends reports whether nodes may take addresses of the block: it is a node's or
// nobody's, not one of load balancers.
func (b *block) lends() bool { return b.spec.Affinity == nil || b.node() != "" }

// assignThis gives a certain address. One that the handle has already is given.
func (c *Client) assignThis(ctx context.Context, s *settings, r Request, a netip.Addr) error {
	p := s.poolOf(a)
	if p == nil {
		return &ipam.RefusedError{Addr: a, Why: "it is in no IPPool"}
	}
	cidr := p.blockOf(a)
	b, fresh := c.blocks[cidr], false
	for range tries {
		var err error
		if b == nil || !fresh && b.attributes(b.ordinal(a)) != nil { // who has it is not said by memory
			b, err = c.blockAt(ctx, s, p, cidr, a)
			fresh = true
		}
		if err != nil {
			return err
		}
		if err := c.mayTake(s, b, r, a); err != nil {
			return err
		}
		if at := b.attributes(b.ordinal(a)); at != nil && handleOf(at) == r.Handle {
			return c.changeHandle(ctx, r.Handle, func(counts map[string]int) {
				counts[cidr.String()] = max(counts[cidr.String()], b.count(r.Handle))
			})
		}
		_, err = c.give(ctx, b, r, func(b *block) (netip.Addr, bool) { return a, b.attributes(b.ordinal(a)) == nil })
		if err == nil || !errors.Is(err, errNoRoom) && !errors.Is(err, ErrNotFound) {
			return err
		}
		b = nil
	}
	return fmt.Errorf("block %s: %w", cidr, errBusy)
}

// blockAt is the block of a certain address, claimed if there is none.
func (c *Client) blockAt(ctx context.Context, s *settings, p *pool, cidr netip.Prefix, a netip.Addr) (*block, error) {
	b, err := c.getBlock(ctx, cidr)
	if !errors.Is(err, ErrNotFound) {
		return b, err
	}
	if !p.here {
		return nil, &ipam.RefusedError{Addr: a, Why: fmt.Sprintf("its block is free, and IPPool %s is not for this node", p.name)}
	}
	b, err = c.claim(ctx, cidr)
	if errors.Is(err, errTaken) {
		return c.getBlock(ctx, cidr)
	}
	return b, err
}

// mayTake says why an address of a block is not for this request.
func (c *Client) mayTake(s *settings, b *block, r Request, a netip.Addr) error {
	if at := b.attributes(b.ordinal(a)); at != nil {
		if by := handleOf(at); by != r.Handle {
			return &TakenError{Addr: a, Block: cidrName(b.cidr), By: describe(at.Secondary, by)}
		}
		return nil
	}
	if b.node() != c.cfg.Node && (s.strict || !b.lends()) {
		return &ipam.RefusedError{Addr: a, Why: fmt.Sprintf("block %s is not this node's", b.cidr)}
	}
	return nil
}

// describe is whose an address is, for people.
func describe(attrs map[string]string, handle string) string {
	switch {
	case attrs["pod"] != "":
		return fmt.Sprintf("pod %s/%s on %s", attrs["namespace"], attrs["pod"], attrs["node"])
	case attrs["type"] != "":
		return fmt.Sprintf("%s of %s", attrs["type"], attrs["node"])
	case handle == "":
		return "an owner without a handle"
	}
	return "handle " + handle
}
