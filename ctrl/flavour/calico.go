package flavour

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
	"culvert/internal/packet"
)

// calicoKey is an annotation of Calico's (libcalico-go/lib/backend/k8s/resources/node.go).
func calicoKey(name string) string { return "projectcalico.org/" + name }

// calicoFamily are the annotations of one address family. There is no IPIP over IPv6.
type calicoFamily struct {
	v6                      bool
	addr, vxlan, mac, ipip  string
	macOf                   string // behind the node's name, for the MAC by rule
	vxlanHandle, ipipHandle string // the kind of a tunnel's address in an IPAMBlock
}

var calicoFamilies = []calicoFamily{
	{false, calicoKey("IPv4Address"), calicoKey("IPv4VXLANTunnelAddr"), calicoKey("VXLANTunnelMACAddr"), calicoKey("IPv4IPIPTunnelAddr"),
		"", "vxlanTunnelAddress", "ipipTunnelAddress"},
	{true, calicoKey("IPv6Address"), calicoKey("IPv6VXLANTunnelAddr"), calicoKey("VXLANTunnelMACAddrV6"), "",
		"-v6", "vxlanV6TunnelAddress", ""},
}

// Calico is the calico mode: what Felix and confd do with the same objects of the
// Kubernetes datastore (felix/calc/l3_route_resolver.go, vxlan_resolver.go).
//
// A prefix is carried as its pool says: IPAMBlocks, and BlockAffinities where there is
// no block, say whose it is. A node is a VXLAN endpoint once it has both an
// address and a tunnel address; until then what would be sent to it by VXLAN is not.
func Calico(objs *source.Objects, opt Options) *Desired {
	base := newCollector(ModeCalico, objs, opt)
	c := opt.Cache.ground(base)
	if c == nil {
		c = &calico{collector: base, pools: &pools{}, prefixes: map[string][]netip.Prefix{}}
		c.felix()
		c.labels = labelsOf(c.own)
		c.readPools()
		c.readBlocks()
		opt.Cache.keep(c)
	}
	c.tunnels = make(map[netip.Addr]string, len(c.nodes))
	if c.own != nil {
		c.local(c.own)
	}
	c.Peers = make([]Peer, 0, len(c.nodes))
	for _, n := range c.nodes {
		if n != c.own {
			c.peer(n)
		}
	}
	return c.finish()
}

type calico struct {
	*collector
	labels   map[string]string // this node's
	pools    *pools
	blocks   []*block // in the order of their claims
	byCIDR   map[netip.Prefix]*block
	prefixes map[string][]netip.Prefix // by node: its blocks, and addresses of others' that it has
	tunnels  map[netip.Addr]string     // by tunnel address: the node that has it
	net      [2]netip.Prefix           // this node's addresses with the length of their network
	mtus     [2]int                    // of VXLAN's two families, 0: not said
	mtuIPIP  int
}

// address is a node's own: the annotation, with or without a length, else
// one of status.addresses, which is then no VTEP (bgp false).
func (c *calico) address(n *corev1.Node, fam calicoFamily) (p netip.Prefix, bgp bool) {
	if s, ok := n.Annotations[fam.addr]; ok {
		p, what := parseNodeAddress(s, fam.v6)
		if what == "" {
			return p, true
		}
		c.nodeConflict(n, annotationPath(fam.addr), "%s; until then it is not used", what)
	}
	if a := c.internalIP(n, fam.v6, true); a.IsValid() {
		return hostPrefix(a), false
	}
	return netip.Prefix{}, false
}

// parseNodeAddress reads 10.0.0.5/24 or 10.0.0.5; the length stays.
func parseNodeAddress(s string, v6 bool) (netip.Prefix, string) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, what := parseFamily(s, v6)
		if what != "" {
			return netip.Prefix{}, fmt.Sprintf("%q is no address of a node; write ADDRESS/LENGTH such as 10.0.0.5/24", s)
		}
		return hostPrefix(a), ""
	}
	_, what := parseFamily(p.Addr().String(), v6)
	return p, what
}

// tunnelAddress is an annotated one; invalid if it is missing or nonsense.
func (c *calico) tunnelAddress(n *corev1.Node, key string, v6 bool) netip.Addr {
	s, ok := n.Annotations[key]
	if !ok || key == "" {
		return netip.Addr{}
	}
	a, what := parseFamily(s, v6)
	if what != "" {
		c.nodeConflict(n, annotationPath(key), "%s; until then it is not used", what)
		return netip.Addr{}
	}
	return a
}

// vtepMAC is the annotation, else the one by rule (felix/calc/vxlan_resolver.go).
func (c *calico) vtepMAC(n *corev1.Node, fam calicoFamily) packet.MAC {
	rule := VTEPMAC(n.Name + fam.macOf)
	s, ok := n.Annotations[fam.mac]
	if !ok || s == "" {
		return rule
	}
	mac, what := source.ParseMAC(s)
	if what != "" {
		c.nodeConflict(n, annotationPath(fam.mac), "%s; until then %s is used", what, rule)
		return rule
	}
	return packet.MAC(mac)
}

// peer adds another node, once for each way that its prefixes are carried.
func (c *calico) peer(n *corev1.Node) {
	for _, fam := range calicoFamilies {
		c.peerFamily(n, fam)
	}
}

func (c *calico) peerFamily(n *corev1.Node, fam calicoFamily) {
	var mine []netip.Prefix
	for _, p := range c.prefixes[n.Name] {
		if p.Addr().Is6() == fam.v6 {
			mine = append(mine, p)
		}
	}
	vtep := c.tunnelAddress(n, fam.vxlan, fam.v6)
	isVTEP := vtep.IsValid() && c.pools.any(fam.v6, func(p *Pool) bool { return p.VXLAN != "" })
	if len(mine) == 0 && !isVTEP {
		return
	}
	addr, bgp := c.address(n, fam)
	ip := addr.Addr()
	if !addr.IsValid() {
		c.nodeConflict(n, annotationPath(fam.addr), "is missing, so nothing can be sent to it; start calico-node there, or annotate the node")
		return
	}
	mac := c.vtepMAC(n, fam)
	if !isVTEP {
		mac = packet.MAC{}
	}
	if !c.claim(n, ip, fam.addr, mac, fam.mac) {
		return
	}
	ways := make(ways, 0, 3)
	way := func(encap string) *Peer {
		if p := ways.by(encap); p != nil {
			return p
		}
		ways = append(ways, Peer{Name: n.Name, Way: wayName(fam.v6, encap), PublicIP: ip, Encap: encap})
		return &ways[len(ways)-1]
	}
	if isVTEP && bgp {
		p := way(VXLAN)
		p.TunnelIP, p.VTEPMAC = c.claimTunnel(n, vtep, fam.vxlan), mac
	}
	withheld := 0
	for _, p := range mine {
		encap := c.encap(p, ip)
		if encap == VXLAN && (!vtep.IsValid() || !bgp) {
			withheld++
			continue
		}
		to := way(encap)
		to.PodCIDRs = append(to.PodCIDRs, p)
	}
	c.notReady(n, fam, vtep, withheld)
	c.tunnelRoutes(n, fam, ways)
	for _, encap := range []string{VXLAN, IPIP, None} {
		if p := ways.by(encap); p != nil {
			slices.SortFunc(p.PodCIDRs, comparePrefixes)
			c.Peers = append(c.Peers, *p)
		}
	}
}

// notReady tells of a node that is no VXLAN endpoint yet although prefixes are
// to be reached through it.
func (c *calico) notReady(n *corev1.Node, fam calicoFamily, vtep netip.Addr, withheld int) {
	if withheld == 0 {
		return
	}
	key := fam.addr
	if !vtep.IsValid() {
		key = fam.vxlan
	}
	c.nodeConflict(n, annotationPath(key), "is missing, so the node is no VXLAN endpoint and %d of its prefixes are not routed; calico-node writes it when it starts", withheld)
}

// tunnelRoutes routes a node's tunnel addresses, which its host's packets have as
// their source, where none of its prefixes does.
func (c *calico) tunnelRoutes(n *corev1.Node, fam calicoFamily, ways ways) {
	cover := func(p *Peer, a netip.Addr) {
		if p == nil || !a.IsValid() || slices.ContainsFunc(c.prefixes[n.Name], func(c netip.Prefix) bool { return c.Contains(a) }) {
			return
		}
		p.PodCIDRs = append(p.PodCIDRs, hostPrefix(a))
	}
	if p := ways.by(VXLAN); p != nil {
		cover(p, p.TunnelIP)
	}
	if ways.by(IPIP) != nil {
		cover(ways.by(IPIP), c.claimTunnel(n, c.tunnelAddress(n, fam.ipip, fam.v6), fam.ipip))
	}
}

// claimTunnel takes a node's tunnel address, which an annotation of that key says;
// invalid if another node has it. That costs the node's host, and its pods nothing.
func (c *calico) claimTunnel(n *corev1.Node, a netip.Addr, key string) netip.Addr {
	if other, taken := c.tunnels[a]; a.IsValid() && taken && other != n.Name {
		c.nodeConflict(n, annotationPath(key), "%s is also a tunnel address of Node %s, which keeps it, so it is not routed to this node; give each its own", a, other).Reason = DuplicateTunnelAddress
		return netip.Addr{}
	}
	c.tunnels[a] = n.Name
	return a
}

// ways are the peers that one node is, by encapsulation.
type ways []Peer

// by is the one of an encapsulation, or nil.
func (w ways) by(encap string) *Peer {
	for i := range w {
		if w[i].Encap == encap {
			return &w[i]
		}
	}
	return nil
}

// wayName tells the ways to one node apart.
func wayName(v6 bool, encap string) string {
	name := ""
	switch encap {
	case IPIP:
		name = "ipip"
	case None:
		name = "direct"
	}
	if !v6 {
		return name
	}
	if name == "" {
		return "ipv6"
	}
	return "ipv6 " + name
}

// encap is how a prefix of a node is carried to that node's address. Only this
// node's prefix length counts (felix/calc/l3_route_resolver.go).
func (c *calico) encap(p netip.Prefix, node netip.Addr) string {
	pool := c.pools.of(p)
	if pool == nil {
		return None
	}
	near := false
	for _, own := range c.net {
		near = near || own.IsValid() && own.Contains(node)
	}
	carried := func(mode string) bool { return mode == "Always" || mode == "CrossSubnet" && !near }
	switch {
	case carried(pool.VXLAN):
		return VXLAN
	case carried(pool.IPIP):
		return IPIP
	}
	return None
}

func comparePrefixes(a, b netip.Prefix) int {
	if d := a.Addr().Compare(b.Addr()); d != 0 {
		return d
	}
	return a.Bits() - b.Bits()
}
