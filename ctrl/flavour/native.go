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

// Native is the native mode: every Node object with pod CIDRs and an InternalIP
// is a VXLAN tunnel endpoint.
//
// Who comes first keeps what two nodes claim: this node before all others, so
// that no object can take its pods away; then the older object, so that a new
// node cannot take over what works; then, where the objects have no creation
// time, the name that sorts first, so that all nodes decide alike.
func Native(objs *source.Objects, opt Options) *Desired {
	n := &native{
		Desired: Desired{Mode: "native", Encap: opt.Encap, VNI: opt.VNI, Port: opt.Port},
		opt:     opt,
		objs:    objs,
		macs:    make(map[packet.MAC]string, len(objs.Nodes)),
		ips:     make(map[netip.Addr]string, len(objs.Nodes)),
	}
	nodes := slices.Clone(objs.Nodes)
	slices.SortStableFunc(nodes, func(a, b *corev1.Node) int {
		return cmp.Or(first(b.Name == opt.Node, a.Name == opt.Node),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	if len(nodes) == 0 || nodes[0].Name != opt.Node {
		n.Conflicts = append(n.Conflicts, Conflict{Object: source.Ref{Kind: "Node", Name: opt.Node}, Key: "metadata.name", Reason: NotFollowed,
			What: "there is no such object, so this node has no pod CIDR; create it, or set node to the name of the one that is meant"})
	}
	n.Peers = make([]Peer, 0, len(nodes))
	for _, node := range nodes {
		if node.Name == opt.Node {
			n.local(node)
		} else {
			n.peer(node)
		}
	}
	slices.SortFunc(n.Peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return &n.Desired
}

// first orders true before false, given b and a.
func first(b, a bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// Keys of the annotations, as the manifest's decoder writes them.
var (
	keyMAC = yamlfile.Join("metadata.annotations", source.AnnotationVTEPMAC)
	keyIP  = yamlfile.Join("metadata.annotations", source.AnnotationPublicIP)
)

// native collects the state. Claims are made in the order of precedence.
type native struct {
	Desired
	opt   Options
	objs  *source.Objects
	cidrs claims
	macs  map[packet.MAC]string // by the node that has it
	ips   map[netip.Addr]string
}

func (n *native) conflict(node *corev1.Node, key, format string, args ...any) *Conflict {
	return conflict(&n.Desired, n.objs, source.Ref{Kind: "Node", Name: node.Name}, key, format, args...)
}

func (n *native) local(node *corev1.Node) {
	l := &Node{Name: node.Name, PublicIP: n.publicIP(node), VTEPMAC: n.vtepMAC(node), PodCIDRs: n.podCIDRs(node)}
	n.macs[l.VTEPMAC] = node.Name
	if l.PublicIP.IsValid() {
		n.ips[l.PublicIP] = node.Name
	}
	if len(l.PodCIDRs) > 0 {
		l.TunnelIP = l.PodCIDRs[0].Addr()
	} else if len(rawCIDRs(node)) == 0 {
		n.conflict(node, "spec.podCIDRs", "is missing, so pods of this node get no address; set it, or let the controller manager allocate one")
	}
	n.Local = l
}

// peer adds another node. One without pod CIDRs is not there yet: controllers
// assign them a moment after the node joins.
func (n *native) peer(node *corev1.Node) {
	if len(rawCIDRs(node)) == 0 {
		return
	}
	p := Peer{Name: node.Name, PublicIP: n.publicIP(node), VTEPMAC: n.vtepMAC(node)}
	if !p.PublicIP.IsValid() {
		n.conflict(node, "status.addresses", "has no InternalIP, so nothing can be sent to it; add one, or annotate the node with %s", source.AnnotationPublicIP)
		return
	}
	if other, taken := n.ips[p.PublicIP]; taken {
		n.conflict(node, "status.addresses", "%s is also the address of Node %s, so this node is left out; give each its own", p.PublicIP, other).Reason = DuplicateAddress
		return
	}
	if other, taken := n.macs[p.VTEPMAC]; taken && n.opt.Encap == VXLAN {
		n.conflict(node, keyMAC, "VTEP MAC %s is also that of Node %s, so this node is left out; give each its own", p.VTEPMAC, other).Reason = DuplicateVTEPMAC
		return
	}
	if p.PodCIDRs = n.podCIDRs(node); len(p.PodCIDRs) == 0 {
		return
	}
	if p.Encap = n.encap(p.PublicIP); p.Encap == IPIP && p.PublicIP.Is6() {
		n.conflict(node, "status.addresses", "%s is IPv6, which IPIP has no tunnels over, so this node is left out; "+
			"give it an IPv4 InternalIP, or set native.encap to vxlan or none", p.PublicIP)
		return
	}
	n.ips[p.PublicIP], n.macs[p.VTEPMAC] = node.Name, node.Name
	p.TunnelIP = p.PodCIDRs[0].Addr()
	n.Peers = append(n.Peers, p)
}

// encap is how a peer is reached.
func (n *native) encap(peer netip.Addr) string {
	if n.opt.CrossSubnet && n.Local != nil && subnetOf(n.Local.PublicIP, n.opt.Subnets).Contains(peer) {
		return None
	}
	return n.opt.Encap
}

// subnetOf is the prefix of an address of the node among those of its uplinks. An
// address that no uplink has, since the node is behind NAT, is taken for the
// first one of its family there. The zero prefix holds nobody.
func subnetOf(own netip.Addr, uplinks []netip.Prefix) (subnet netip.Prefix) {
	for _, p := range uplinks {
		switch {
		case p.Addr() == own:
			return p.Masked()
		case !subnet.IsValid() && p.Addr().Is4() == own.Is4():
			subnet = p.Masked()
		}
	}
	return subnet
}

// vtepMAC is what the annotation says, else what follows from the name.
func (n *native) vtepMAC(node *corev1.Node) packet.MAC {
	if s, ok := node.Annotations[source.AnnotationVTEPMAC]; ok {
		mac, what := source.ParseMAC(s)
		if what == "" {
			return packet.MAC(mac)
		}
		n.conflict(node, keyMAC, "%s; until then %s is used", what, VTEPMAC(node.Name))
	}
	return VTEPMAC(node.Name)
}

// publicIP is what the annotation says, else the first InternalIP, IPv4 before
// IPv6: the underlay's family is IPv4 where there is a choice.
func (n *native) publicIP(node *corev1.Node) (ip netip.Addr) {
	if s, ok := node.Annotations[source.AnnotationPublicIP]; ok {
		ip, what := source.ParseAddr(s)
		if what == "" {
			return ip
		}
		n.conflict(node, keyIP, "%s; until then the InternalIP is used", what)
	}
	for i, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		addr, what := source.ParseAddr(a.Address)
		if what != "" {
			n.conflict(node, fmt.Sprintf("status.addresses[%d].address", i), "%s", what)
			continue
		}
		if !ip.IsValid() || (ip.Is6() && addr.Is4()) {
			ip = addr
		}
	}
	return ip
}

// rawCIDRs is what the object says, spec.podCIDR being the old way.
func rawCIDRs(node *corev1.Node) []string {
	if len(node.Spec.PodCIDRs) == 0 && node.Spec.PodCIDR != "" {
		return []string{node.Spec.PodCIDR}
	}
	return node.Spec.PodCIDRs
}

// podCIDRs are those of the node that nobody claimed before and that belong to
// the cluster.
func (n *native) podCIDRs(node *corev1.Node) (out []netip.Prefix) {
	for i, s := range rawCIDRs(node) {
		key := func() string { return fmt.Sprintf("spec.podCIDRs[%d]", i) }
		p, what := source.ParseCIDR(s)
		if what != "" {
			n.conflict(node, key(), "%s", what)
			continue
		}
		if n.opt.Encap == IPIP && p.Addr().Is6() {
			n.conflict(node, key(), "%s is IPv6, which IPIP does not carry, so it is left out; set native.encap to vxlan or none", p)
			continue
		}
		if !n.inCluster(p) {
			n.conflict(node, key(), "%s is outside of native.clusterCIDRs %v, so it is left out; correct one of them", p, n.opt.ClusterCIDRs).Reason = OutsideClusterCIDR
			continue
		}
		if other, owner, taken := n.cidrs.overlap(p); taken {
			n.conflict(node, key(), "%s overlaps %s of Node %s, so it is left out; give each node its own", p, other, owner).Reason = DuplicatePodCIDR
			continue
		}
		n.cidrs.add(p, node.Name)
		out = append(out, p)
	}
	return out
}

func (n *native) inCluster(p netip.Prefix) bool {
	for _, c := range n.opt.ClusterCIDRs {
		if c.Bits() <= p.Bits() && c.Contains(p.Addr()) {
			return true
		}
	}
	return len(n.opt.ClusterCIDRs) == 0
}
