package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/big"
	"math/rand"
	"net/netip"
	"time"
)

// errTaken: another node has the block.
var errTaken = fmt.Errorf("another node has the block: %w", ErrExists)

// reclaimAge is how long a block has been its node's before another node takes it
// because it is empty: so long nobody hurries to use it.
const reclaimAge = time.Minute

// claim makes a block this node's. A write of somebody else in between is no error.
func (c *Client) claim(ctx context.Context, cidr netip.Prefix) (*block, error) {
	for range tries {
		a, err := c.pendingAffinity(ctx, cidr)
		var b *block
		if err == nil {
			b, err = c.blockFor(ctx, a)
		}
		if err == nil || errors.Is(err, errTaken) || !again(err) {
			return b, err
		}
	}
	return nil, fmt.Errorf("block %s: %w", cidr, errBusy)
}

// pendingAffinity is this node's for a block, made if there is none.
func (c *Client) pendingAffinity(ctx context.Context, cidr netip.Prefix) (affinity, error) {
	c.own = nil
	obj := newObject(affinityRef(c.cfg.Node, cidr), map[string]any{
		"state": pending, "node": c.cfg.Node, "type": "host", "cidr": cidr.String(), "deleted": "false",
	})
	obj.SetLabels(affinityLabels(c.cfg.Node, cidr))
	made, err := c.cfg.Store.Create(ctx, obj)
	if errors.Is(err, ErrExists) {
		made, err = c.cfg.Store.Get(ctx, affinityRef(c.cfg.Node, cidr))
	}
	if err != nil {
		return affinity{}, fmt.Errorf("BlockAffinity of %s: %w", cidr, err)
	}
	return readAffinity(made)
}

// blockFor is the block of this node's affinity: made, or taken over where this node
// made it before. The affinity is confirmed when it returns. One that is stale is
// deleted, and the error is errTaken.
func (c *Client) blockFor(ctx context.Context, a affinity) (*block, error) {
	if a.spec.Deleted == "true" {
		if err := c.deleteAffinity(ctx, a); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("BlockAffinity of %s: %w", a.cidr, ErrConflict)
	}
	b, err := c.getBlock(ctx, a.cidr)
	switch {
	case errors.Is(err, ErrNotFound):
		return c.makeBlock(ctx, a)
	case err != nil:
		return nil, err
	case b.node() != c.cfg.Node:
		if err := c.deleteAffinity(ctx, a); err != nil {
			return nil, err
		}
		return nil, errTaken
	case a.spec.State == confirmed || a.spec.State == "":
		c.blocks[b.cidr] = b
		return b, nil
	}
	if a, err = c.setState(ctx, a, pending); err != nil {
		return nil, err
	}
	// Whoever was about to give it up has read the block before this write.
	if b, err = c.putBlock(ctx, b.clone()); err != nil {
		return nil, err
	}
	_, err = c.setState(ctx, a, confirmed)
	return b, err
}

func (c *Client) makeBlock(ctx context.Context, a affinity) (*block, error) {
	a, err := c.setState(ctx, a, pending)
	if err != nil {
		return nil, err
	}
	obj, err := newBlock(a.cidr, c.cfg.Node, c.cfg.Now()).object()
	if err == nil {
		obj, err = c.cfg.Store.Create(ctx, obj)
	}
	if err != nil { // if it exists: the next look says whose it is
		return nil, fmt.Errorf("IPAMBlock %s: %w", a.cidr, err)
	}
	if _, err := c.setState(ctx, a, confirmed); err != nil {
		return nil, err
	}
	c.cfg.Log.Info("block claimed", "block", a.cidr)
	return c.written(obj)
}

// setState writes an affinity's state, with the labels, if it is another one.
func (c *Client) setState(ctx context.Context, a affinity, state string) (affinity, error) {
	if a.spec.State == state {
		return a, nil
	}
	c.own = nil
	obj := a.obj.DeepCopy()
	spec, _ := obj.Object["spec"].(map[string]any)
	spec["state"] = state
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, affinityLabels(a.spec.Node, a.cidr))
	obj.SetLabels(labels)
	obj, err := c.cfg.Store.Update(ctx, obj)
	if err != nil {
		return a, fmt.Errorf("BlockAffinity of %s: %w", a.cidr, err)
	}
	return readAffinity(obj)
}

func (c *Client) deleteAffinity(ctx context.Context, a affinity) error {
	c.own = nil
	if err := c.remove(ctx, a.obj); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("BlockAffinity of %s: %w", a.cidr, err)
	}
	return nil
}

// maxReserved is how many blocks that are reserved are passed over in a pool.
const maxReserved = 1 << 16

// claimAny claims a free block of the pools, in Calico's order: from a place that the
// node's name decides, round. errNoRoom: there is none.
func (c *Client) claimAny(ctx context.Context, s *settings, pools []pool) (*block, error) {
	have, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pools {
		at := p.candidates(c.cfg.Node, c.cfg.Now())
		// Among as many as there are, and one more, one is free if one is.
		for left, reserved := len(have)+1, maxReserved; left > 0 && reserved > 0; left-- {
			cidr, ok := at()
			if !ok {
				break
			}
			if s.wholeReserved(cidr) {
				left++
				reserved--
				continue
			}
			if have[cidr] {
				continue
			}
			b, err := c.claim(ctx, cidr)
			if errors.Is(err, errTaken) {
				left++ // it was not known
				continue
			}
			return b, err
		}
	}
	return c.reclaim(ctx, s, pools)
}

// reclaim takes a block that another node has and does not use.
func (c *Client) reclaim(ctx context.Context, s *settings, pools []pool) (*block, error) {
	have, err := c.listBlocks(ctx)
	if err != nil {
		return nil, err
	}
	for cidr, was := range have {
		if !was.empty || was.free == 0 || was.node == "" || was.node == c.cfg.Node || was.age < reclaimAge || !inPools(pools, cidr) || s.wholeReserved(cidr) {
			continue
		}
		err := c.giveUp(ctx, was.node, cidr, &was.seq)
		if err == nil {
			var b *block
			if b, err = c.claim(ctx, cidr); err == nil {
				return b, nil
			}
		}
		if Away(err) {
			return nil, err
		}
	}
	return nil, errNoRoom
}

// giveUp ends a node's affinity to a block that nobody has an address of: the
// affinity is marked, the block deleted if it is still as it was read, and then the
// affinity. seq, if it is there, must be the block's. errInUse: somebody has one.
func (c *Client) giveUp(ctx context.Context, node string, cidr netip.Prefix, seq *uint64) error {
	obj, err := c.cfg.Store.Get(ctx, affinityRef(node, cidr))
	if err != nil {
		return fmt.Errorf("BlockAffinity of %s: %w", cidr, err)
	}
	a, err := readAffinity(obj)
	if err != nil {
		return err
	}
	b, err := c.getBlock(ctx, cidr)
	if errors.Is(err, ErrNotFound) {
		return c.deleteAffinity(ctx, a)
	}
	if err != nil {
		return err
	}
	switch {
	case b.node() != node:
		return errors.Join(errTaken, c.deleteAffinity(ctx, a))
	case !b.empty():
		return errInUse
	case seq != nil && *seq != b.spec.SequenceNumber:
		return fmt.Errorf("IPAMBlock %s: %w", cidr, ErrConflict)
	}
	if a, err = c.setState(ctx, a, pendingDeletion); err != nil {
		return err
	}
	if err := c.remove(ctx, b.obj); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("IPAMBlock %s: %w", cidr, err)
	}
	c.cfg.Log.Info("empty block given up", "block", cidr, "node", node)
	return c.deleteAffinity(ctx, a)
}

// errInUse: the block is not empty.
var errInUse = fmt.Errorf("addresses of the block are in use: %w", ErrConflict)

// wholeReserved reports whether no address of a block may be given.
func (s *settings) wholeReserved(cidr netip.Prefix) bool {
	for _, p := range s.reserved {
		if p.Contains(cidr.Addr()) && p.Bits() <= cidr.Bits() {
			return true
		}
	}
	return false
}

func inPools(pools []pool, cidr netip.Prefix) bool {
	for i := range pools {
		if pools[i].cidr.Contains(cidr.Addr()) {
			return true
		}
	}
	return false
}

// candidates goes through the pool's blocks once
// (libcalico-go/lib/ipam/ipam_block_reader_writer.go randomBlockGenerator).
func (p *pool) candidates(node string, now time.Time) func() (netip.Prefix, bool) {
	seed := int64(hostNumber(node))
	if p.block == p.cidr.Addr().BitLen() {
		seed = now.UnixNano() // of blocks of one address each node needs many
	}
	count := new(big.Int).Lsh(big.NewInt(1), uint(p.block-p.cidr.Bits()))
	i := new(big.Int).Rand(rand.New(rand.NewSource(seed)), count)
	left := new(big.Int).Set(count)
	one, shift := big.NewInt(1), uint(p.cidr.Addr().BitLen()-p.block)
	base := new(big.Int).SetBytes(p.cidr.Addr().AsSlice())
	return func() (netip.Prefix, bool) {
		if left.Sign() == 0 {
			return netip.Prefix{}, false
		}
		left.Sub(left, one)
		raw := make([]byte, p.cidr.Addr().BitLen()/8)
		new(big.Int).Add(base, new(big.Int).Lsh(i, shift)).FillBytes(raw)
		if i.Add(i, one).Cmp(count) >= 0 {
			i.SetInt64(0)
		}
		a, _ := netip.AddrFromSlice(raw)
		return netip.PrefixFrom(a, p.block), true
	}
}

// hostNumber is a number that a node's name decides.
func hostNumber(node string) uint32 {
	hash := fnv.New32()
	_, _ = hash.Write([]byte(node)) // which never fails
	return hash.Sum32()
}
