package flavour

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/config/yamlfile"
	"culvert/ctrl/source"
	"culvert/internal/packet"
)

// collector gathers the state of a mode whose objects others write, too. Claims
// are made in the order of precedence: see Native.
type collector struct {
	Desired
	opt   Options
	objs  *source.Objects
	nodes []*corev1.Node // in that order
	own   *corev1.Node   // this node's object, or nil
	cidrs *claims
	macs  map[packet.MAC]string // by the node that has it
	ips   map[netip.Addr]string
}

func newCollector(mode string, objs *source.Objects, opt Options) *collector {
	n := len(objs.Nodes) // about so many of everything
	c := &collector{
		Desired: Desired{Mode: mode, Annotations: map[string]string{}},
		opt:     opt, objs: objs, nodes: slices.Clone(objs.Nodes), cidrs: &claims{}, macs: make(map[packet.MAC]string, n), ips: make(map[netip.Addr]string, n),
	}
	slices.SortStableFunc(c.nodes, func(a, b *corev1.Node) int {
		return cmp.Or(first(b.Name == opt.Node, a.Name == opt.Node),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	if len(c.nodes) > 0 && c.nodes[0].Name == opt.Node {
		c.own = c.nodes[0]
	} else {
		c.conflict(source.Ref{Kind: "Node", Name: opt.Node}, "metadata.name",
			"there is no such object, so nothing is known of this node; create it, or set node to the name of the one that is meant")
	}
	return c
}

// finish puts the peers in order.
func (c *collector) finish() *Desired {
	slices.SortFunc(c.Peers, func(a, b Peer) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Way, b.Way))
	})
	d := c.Desired
	return &d
}

// conflict adds one, whose Reason may be set until the next is added.
func (c *collector) conflict(ref source.Ref, key, format string, args ...any) *Conflict {
	return conflict(&c.Desired, c.objs, ref, key, format, args...)
}

func conflict(d *Desired, objs *source.Objects, ref source.Ref, key, format string, args ...any) *Conflict {
	place, _ := objs.Origin(ref)
	d.Conflicts = append(d.Conflicts, Conflict{Object: ref, Key: key, Reason: NotFollowed, What: fmt.Sprintf(format, args...), Place: place})
	return &d.Conflicts[len(d.Conflicts)-1]
}

// nodeConflict is one about a Node object.
func (c *collector) nodeConflict(n *corev1.Node, key, format string, args ...any) *Conflict {
	return c.conflict(source.Ref{Kind: "Node", Name: n.Name}, key, format, args...)
}

// annotationPath is the key of an annotation as the manifest's decoder writes it.
func annotationPath(key string) string { return yamlfile.Join("metadata.annotations", key) }

// claim takes a peer's address and, if it has one, its VTEP's MAC, which annotations of
// these keys say, unless another node has one of them. Those of one node may be
// claimed again.
func (c *collector) claim(n *corev1.Node, ip netip.Addr, ipKey string, mac packet.MAC, macKey string) bool {
	if other, taken := c.ips[ip]; taken && other != n.Name {
		c.nodeConflict(n, annotationPath(ipKey), "%s is also the address of Node %s, so this node is left out; give each its own", ip, other).Reason = DuplicateAddress
		return false
	}
	if other, taken := c.macs[mac]; taken && other != n.Name && !mac.IsZero() {
		c.nodeConflict(n, annotationPath(macKey), "VTEP MAC %s is also that of Node %s, so this node is left out; give each its own", mac, other).Reason = DuplicateVTEPMAC
		return false
	}
	c.ips[ip], c.macs[mac] = n.Name, n.Name
	return true
}

// onLink is this node's own prefix that holds an address.
func (c *collector) onLink(ip netip.Addr) (netip.Prefix, bool) {
	for _, p := range c.opt.Subnets {
		if p.Contains(ip) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// inUse reports whether a pod of this node has an address.
func (c *collector) inUse(a netip.Addr) bool { return c.opt.InUse != nil && c.opt.InUse(a) }

// internalIP is a node's first InternalIP of a family, or with other its first
// address of any type but names.
func (c *collector) internalIP(n *corev1.Node, v6, other bool) netip.Addr {
	for i, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && (!other || a.Type != corev1.NodeExternalIP) {
			continue
		}
		addr, what := source.ParseAddr(a.Address)
		if what == "" && addr.Is6() == v6 {
			return addr
		}
		if what != "" && !v6 { // once
			c.nodeConflict(n, fmt.Sprintf("status.addresses[%d].address", i), "%s", what)
		}
	}
	return netip.Addr{}
}

// hostPrefix is an address as a prefix of its own.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
