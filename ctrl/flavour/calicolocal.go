package flavour

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// local adds this node, the pools of its pods, and what it is to publish.
func (c *calico) local(n *corev1.Node) {
	l := &Node{Name: n.Name, Blocks: true, Pools: []netip.Prefix{}}
	c.Local = l
	for i, fam := range calicoFamilies {
		c.localAddress(i, n, fam)
	}
	for _, p := range c.prefixes[n.Name] {
		if b := c.byCIDR[p]; b != nil && b.node == n.Name {
			l.PodCIDRs = append(l.PodCIDRs, p)
		}
	}
	c.localPools(l)
	for i, fam := range calicoFamilies {
		c.localFamily(l, i, n, fam)
	}
	for _, b := range c.blocks {
		if b.obj != nil && slices.Contains(l.Pools, b.cidr) {
			c.hold(l, b)
		}
	}
	if len(l.PodCIDRs) == 0 && !c.opt.Claims {
		c.nodeConflict(n, "BlockAffinity", "no confirmed block is affine to this node, so its pods get no address; let Calico's IPAM give it one")
	}
}

// localAddress finds this node's address with its network's length, which decides
// about CrossSubnet: as it is written, else as the uplinks have it.
func (c *calico) localAddress(i int, n *corev1.Node, fam calicoFamily) {
	addr, bgp := c.address(n, fam)
	if !addr.IsValid() {
		return
	}
	if !bgp || addr.IsSingleIP() {
		if link, ok := c.onLink(addr.Addr()); ok {
			addr = netip.PrefixFrom(addr.Addr(), link.Bits())
		}
	}
	c.net[i] = addr
	c.Annotations[fam.addr] = addr.String()
}

// localPools are the blocks that this node may give its pods addresses of.
func (c *calico) localPools(l *Node) {
	for _, b := range c.blocks {
		if b.node == l.Name && b.confirmed && slices.Contains(l.PodCIDRs, b.cidr) && c.pools.of(b.cidr).pods {
			l.Pools = append(l.Pools, b.cidr)
		}
	}
}

// localFamily adds the endpoint of one family.
func (c *calico) localFamily(l *Node, i int, n *corev1.Node, fam calicoFamily) {
	if !c.net[i].IsValid() {
		if slices.ContainsFunc(l.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() == fam.v6 }) {
			c.nodeConflict(n, annotationPath(fam.addr), "is missing, and so is an InternalIP of that family: peers cannot send to this node; add one of them")
		}
		return
	}
	e := Endpoint{PublicIP: c.net[i].Addr(), VTEPMAC: c.vtepMAC(n, fam)}
	c.ips[e.PublicIP], c.macs[e.VTEPMAC] = n.Name, n.Name
	e.TunnelIP = c.localTunnel(l, n, tunnelKind{fam.vxlan, fam.vxlanHandle, fam.v6, func(p *Pool) bool { return p.VXLAN != "" }})
	var ipip netip.Addr
	if fam.ipip != "" {
		ipip = c.localTunnel(l, n, tunnelKind{fam.ipip, fam.ipipHandle, fam.v6, func(p *Pool) bool { return p.IPIP != "" }})
	}
	if !e.TunnelIP.IsValid() {
		e.TunnelIP = ipip
	} else if ipip.IsValid() {
		l.HostIPs = append(l.HostIPs, ipip)
	}
	if fam.v6 && l.PublicIP.IsValid() {
		l.V6 = &e
		return
	}
	l.PublicIP, l.TunnelIP, l.VTEPMAC = e.PublicIP, e.TunnelIP, e.VTEPMAC
}

// tunnelKind is a kind of tunnel that needs an address of the pods' network.
type tunnelKind struct {
	key    string // the annotation
	handle string // the type in an IPAMBlock's attributes
	v6     bool
	uses   func(*Pool) bool
}

// localTunnel is this node's address of a tunnel, if a pool needs one, by the rules
// of node/pkg/allocateip: what the Node says, what a block says, what was taken
// before if it is still good, or the first free address of an own block.
func (c *calico) localTunnel(l *Node, n *corev1.Node, k tunnelKind) netip.Addr {
	if !c.pools.any(k.v6, k.uses) {
		return netip.Addr{}
	}
	a := c.tunnelAddress(n, k.key, k.v6)
	if given := c.allocatedTunnel(n.Name, k); given.IsValid() && (c.opt.Claims || !a.IsValid()) {
		a = given
	}
	if !a.IsValid() && !c.opt.Claims {
		a = c.freeTunnel(l, k)
	}
	if !a.IsValid() {
		c.nodeConflict(n, annotationPath(k.key), "is missing, and no block of this node has a free address for it, so peers do not route to this node; give the node a block")
		return a
	}
	c.Annotations[k.key] = a.String()
	c.tunnels[a] = n.Name
	l.Held = append(l.Held, Held{Addr: a, Why: "it is the node's tunnel address"})
	return a
}

// allocatedTunnel is an address that a block says is this node's for the tunnel.
func (c *calico) allocatedTunnel(node string, k tunnelKind) (found netip.Addr) {
	for _, b := range c.blocks {
		if b.obj == nil {
			continue
		}
		b.each(func(a netip.Addr, _ int, at *source.IPAMBlockAttribute) {
			if !found.IsValid() && at != nil && at.Secondary["node"] == node && at.Secondary["type"] == k.handle && a.Is6() == k.v6 {
				found = a
			}
		})
	}
	return found
}

// freeTunnel takes the address of before, else the first free one.
func (c *calico) freeTunnel(l *Node, k tunnelKind) netip.Addr {
	kept, _ := netip.ParseAddr(c.opt.Kept[k.key])
	var found netip.Addr
	for _, b := range c.blocks {
		pool := c.pools.of(b.cidr)
		if b.node != l.Name || !b.confirmed || b.cidr.Addr().Is6() != k.v6 || pool == nil || !pool.tunnels || !k.uses(pool) {
			continue
		}
		given := map[netip.Addr]bool{}
		if b.obj != nil {
			b.each(func(a netip.Addr, _ int, _ *source.IPAMBlockAttribute) { given[a] = true })
		}
		free := func(a netip.Addr) bool {
			return !given[a] && !c.inUse(a) && !slices.ContainsFunc(l.Held, func(h Held) bool { return h.Addr == a })
		}
		if b.cidr.Contains(kept) && free(kept) {
			return kept
		}
		for a := b.cidr.Addr(); !found.IsValid() && b.cidr.Contains(a); a = a.Next() {
			if free(a) {
				found = a
			}
		}
	}
	return found
}

// hold keeps what a block says is given from being given again. What is given to a
// pod of this node may be asked for: it may be that pod's.
func (c *calico) hold(l *Node, b *block) {
	b.each(func(a netip.Addr, _ int, at *source.IPAMBlockAttribute) {
		if slices.ContainsFunc(l.Held, func(h Held) bool { return h.Addr == a }) {
			return
		}
		h := Held{Addr: a, Why: fmt.Sprintf("%s says that it is taken", b.ref)}
		if at != nil {
			pod := at.Secondary["pod"]
			h.Ask = at.Secondary["node"] == l.Name && pod != ""
			if pod != "" {
				h.Why = fmt.Sprintf("%s says that it is of pod %s/%s on %s", b.ref, at.Secondary["namespace"], pod, at.Secondary["node"])
			}
		}
		l.Held = append(l.Held, h)
	})
}
