package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

// settings are how blocks and addresses are given in this cluster, for this node.
type settings struct {
	read      time.Time
	pools     []pool // by name
	strict    bool
	claims    bool // new blocks are claimed
	maxBlocks int  // of a family
	reserved  []netip.Prefix
	cooldown  time.Duration // the cluster's; 0: there is none
}

// pool is an IPPool as this node may use it.
type pool struct {
	name        string
	cidr        netip.Prefix
	block       int // length of a block's prefix
	vxlan, ipip bool
	// here: it is enabled and its nodeSelector takes this node.
	here              bool
	workloads, tunnel bool // what it may be used for
	automatic         bool
	namespaces        string // its namespaceSelector
}

// Of Calico's defaults.
const (
	defaultMaxBlocks = 20
	block4, block6   = 26, 122
)

// settingsAge is how long they are gone by before they are read again.
const settingsAge = 15 * time.Second

// settings reads pools, configuration and reservations. They were read shortly
// before as a rule.
func (c *Client) settings(ctx context.Context) (*settings, error) {
	if s := c.set; s != nil && c.cfg.Now().Sub(s.read) < settingsAge {
		return s, nil
	}
	s := &settings{read: c.cfg.Now(), claims: true, maxBlocks: defaultMaxBlocks}
	if err := c.readConfig(ctx, s); err != nil {
		return nil, err
	}
	if err := c.readReservations(ctx, s); err != nil {
		return nil, err
	}
	if err := c.readPools(ctx, s); err != nil {
		return nil, err
	}
	c.set = s
	c.cooldown.Store(int64(s.cooldown))
	return s, nil
}

func (c *Client) readConfig(ctx context.Context, s *settings) error {
	obj, err := c.cfg.Store.Get(ctx, source.Ref{Kind: KindConfig, Name: "default"})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	var spec source.IPAMConfigSpec
	if err == nil {
		err = readSpec(obj, &spec)
	}
	if err != nil {
		return fmt.Errorf("IPAMConfig default: %w", err)
	}
	s.strict = spec.StrictAffinity
	if a := spec.AutoAllocateBlocks; a != nil {
		s.claims = *a
	}
	if spec.MaxBlocksPerHost > 0 {
		s.maxBlocks = spec.MaxBlocksPerHost
	}
	s.cooldown = time.Duration(max(0, spec.IPCooldownSeconds)) * time.Second
	return nil
}

func (c *Client) readReservations(ctx context.Context, s *settings) error {
	objs, err := c.cfg.Store.List(ctx, KindReservation, nil)
	if errors.Is(err, ErrNotFound) { // an earlier Calico, which has no such kind
		return nil
	}
	if err != nil {
		return fmt.Errorf("IPReservations: %w", err)
	}
	for _, obj := range objs {
		var spec source.IPReservationSpec
		if err := readSpec(obj, &spec); err != nil {
			return fmt.Errorf("IPReservation %s: %w", obj.GetName(), err)
		}
		for _, text := range spec.ReservedCIDRs {
			if a, err := netip.ParseAddr(text); err == nil {
				s.reserved = append(s.reserved, netip.PrefixFrom(a, a.BitLen()))
			} else if p, err := netip.ParsePrefix(text); err == nil {
				s.reserved = append(s.reserved, p.Masked())
			}
		}
	}
	return nil
}

func (c *Client) readPools(ctx context.Context, s *settings) error {
	ref := source.Ref{Kind: KindNode, Name: c.cfg.Node}
	node, err := c.cfg.Store.Get(ctx, ref)
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	objs, err := c.cfg.Store.List(ctx, KindPool, nil)
	if err != nil {
		return fmt.Errorf("IPPools: %w", err)
	}
	for _, obj := range objs {
		var spec source.IPPoolSpec
		cidr, what := netip.Prefix{}, ""
		err := readSpec(obj, &spec)
		if err == nil {
			cidr, what = source.ParseCIDR(spec.CIDR)
		}
		if err != nil || what != "" {
			continue // flavour.Calico tells of it
		}
		s.pools = append(s.pools, readPool(obj.GetName(), cidr, &spec, node.GetLabels()))
	}
	slices.SortFunc(s.pools, func(a, b pool) int { return strings.Compare(a.name, b.name) })
	return nil
}

// readPool says for what this node may use a pool.
func readPool(name string, cidr netip.Prefix, spec *source.IPPoolSpec, labels map[string]string) pool {
	on := func(mode string) bool { return mode != "" && !strings.EqualFold(mode, "never") }
	p := pool{name: name, cidr: cidr, block: spec.BlockSize, namespaces: spec.NamespaceSelector}
	if p.block == 0 {
		if p.block = block4; cidr.Addr().Is6() {
			p.block = block6
		}
	}
	p.vxlan = on(spec.VXLANMode)
	p.ipip = on(spec.IPIPMode) || spec.IPIPMode == "" && spec.LegacyIPIP != nil && spec.LegacyIPIP.Enabled
	selected, err := flavour.Selects(spec.NodeSelector, labels)
	p.here = err == nil && selected && !spec.Disabled && p.block >= cidr.Bits() && cidr.Addr().BitLen()-p.block <= 16
	uses := spec.AllowedUses
	p.workloads = len(uses) == 0 || slices.Contains(uses, "Workload")
	p.tunnel = len(uses) == 0 || slices.Contains(uses, "Tunnel")
	p.automatic = spec.AssignmentMode == nil || *spec.AssignmentMode != "Manual"
	return p
}

// isReserved reports whether an address is nobody's by an IPReservation.
func (s *settings) isReserved(a netip.Addr) bool {
	return slices.ContainsFunc(s.reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

// poolOf is the pool that holds an address, or nil.
func (s *settings) poolOf(a netip.Addr) *pool {
	for i := range s.pools {
		if s.pools[i].cidr.Contains(a) {
			return &s.pools[i]
		}
	}
	return nil
}

// blockOf is the prefix of the block that an address is in.
func (p *pool) blockOf(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, p.block).Masked()
}

// forPods are the pools of a family that pods of a namespace get addresses of.
func (c *Client) forPods(ctx context.Context, s *settings, v6 bool, namespace string) (fit []pool, err error) {
	var labels map[string]string
	asked := false
	for _, p := range s.pools {
		if !p.here || !p.workloads || !p.automatic || p.cidr.Addr().Is6() != v6 {
			continue
		}
		if p.namespaces != "" && namespace != "" {
			if !asked {
				asked = true
				if labels, err = c.namespaceLabels(ctx, namespace); err != nil {
					return nil, err
				}
			}
			if ok, err := flavour.Selects(p.namespaces, labels); err != nil || !ok {
				continue
			}
		}
		fit = append(fit, p)
	}
	return fit, nil
}

func (c *Client) namespaceLabels(ctx context.Context, namespace string) (map[string]string, error) {
	ref := source.Ref{Kind: KindNamespace, Name: namespace}
	obj, err := c.cfg.Store.Get(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return obj.GetLabels(), nil
}
