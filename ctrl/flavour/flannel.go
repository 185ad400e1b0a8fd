package flavour

import (
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
	"culvert/internal/packet"
)

// flannelKey is an annotation of flannel's (pkg/subnet/kube/annotations.go).
func flannelKey(name string) string { return "flannel.alpha.coreos.com/" + name }

// Those that every Node is asked for.
var flannelManaged, flannelBackend = flannelKey("kube-subnet-manager"), flannelKey("backend-type")

// flannelFamily are the annotations of one address family.
type flannelFamily struct {
	v6                           bool
	way                          string // of peers
	publicIP, overwrite, backend string
	macOf                        string // behind the node's name, for the MAC by rule
}

var flannelFamilies = []flannelFamily{
	{false, "", flannelKey("public-ip"), flannelKey("public-ip-overwrite"), flannelKey("backend-data"), ""},
	{true, "ipv6", flannelKey("public-ipv6"), flannelKey("public-ipv6-overwrite"), flannelKey("backend-v6-data"), "-v6"},
}

// Flannel is the flannel mode: what flanneld with --kube-subnet-mgr does with the
// same objects (pkg/subnet/kube/kube.go, pkg/backend/vxlan/vxlan_network.go).
//
// Network, VNI, port and backend are the cluster's, by the ConfigMap
// kube-flannel-cfg or flannel's defaults, and never a peer's: its annotations
// say its MAC and address, and its Node object the pod CIDRs.
func Flannel(objs *source.Objects, opt Options) *Desired {
	f := &flannel{collector: newCollector(ModeFlannel, objs, opt)}
	f.conf = f.readNet()
	for _, p := range []netip.Prefix{f.conf.v4, f.conf.v6} {
		if p.IsValid() {
			f.Networks = append(f.Networks, p)
		}
	}
	f.Encap, f.VNI, f.Port, f.MTU = f.conf.encap, f.conf.vni, f.conf.port, f.conf.mtu
	if f.Refused {
		return f.finish()
	}
	if f.conf.direct {
		f.Also = []string{None}
	}
	f.Peers = make([]Peer, 0, len(f.nodes))
	for _, n := range f.nodes {
		if n == f.own {
			f.local(n)
		} else {
			f.peer(n)
		}
	}
	return f.finish()
}

type flannel struct {
	*collector
	conf flannelNet
}

// backendData is the annotation of a VXLAN endpoint. Its order and form matter
// to flanneld, which reads its own back by cutting the string.
type backendData struct {
	VNI     uint32
	VtepMAC string
}

// local adds this node and what it is to publish.
func (f *flannel) local(n *corev1.Node) {
	l := &Node{Name: n.Name}
	f.Local = l
	cidrs, given := f.podCIDRs(n)
	if !given {
		f.nodeConflict(n, "spec.podCIDRs", "is missing, so pods of this node get no address; set it, or let the controller manager allocate one")
	}
	published := map[string]string{flannelKey("kube-subnet-manager"): "true", flannelKey("backend-type"): f.conf.backend}
	for i, fam := range flannelFamilies {
		cidr := cidrs[i]
		if !f.conf.has(fam.v6) {
			continue
		}
		if network := f.conf.network(fam.v6); cidr.IsValid() && network.IsValid() && (network.Bits() > cidr.Bits() || !network.Contains(cidr.Addr())) {
			f.nodeConflict(n, "spec.podCIDRs", "%s is outside of flannel's network %s, so it is left out; correct one of them", cidr, network).Reason = OutsideClusterCIDR
			cidr = netip.Prefix{}
		}
		e := Endpoint{PublicIP: f.ownAddress(n, fam), VTEPMAC: f.ownMAC(n, fam)}
		if cidr.IsValid() && f.claimCIDR(n, cidr) {
			l.PodCIDRs = append(l.PodCIDRs, cidr)
			e.TunnelIP = cidr.Addr()
		}
		if !e.PublicIP.IsValid() {
			if cidr.IsValid() {
				f.nodeConflict(n, "status.addresses", "has no InternalIP of the family of %s, so nothing can be sent to it; add one, or annotate the node with %s", cidr, fam.overwrite)
			}
			continue
		}
		f.ips[e.PublicIP], f.macs[e.VTEPMAC] = n.Name, n.Name
		if fam.v6 && l.PublicIP.IsValid() {
			l.V6 = &e
		} else {
			l.PublicIP, l.TunnelIP, l.VTEPMAC = e.PublicIP, e.TunnelIP, e.VTEPMAC
		}
		published[fam.publicIP], published[fam.backend] = e.PublicIP.String(), f.backendData(e.VTEPMAC)
	}
	if l.PublicIP.IsValid() {
		f.Annotations = published
	}
}

// backendData is the annotation in exactly flannel's form.
func (f *flannel) backendData(mac packet.MAC) string {
	if f.conf.encap != VXLAN {
		return "null"
	}
	return fmt.Sprintf(`{"VNI":%d,"VtepMAC":%q}`, f.conf.vni, mac)
}

// ownAddress is what peers are to send to: what an administrator says, what peers
// read now, or the InternalIP.
func (f *flannel) ownAddress(n *corev1.Node, fam flannelFamily) netip.Addr {
	for _, key := range []string{fam.overwrite, fam.publicIP} {
		if s, ok := n.Annotations[key]; ok {
			ip, what := parseFamily(s, fam.v6)
			if what == "" {
				return ip
			}
			f.nodeConflict(n, annotationPath(key), "%s; until then it is not used", what)
		}
	}
	return f.internalIP(n, fam.v6, false)
}

// ownMAC is the address that peers know, which must not change: that of the
// annotation, else of the one that was published before, else one by rule.
func (f *flannel) ownMAC(n *corev1.Node, fam flannelFamily) packet.MAC {
	rule := VTEPMAC(n.Name + fam.macOf)
	if f.conf.encap != VXLAN {
		return rule
	}
	if s, ok := n.Annotations[fam.backend]; ok {
		d, what := parseBackend(s)
		if what == "" {
			return d
		}
		f.nodeConflict(n, annotationPath(fam.backend), "%s; until then it is not used", what)
	}
	if d, what := parseBackend(f.opt.Kept[fam.backend]); what == "" {
		return d
	}
	return rule
}

// peer adds another node that flanneld, or Culvert, runs on.
func (f *flannel) peer(n *corev1.Node) {
	if n.Annotations[flannelManaged] != "true" {
		return // no node of flannel's, or not yet
	}
	if t := n.Annotations[flannelBackend]; t != f.conf.backend {
		f.nodeConflict(n, annotationPath(flannelBackend), "is %q and the cluster's backend is %s, so this node is left out; let all nodes have the same", t, f.conf.backend)
		return
	}
	cidrs, given := f.podCIDRs(n)
	if !given {
		return // controllers assign them a moment after the node joins
	}
	for i, fam := range flannelFamilies {
		if f.wants(n, fam, cidrs[i]) {
			f.peerFamily(n, fam, cidrs[i])
		}
	}
}

// wants reports whether a peer has, or ought to have, a family.
func (f *flannel) wants(n *corev1.Node, fam flannelFamily, cidr netip.Prefix) bool {
	if !f.conf.has(fam.v6) {
		return false
	}
	if cidr.IsValid() {
		return true
	}
	if f.conf.network(fam.v6).IsValid() { // otherwise nobody says that there must be one
		f.nodeConflict(n, "spec.podCIDRs", "has none for %s, which the cluster's network has; let the controller manager allocate one", f.conf.network(fam.v6))
	}
	return false
}

func (f *flannel) peerFamily(n *corev1.Node, fam flannelFamily, cidr netip.Prefix) {
	p := Peer{Name: n.Name, Way: fam.way, Encap: f.conf.encap}
	ipKey, s := fam.publicIP, n.Annotations[fam.publicIP]
	if s == "" && n.Annotations[fam.overwrite] != "" { // flanneld copies it in a moment
		ipKey, s = fam.overwrite, n.Annotations[fam.overwrite]
	}
	var what string
	if s == "" {
		what = "is missing, so nothing can be sent to it; restart flanneld there, which writes it"
	} else if p.PublicIP, what = parseFamily(s, fam.v6); what != "" {
		what += "; until then nothing is sent to it"
	}
	if what != "" {
		f.nodeConflict(n, annotationPath(ipKey), "%s", what)
		return
	}
	if f.conf.encap == VXLAN {
		b := f.opt.Cache.backend(n.Annotations[fam.backend])
		if b.what != "" {
			f.nodeConflict(n, annotationPath(fam.backend), "%s; until then nothing is sent to %s", b.what, cidr)
			return
		}
		// A peer may say another VNI than the cluster's: flanneld does not look at it, and
		// it may be of a moment ago. The peer is carried.
		if b.vni != f.conf.vni {
			f.nodeConflict(n, annotationPath(fam.backend), "VNI %d is not the cluster's, %d, which is used; restart flanneld there", b.vni, f.conf.vni)
		}
		p.VTEPMAC, p.TunnelIP = b.mac, cidr.Addr()
	}
	if !f.claim(n, p.PublicIP, ipKey, p.VTEPMAC, fam.backend) || !f.claimCIDR(n, cidr) {
		return
	}
	p.PodCIDRs = []netip.Prefix{cidr}
	if _, near := f.onLink(p.PublicIP); near && f.conf.direct {
		// pkg/backend/vxlan/vxlan_network.go: a plain route, no neighbour, no FDB entry.
		p.Encap, p.VTEPMAC, p.TunnelIP = None, packet.MAC{}, netip.Addr{}
	}
	f.Peers = append(f.Peers, p)
}

// podCIDRs are the node's, IPv4 and IPv6, and whether there are any at all. As in
// pkg/subnet/kube/kube.go the first of each family counts, and there are at most two.
func (f *flannel) podCIDRs(n *corev1.Node) (out [2]netip.Prefix, given bool) {
	raw := rawCIDRs(n)
	if len(raw) > 2 {
		f.nodeConflict(n, "spec.podCIDRs", "has %d entries, and flannel knows one for each family; remove the others", len(raw))
		return out, true
	}
	for i, s := range raw {
		p, what := source.ParseCIDR(s)
		if what != "" {
			f.nodeConflict(n, fmt.Sprintf("spec.podCIDRs[%d]", i), "%s", what)
			continue
		}
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		if !out[family].IsValid() {
			out[family] = p
		}
	}
	return out, len(raw) > 0
}

func (f *flannel) claimCIDR(n *corev1.Node, p netip.Prefix) bool {
	if other, owner, taken := f.cidrs.overlap(p); taken {
		f.nodeConflict(n, "spec.podCIDRs", "%s overlaps %s of Node %s, so it is left out; give each node its own", p, other, owner).Reason = DuplicatePodCIDR
		return false
	}
	f.cidrs.add(p, n.Name)
	return true
}

// backend is what a node's backend-data says, or what is wrong with it.
type backend struct {
	vni  uint32
	mac  packet.MAC
	what string
}

// parseBackend is the MAC in backend-data.
func parseBackend(s string) (packet.MAC, string) {
	b := readBackend(s)
	return b.mac, b.what
}

// readBackend reads backend-data, as tolerantly as JSON is.
func readBackend(s string) backend {
	var d backendData
	switch {
	case s == "":
		return backend{what: "is missing"}
	case json.Unmarshal([]byte(s), &d) != nil:
		return backend{what: fmt.Sprintf(`%q is not what flannel writes, such as {"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"}`, s)}
	case d.VtepMAC == "":
		return backend{what: fmt.Sprintf("%q has no VtepMAC", s)}
	}
	hw, what := source.ParseMAC(d.VtepMAC)
	if what != "" {
		return backend{what: what}
	}
	return backend{vni: d.VNI, mac: packet.MAC(hw)}
}

// parseFamily reads a node's address of one family.
func parseFamily(s string, v6 bool) (a netip.Addr, what string) {
	a, what = source.ParseAddr(s)
	if what == "" && a.Is6() != v6 {
		what = fmt.Sprintf("%s is of the other family", a)
	}
	return a, what
}
