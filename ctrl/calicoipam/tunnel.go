package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// tunnelKind is a kind of tunnel that needs an address of the pods' network
// (node/pkg/allocateip/allocateip.go).
type tunnelKind struct {
	handle string // before the node's name
	attr   string // the type in the block's attributes
	v6     bool
	uses   func(*pool) bool
}

var tunnelKinds = []tunnelKind{
	{"ipip-tunnel-addr-", "ipipTunnelAddress", false, func(p *pool) bool { return p.ipip }},
	{"vxlan-tunnel-addr-", "vxlanTunnelAddress", false, func(p *pool) bool { return p.vxlan }},
	{"vxlan-v6-tunnel-addr-", "vxlanV6TunnelAddress", true, func(p *pool) bool { return p.vxlan }},
}

// EnsureTunnels gives this node an address for every kind of tunnel that a pool asks
// for, keeps those that it has in such a pool, and takes the others back. Those of
// before are given again where they are free.
func (c *Client) EnsureTunnels(ctx context.Context, before []netip.Addr) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range tunnelKinds {
		if err := c.ensureTunnel(ctx, s, k, before); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", k.handle, c.cfg.Node, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Client) ensureTunnel(ctx context.Context, s *settings, k tunnelKind, before []netip.Addr) error {
	var pools []pool
	for _, p := range s.pools {
		if p.here && p.tunnel && p.cidr.Addr().Is6() == k.v6 && k.uses(&p) {
			pools = append(pools, p)
		}
	}
	r := Request{Handle: k.handle + c.cfg.Node, Attrs: map[string]string{"node": c.cfg.Node, "type": k.attr}}
	var have netip.Addr
	keep := func(h holder) bool {
		good := h.attrs["node"] == c.cfg.Node && h.attrs["type"] == k.attr && inPools(pools, netip.PrefixFrom(h.addr, h.addr.BitLen()))
		if good && !have.IsValid() {
			have = h.addr
		}
		return good && have == h.addr
	}
	delete(c.handles, r.Handle) // others may have a hand in it: calico-node, the garbage collector
	own, err := c.affinities(ctx)
	if err != nil {
		return err
	}
	var blocks []netip.Prefix // also where the handle has been lost
	for _, a := range own {
		blocks = append(blocks, a.cidr)
	}
	if err := c.release(ctx, r.Handle, blocks, func(h holder) bool { return !keep(h) }); err != nil {
		return err
	}
	if have.IsValid() || len(pools) == 0 {
		return nil
	}
	for _, a := range before {
		if a.Is6() != k.v6 || !inPools(pools, netip.PrefixFrom(a, a.BitLen())) || c.cfg.Taken(a) {
			continue
		}
		err := c.assignThis(ctx, s, r, a)
		if err == nil || Away(err) {
			return err
		}
	}
	a, err := c.assignAny(ctx, s, pools, r, k.v6)
	if err == nil {
		c.cfg.Log.Info("tunnel address", "handle", r.Handle, "addr", a)
	}
	return err
}

// EnsureBlocks claims a block of every family that this node's pods have pools of, so
// that they get addresses while the API server is away, too.
func (c *Client) EnsureBlocks(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	s, err := c.settings(ctx)
	if err != nil || !s.claims {
		return err
	}
	for _, v6 := range []bool{false, true} {
		pools, err := c.forPods(ctx, s, v6, "")
		if err != nil {
			return err
		}
		own, err := c.affinities(ctx)
		if err != nil {
			return err
		}
		if len(pools) == 0 || slices.ContainsFunc(own, func(a affinity) bool { return inPools(pools, a.cidr) && a.spec.State == confirmed }) {
			continue
		}
		if _, err := c.claimAny(ctx, s, pools); err != nil && !errors.Is(err, errNoRoom) {
			return err
		}
	}
	return nil
}
