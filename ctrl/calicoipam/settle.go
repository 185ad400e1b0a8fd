package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Settle makes the addresses of a handle those that the request wants, beside those
// that it keeps, in the blocks and in the handle. It may be done again at any time, and
// mends what an Assign or Settle that was cut short has left. Nothing wanted and
// nothing kept releases the handle. The request is asked for when no other operation
// runs any more; false: there is nothing to do. It does all that it can: the error of a
// wanted address is returned at the end.
func (c *Client) Settle(ctx context.Context, request func() (Request, bool)) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	r, ok := request()
	if !ok {
		return nil
	}
	others := func(h holder) bool { return !slices.Contains(r.Want, h.addr) && !slices.Contains(r.Keep, h.addr) }
	if len(r.Want) == 0 {
		return c.release(ctx, r.Handle, nil, others)
	}
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	var problem error
	var blocks []netip.Prefix
	for _, a := range r.Want {
		err := c.assignThis(ctx, s, r, a)
		if Away(err) {
			return err
		}
		problem = errors.Join(problem, err)
		if p := s.poolOf(a); p != nil {
			blocks = append(blocks, p.blockOf(a))
		}
	}
	err = c.release(ctx, r.Handle, blocks, others)
	return errors.Join(problem, err)
}

// ReleaseLeaked takes back addresses that nobody uses, by the sequence numbers that
// they had when that was seen: one given again since is left alone.
func (c *Client) ReleaseLeaked(ctx context.Context, handle string, block netip.Prefix, seqs map[netip.Addr]uint64) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	return c.release(ctx, handle, []netip.Prefix{block}, func(h holder) bool {
		seq, ok := seqs[h.addr]
		return ok && seq == h.seq
	})
}

// release takes back a handle's addresses that match says, in the blocks that the
// handle names and in these, and then counts what is left. The blocks come first: an
// address always has a handle.
func (c *Client) release(ctx context.Context, id string, blocks []netip.Prefix, match func(holder) bool) error {
	h := c.handles[id]
	if h == nil {
		var err error
		if h, err = c.handle(ctx, id); err != nil {
			return err
		}
	}
	for text := range h.spec.Block {
		if p, err := netip.ParsePrefix(text); err == nil {
			blocks = append(blocks, p)
		}
	}
	left := map[string]int{}
	slices.SortFunc(blocks, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for _, cidr := range slices.Compact(blocks) {
		n, err := c.releaseFrom(ctx, cidr, id, match)
		if err != nil {
			return err
		}
		left[cidr.String()] = n
	}
	return c.changeHandle(ctx, id, func(counts map[string]int) {
		for cidr, n := range left {
			counts[cidr] = n
		}
	})
}

// releaseFrom takes a handle's addresses out of a block, and says how many it keeps.
func (c *Client) releaseFrom(ctx context.Context, cidr netip.Prefix, id string, match func(holder) bool) (left int, err error) {
	b, fresh := c.blocks[cidr], false
	for range tries {
		if b == nil {
			b, err = c.getBlock(ctx, cidr)
			fresh = true
			if errors.Is(err, ErrNotFound) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
		}
		b = b.clone()
		n := b.release(func(h holder) bool { return h.handle == id && match(h) })
		if n == 0 && fresh {
			return b.count(id), nil
		}
		if n == 0 { // that there is nothing is not said by memory
			b = nil
			continue
		}
		if b.empty() && b.spec.Affinity == nil { // nobody's any more
			if err = c.remove(ctx, b.obj); err != nil {
				err = fmt.Errorf("IPAMBlock %s: %w", cidr, err)
			}
		} else {
			_, err = c.putBlock(ctx, b)
		}
		if err == nil {
			return b.count(id), nil
		}
		if b = nil; !again(err) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("block %s: %w", cidr, errBusy)
}
