package flavour

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"culvert/ctrl/source"
)

// Pool is a Calico IPPool.
type Pool struct {
	Name string
	CIDR netip.Prefix
	// VXLAN and IPIP are Always or CrossSubnet, or empty for Never.
	VXLAN, IPIP string
	// NATOutgoing: what its pods send out of all pools is to have the node's address.
	NATOutgoing bool
	// Disabled: no more addresses are given of it. It says how those that were are
	// carried all the same.
	Disabled bool

	pods, tunnels bool // this node may take addresses of it for them
}

// pools are the IPPools, none of which overlaps another.
type pools struct{ t bart.Table[*Pool] }

// of is the pool that a prefix is in, or nil.
func (p *pools) of(prefix netip.Prefix) *Pool {
	pool, _ := p.t.LookupPrefix(prefix)
	return pool
}

// any reports whether a pool of a family is as f says.
func (p *pools) any(v6 bool, f func(*Pool) bool) bool {
	for cidr, pool := range p.t.All() {
		if cidr.Addr().Is6() == v6 && f(pool) {
			return true
		}
	}
	return false
}

// readPools takes the IPPools, and from them what the cluster's encapsulation is.
func (c *calico) readPools() {
	for _, obj := range c.objs.IPPools {
		ref := source.Ref{Kind: "IPPool", Name: obj.Name}
		cidr, what := source.ParseCIDR(obj.Spec.CIDR)
		if what != "" {
			c.conflict(ref, "spec.cidr", "%s", what)
			continue
		}
		if other, pool, taken := overlapping(&c.pools.t, cidr); taken {
			c.conflict(ref, "spec.cidr", "%s overlaps %s of IPPool %s, so it is left out; give each its own", cidr, other, pool).Reason = OverlappingPool
			continue
		}
		pool := c.pool(ref, obj, cidr)
		if pool == nil {
			continue
		}
		c.pools.t.Insert(cidr, pool)
		c.Pools = append(c.Pools, *pool)
	}
	c.clusterEncap()
}

func overlapping(t *bart.Table[*Pool], p netip.Prefix) (netip.Prefix, string, bool) {
	if other, pool, ok := t.LookupPrefixLPM(p); ok {
		return other, pool.Name, true
	}
	for other, pool := range t.Subnets(p) {
		return other, pool.Name, true
	}
	return p, "", false
}

// pool reads one; nil if it says nothing that could be carried out.
func (c *calico) pool(ref source.Ref, obj *source.IPPool, cidr netip.Prefix) *Pool {
	spec := &obj.Spec
	p := &Pool{Name: obj.Name, CIDR: cidr, NATOutgoing: spec.NATOutgoing || spec.LegacyNAT, Disabled: spec.Disabled}
	ipip := spec.IPIPMode
	if l := spec.LegacyIPIP; ipip == "" && l != nil && l.Enabled {
		if ipip = l.Mode; ipip == "" {
			ipip = "Always"
		}
	}
	for _, m := range []struct {
		key, mode string
		to        *string
	}{{"spec.vxlanMode", spec.VXLANMode, &p.VXLAN}, {"spec.ipipMode", ipip, &p.IPIP}} {
		switch normalMode(m.mode) {
		case "", "Never":
		case "Always", "CrossSubnet":
			*m.to = normalMode(m.mode)
		default:
			c.conflict(ref, m.key, "%q is no mode, so the pool is left out; write Never, Always or CrossSubnet", m.mode)
			return nil
		}
	}
	if p.VXLAN != "" && p.IPIP != "" {
		c.conflict(ref, "spec.ipipMode", "both vxlanMode and ipipMode are on, so the pool is left out; set one of them to Never")
		return nil
	}
	if p.IPIP != "" && cidr.Addr().Is6() {
		c.conflict(ref, "spec.ipipMode", "there is no IPIP for IPv6, so the pool is left out; set it to Never")
		return nil
	}
	least, most := 20, 32
	if cidr.Addr().Is6() {
		least, most = 116, 128
	}
	if b := spec.BlockSize; b != 0 && (b < least || b > most || b < cidr.Bits()) {
		c.conflict(ref, "spec.blockSize", "%d is no length of blocks in %s; write one from %d to %d", b, cidr, max(least, cidr.Bits()), most)
	}
	c.allowed(ref, obj, p)
	return p
}

// normalMode mends the case, which early versions wrote in small letters.
func normalMode(s string) string {
	switch s {
	case "always":
		return "Always"
	case "cross-subnet", "crossSubnet":
		return "CrossSubnet"
	case "never":
		return "Never"
	}
	return s
}

// allowed says what this node may take addresses of a pool for.
func (c *calico) allowed(ref source.Ref, obj *source.IPPool, p *Pool) {
	spec := &obj.Spec
	selected, err := selects(spec.NodeSelector, c.labels)
	if err != nil {
		c.conflict(ref, "spec.nodeSelector", "%v, so this node takes no address of it", err)
	}
	uses := spec.AllowedUses
	if len(uses) == 0 {
		uses = []string{"Workload", "Tunnel"}
	}
	here := selected && !p.Disabled
	manual := spec.AssignmentMode != nil && *spec.AssignmentMode == "Manual"
	p.pods = here && slices.Contains(uses, "Workload") && !manual
	p.tunnels = here && slices.Contains(uses, "Tunnel")
}

// clusterEncap is what status says, VXLAN before IPIP before none, and what else
// packets of peers may come in: who is near is decided at the other end for those.
func (c *calico) clusterEncap() {
	c.Encap = None
	uses := func(v6 bool, mode func(*Pool) string) bool {
		return c.pools.any(v6, func(p *Pool) bool { return mode(p) != "" })
	}
	vxlan, ipip := func(p *Pool) string { return p.VXLAN }, func(p *Pool) string { return p.IPIP }
	direct := func(p *Pool) string {
		if p.VXLAN == "Always" || p.IPIP == "Always" {
			return ""
		}
		return "sometimes"
	}
	if uses(false, direct) || uses(true, direct) {
		c.Also = append(c.Also, None)
	}
	var mtus []int
	if uses(false, ipip) {
		c.Encap, c.Also, mtus = IPIP, append(c.Also, IPIP), append(mtus, c.mtuIPIP)
	}
	for i, v6 := range []bool{false, true} {
		if uses(v6, vxlan) {
			c.Encap, mtus = VXLAN, append(mtus, c.mtus[i])
		}
	}
	for _, m := range mtus {
		if m > 0 && (c.MTU == 0 || m < c.MTU) {
			c.MTU = m
		}
	}
}

// VXLANOver6 reports whether a pool's prefixes are carried by VXLAN over IPv6.
func (d *Desired) VXLANOver6() bool {
	return slices.ContainsFunc(d.Pools, func(p Pool) bool { return p.VXLAN != "" && p.CIDR.Addr().Is6() })
}
