package flavour

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

const ca = "projectcalico.org/"

// calicoNode is a Node as calico-node writes it; tunnel "" is one without VXLAN.
func calicoNode(name, addr, tunnel string, more ...string) *corev1.Node {
	ip, _, _ := strings.Cut(addr, "/")
	return annotated(node(name, ip, ""), append([]string{ca + "IPv4Address=" + addr, ca + "IPv4VXLANTunnelAddr=" + tunnel}, more...)...)
}

// pool is an IPPool: "cidr key=value ...".
func pool(name, spec string) *source.IPPool {
	f := strings.Fields(spec)
	p := &source.IPPool{}
	p.Name, p.Spec.CIDR = name, f[0]
	for _, kv := range f[1:] {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "vxlan":
			p.Spec.VXLANMode = v
		case "ipip":
			p.Spec.IPIPMode = v
		case "nodes":
			p.Spec.NodeSelector = v
		case "uses":
			p.Spec.AllowedUses = strings.Split(v, ",")
		case "disabled":
			p.Spec.Disabled = true
		case "manual":
			p.Spec.AssignmentMode = &v
		case "size":
			_, _ = fmt.Sscan(v, &p.Spec.BlockSize)
		default:
			panic(kv)
		}
	}
	return p
}

// ipamBlock is a block: "cidr host", then "ordinal=node" or "ordinal=node/pod" or
// "ordinal=node#type" for every address that is given.
func ipamBlock(spec string) *source.IPAMBlock {
	f := strings.Fields(spec)
	b := &source.IPAMBlock{}
	b.Name = strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(f[0])
	b.Spec.CIDR = f[0]
	if f[1] != "-" {
		host := f[1]
		if !strings.Contains(host, ":") {
			host = "host:" + host
		}
		b.Spec.Affinity = &host
	}
	b.Spec.Allocations = make([]*int, 64)
	for i, a := range f[2:] {
		ordinal, owner, _ := strings.Cut(a, "=")
		var n int
		_, _ = fmt.Sscan(ordinal, &n)
		at := source.IPAMBlockAttribute{Secondary: map[string]string{}}
		if node, kind, ok := strings.Cut(owner, "#"); ok {
			at.Secondary["node"], at.Secondary["type"] = node, kind
		} else if node, pod, ok := strings.Cut(owner, "/"); ok {
			at.Secondary["node"], at.Secondary["pod"], at.Secondary["namespace"] = node, pod, "default"
		} else if owner != "" {
			at.Secondary["node"] = owner
		}
		b.Spec.Attributes = append(b.Spec.Attributes, at)
		b.Spec.Allocations[n] = &i
	}
	return b
}

func named(name string, b *source.IPAMBlock) *source.IPAMBlock {
	b.Name = name
	return b
}

// affinity is a BlockAffinity: "cidr node state", and "deleted" or a type.
func affinity(spec string) *source.BlockAffinity {
	f := strings.Fields(spec)
	b := &source.BlockAffinity{}
	b.Name = f[1] + "-" + strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(f[0])
	b.Spec.CIDR, b.Spec.Node, b.Spec.State = f[0], f[1], f[2]
	if len(f) > 3 && f[3] == "deleted" {
		b.Spec.Deleted = "true"
	} else if len(f) > 3 {
		b.Spec.Type = f[3]
	}
	return b
}

func felixConf(name string, set func(*source.FelixConfigurationSpec)) *source.FelixConfiguration {
	f := &source.FelixConfiguration{}
	f.Name = name
	set(&f.Spec)
	return f
}

// parts are objects of any kind.
func objects(parts ...any) *source.Objects {
	o := &source.Objects{}
	for _, p := range parts {
		switch p := p.(type) {
		case *corev1.Node:
			o.Nodes = append(o.Nodes, p)
		case *source.IPPool:
			o.IPPools = append(o.IPPools, p)
		case *source.IPAMBlock:
			o.IPAMBlocks = append(o.IPAMBlocks, p)
		case *source.BlockAffinity:
			o.BlockAffinities = append(o.BlockAffinities, p)
		case *source.FelixConfiguration:
			o.FelixConfigurations = append(o.FelixConfigurations, p)
		}
	}
	return o
}

const (
	caMe = "local me 10.0.0.1 10.244.1.0 66:b1:c1:d8:73:6f [10.244.1.0/26]"
	caA  = "a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/26] vxlan"
	caB  = "b 10.9.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [10.244.3.0/26] vxlan"
	ca1  = "calico vxlan vni 4096 port 4789 mtu 0"
	caIP = "calico ipip vni 4096 port 4789 mtu 0"
	ca0  = "calico none vni 4096 port 4789 mtu 0"
)

func TestCalico(t *testing.T) {
	mine := calicoNode("me", "10.0.0.1/24", "10.244.1.0")
	a := calicoNode("a", "10.0.0.2/24", "10.244.2.0")
	b := calicoNode("b", "10.9.0.3/24", "10.244.3.0")
	always := pool("p", "10.244.0.0/16 vxlan=Always")
	cross := pool("p", "10.244.0.0/16 vxlan=CrossSubnet")
	blockMe, blockA, blockB := ipamBlock("10.244.1.0/26 me 0=me#vxlanTunnelAddress"), ipamBlock("10.244.2.0/26 a"), ipamBlock("10.244.3.0/26 b")
	noBlock := `conflict: Node me: BlockAffinity: no confirmed block is affine to this node, so its pods get no address; let Calico's IPAM give it one`
	six := func(n *corev1.Node, addr, tunnel string) *corev1.Node {
		return annotated(n, ca+"IPv6Address="+addr, ca+"IPv6VXLANTunnelAddr="+tunnel)
	}
	for _, c := range []struct {
		name string
		in   []any
		want []string
	}{
		{"VXLAN always", []any{mine, a, b, always, blockMe, blockA, blockB}, []string{ca1, caMe, caA,
			"b 10.9.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [10.244.3.0/26] vxlan"}},
		{"VXLAN across subnets", []any{mine, a, b, cross, blockMe, blockA, blockB}, []string{ca1, caMe,
			"a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [] vxlan", "a direct 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26] none",
			"b 10.9.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [10.244.3.0/26] vxlan"}},
		{"only this node's length decides about subnets", []any{calicoNode("me", "10.0.0.1/8", "10.244.1.0"), b, cross, blockMe, blockB}, []string{ca1, caMe,
			"b 10.9.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [] vxlan", "b direct 10.9.0.3 invalid IP 00:00:00:00:00:00 [10.244.3.0/26] none"}},
		{"IPIP always", []any{calicoNode("me", "10.0.0.1/24", "", ca+"IPv4IPIPTunnelAddr=10.244.1.0"), calicoNode("a", "10.0.0.2/24", ""), pool("p", "10.244.0.0/16 ipip=Always"), blockMe, blockA},
			[]string{caIP, caMe, "a ipip 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26] ipip"}},
		{"IPIP across subnets, its tunnel address outside of the blocks", []any{mine, calicoNode("a", "10.0.0.2/24", ""), calicoNode("b", "10.9.0.3/24", "", ca+"IPv4IPIPTunnelAddr=10.244.9.9"), pool("p", "10.244.0.0/16 ipip=CrossSubnet"), blockMe, blockA, blockB},
			[]string{caIP, "local me 10.0.0.1 10.244.1.1 66:b1:c1:d8:73:6f [10.244.1.0/26]", "a direct 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26] none",
				"b ipip 10.9.0.3 invalid IP 00:00:00:00:00:00 [10.244.3.0/26 10.244.9.9/32] ipip"}},
		{"no encapsulation", []any{mine, a, pool("p", "10.244.0.0/16"), blockMe, blockA}, []string{ca0,
			"local me 10.0.0.1 invalid IP 66:b1:c1:d8:73:6f [10.244.1.0/26]", "a direct 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26] none"}},
		{"each pool its own", []any{mine, a, pool("p", "10.244.0.0/16 vxlan=Always"), pool("q", "10.99.0.0/16 vxlan=Never ipip=Never"), blockMe, blockA, ipamBlock("10.99.2.0/26 a")},
			[]string{ca1, caMe, caA, "a direct 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.99.2.0/26] none"}},
		{"a disabled pool says how", []any{mine, a, pool("p", "10.244.0.0/16 vxlan=Always disabled"), blockMe, blockA}, []string{ca1, caMe, caA}},
		{"modes of once", []any{mine, a, pool("p", "10.244.0.0/16 vxlan=always"), blockMe, blockA}, []string{ca1, caMe, caA}},

		{"a MAC of its own", []any{mine, annotated(a, ca+"VXLANTunnelMACAddr=0a:00:00:00:00:02"), always, blockMe, blockA}, []string{ca1, caMe,
			"a 10.0.0.2 10.244.2.0 0a:00:00:00:00:02 [10.244.2.0/26] vxlan"}},
		{"a MAC that is none", []any{mine, annotated(a, ca+"VXLANTunnelMACAddr=x"), always, blockMe, blockA}, []string{ca1, caMe, caA,
			`conflict: Node a: metadata.annotations["` + ca + `VXLANTunnelMACAddr"]: "x" is no MAC address; write six bytes such as 66:b3:68:28:39:8e; until then 66:86:f7:e4:37:fa is used`}},
		{"no VTEP yet: no tunnel address", []any{mine, calicoNode("a", "10.0.0.2/24", ""), always, blockMe, blockA}, []string{ca1, caMe,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4VXLANTunnelAddr"]: is missing, so the node is no VXLAN endpoint and 1 of its prefixes are not routed; calico-node writes it when it starts`}},
		{"no VTEP yet: no address of Calico's", []any{mine, annotated(a, ca+"IPv4Address="), always, blockMe, blockA}, []string{ca1, caMe,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4Address"]: is missing, so the node is no VXLAN endpoint and 1 of its prefixes are not routed; calico-node writes it when it starts`}},
		{"near without a VTEP", []any{mine, calicoNode("a", "10.0.0.2/24", ""), cross, blockMe, blockA}, []string{ca1, caMe,
			"a direct 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26] none"}},
		{"no address at all", []any{mine, annotated(node("a", "", ""), ca+"IPv4VXLANTunnelAddr=10.244.2.0"), always, blockMe, blockA}, []string{ca1, caMe,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4Address"]: is missing, so nothing can be sent to it; start calico-node there, or annotate the node`}},
		{"an address that is none", []any{mine, annotated(node("a", "", ""), ca+"IPv4VXLANTunnelAddr=10.244.2.0", ca+"IPv4Address=10.0.0.2/33"), always, blockMe, blockA}, []string{ca1, caMe,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4Address"]: "10.0.0.2/33" is no address of a node; write ADDRESS/LENGTH such as 10.0.0.5/24; until then it is not used`,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4Address"]: is missing, so nothing can be sent to it; start calico-node there, or annotate the node`}},
		{"an address without a length", []any{mine, calicoNode("a", "10.0.0.2", "10.244.2.0"), always, blockMe, blockA}, []string{ca1, caMe, caA}},
		{"a tunnel address that is none", []any{mine, calicoNode("a", "10.0.0.2/24", "10.244.2.0/26"), always, blockMe, blockA}, []string{ca1, caMe,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4VXLANTunnelAddr"]: "10.244.2.0/26" is no IP address; write one such as 192.0.2.10; until then it is not used`,
			`conflict: Node a: metadata.annotations["` + ca + `IPv4VXLANTunnelAddr"]: is missing, so the node is no VXLAN endpoint and 1 of its prefixes are not routed; calico-node writes it when it starts`}},
		{"a VTEP without blocks", []any{mine, a, always, blockMe}, []string{ca1, caMe, "a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/32] vxlan"}},
		{"a node without anything", []any{mine, node("a", "10.0.0.2", ""), always, blockMe}, []string{ca1, caMe}},
		{"the same MAC", []any{mine, a, annotated(b, ca+"VXLANTunnelMACAddr=66:86:f7:e4:37:fa"), always, blockMe, blockA, blockB}, []string{ca1, caMe, caA,
			`conflict: Node b: metadata.annotations["` + ca + `VXLANTunnelMACAddr"]: VTEP MAC 66:86:f7:e4:37:fa is also that of Node a, so this node is left out; give each its own`}},
		{"the same address", []any{mine, a, calicoNode("b", "10.0.0.2/24", "10.244.3.0"), always, blockMe, blockA, blockB}, []string{ca1, caMe, caA,
			`conflict: Node b: metadata.annotations["` + ca + `IPv4Address"]: 10.0.0.2 is also the address of Node a, so this node is left out; give each its own`}},
		{"the same tunnel address", []any{mine, a, calicoNode("b", "10.9.0.3/24", "10.244.2.0"), always, blockMe, blockA, blockB}, []string{ca1, caMe, caA,
			"b 10.9.0.3 invalid IP 66:e9:d7:1f:5e:e7 [10.244.3.0/26] vxlan",
			`conflict: Node b: metadata.annotations["` + ca + `IPv4VXLANTunnelAddr"]: 10.244.2.0 is also a tunnel address of Node a, which keeps it, so it is not routed to this node; give each its own`}},
		{"this node's tunnel address", []any{mine, calicoNode("a", "10.0.0.2/24", "10.244.1.0"), always, blockMe, blockA}, []string{ca1, caMe,
			"a 10.0.0.2 invalid IP 66:86:f7:e4:37:fa [10.244.2.0/26] vxlan",
			`conflict: Node a: metadata.annotations["` + ca + `IPv4VXLANTunnelAddr"]: 10.244.1.0 is also a tunnel address of Node me, which keeps it, so it is not routed to this node; give each its own`}},
		{"the same tunnel address of IPIP", []any{calicoNode("me", "10.0.0.1/24", "", ca+"IPv4IPIPTunnelAddr=10.244.1.0"), calicoNode("a", "10.0.0.2/24", "", ca+"IPv4IPIPTunnelAddr=10.250.0.2"),
			calicoNode("b", "10.9.0.3/24", "", ca+"IPv4IPIPTunnelAddr=10.250.0.2"), pool("p", "10.244.0.0/16 ipip=Always"), blockMe, blockA, blockB}, []string{caIP, caMe,
			"a ipip 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26 10.250.0.2/32] ipip", "b ipip 10.9.0.3 invalid IP 00:00:00:00:00:00 [10.244.3.0/26] ipip",
			`conflict: Node b: metadata.annotations["` + ca + `IPv4IPIPTunnelAddr"]: 10.250.0.2 is also a tunnel address of Node a, which keeps it, so it is not routed to this node; give each its own`}},
		{"two blocks of one CIDR", []any{mine, a, b, always, blockMe, blockA, blockB, named("zz", ipamBlock("10.244.2.0/26 b"))}, []string{ca1, caMe, caA, caB,
			"conflict: IPAMBlock zz: spec.cidr: 10.244.2.0/26 is also that of IPAMBlock 10-244-2-0-26, so this one is left out; delete one of them"}},
		{"affinities of two nodes for one CIDR", []any{mine, a, b, always, blockMe, blockB, affinity("10.244.2.0/26 a confirmed"), affinity("10.244.2.0/26 b confirmed")}, []string{ca1, caMe, caA, caB,
			`conflict: BlockAffinity b-10-244-2-0-26: spec.node: 10.244.2.0/26 of Node b is that of "a" by BlockAffinity a-10-244-2-0-26, which counts; delete the affinity`}},

		{"borrowed addresses", []any{mine, a, b, always, ipamBlock("10.244.1.0/26 me 0=me#vxlanTunnelAddress 7=a/web 8=me/own"), blockA, ipamBlock("10.244.3.0/26 b 5=a/x 6=me/y 9=gone/z 10=")},
			[]string{ca1, caMe, "a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.1.7/32 10.244.2.0/26 10.244.3.5/32] vxlan",
				"b 10.9.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [10.244.3.0/26] vxlan"}},
		{"borrowed of nobody", []any{mine, a, always, blockMe, blockA, ipamBlock("10.244.5.0/26 - 5=a/x")}, []string{ca1, caMe,
			"a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/26 10.244.5.5/32] vxlan"}},
		{"a load balancer's block", []any{mine, a, always, blockMe, blockA, ipamBlock("10.244.5.0/26 virtual:load-balancer")}, []string{ca1, caMe, caA}},
		{"an index of nothing", []any{mine, a, always, blockMe, broken(blockA)}, []string{ca1, caMe, caA,
			"conflict: IPAMBlock 10-244-2-0-26: spec.allocations[3]: is no index of attributes, which has 0, so 10.244.2.3 is not routed to anybody"}},
		{"more addresses than the block has", []any{mine, a, always, blockMe, ipamBlock("10.244.2.0/27 a 40=me/x")}, []string{ca1, caMe,
			"a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/27] vxlan",
			"conflict: IPAMBlock 10-244-2-0-27: spec.allocations: has 64 entries and 10.244.2.0/27 has 32 addresses; the others are not routed"}},
		{"outside of every pool", []any{mine, a, always, blockMe, blockA, ipamBlock("10.245.2.0/26 a")}, []string{ca1, caMe, caA,
			"conflict: IPAMBlock 10-245-2-0-26: spec.cidr: 10.245.2.0/26 is in no IPPool, so it is left out; create the pool, or delete the block"}},
		{"a block of a node that is gone", []any{mine, always, blockMe, blockA}, []string{ca1, caMe,
			"conflict: IPAMBlock 10-244-2-0-26: spec.affinity: 10.244.2.0/26 is of Node a, which is not there, so it is not routed; delete the block, or create the node"}},
		{"blocks that overlap", []any{mine, a, always, blockMe, blockA, ipamBlock("10.244.1.0/27 a")}, []string{ca1, caMe, caA,
			"conflict: IPAMBlock 10-244-1-0-27: spec.cidr: 10.244.1.0/27 overlaps 10.244.1.0/26 of Node me, so it is left out; delete one of the blocks"}},
		{"a block that is none", []any{mine, a, always, blockMe, blockA, ipamBlock("10.244.9.1/26 a")}, []string{ca1, caMe, caA,
			"conflict: IPAMBlock 10-244-9-1-26: spec.cidr: 10.244.9.1/26 has bits set behind its length; write 10.244.9.0/26"}},
		{"an affinity that is none", []any{mine, a, always, blockMe, blockA, ipamBlock("10.244.9.0/26 node:a")}, []string{ca1, caMe, caA,
			`conflict: IPAMBlock 10-244-9-0-26: spec.affinity: "node:a" is no affinity; write host:NODE`}},

		{"affinities alone", []any{mine, a, always, affinity("10.244.1.0/26 me confirmed"), affinity("10.244.2.0/26 a confirmed host")}, []string{ca1, caMe, caA}},
		{"affinities that do not count", []any{mine, a, always, blockMe, affinity("10.244.2.0/26 a pending"), affinity("10.244.3.0/26 a confirmed deleted"),
			affinity("10.244.4.0/26 a confirmed virtual"), affinity("10.244.5.0/26 a pendingDeletion")}, []string{ca1, caMe, "a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/32] vxlan"}},
		{"a block counts before its affinity is confirmed", []any{mine, a, always, blockMe, blockA, affinity("10.244.2.0/26 a pending")}, []string{ca1, caMe, caA}},
		{"an affinity against the block", []any{mine, a, b, always, blockMe, blockA, affinity("10.244.2.0/26 b confirmed")}, []string{ca1, caMe, caA,
			"b 10.9.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [10.244.3.0/32] vxlan",
			`conflict: BlockAffinity b-10-244-2-0-26: spec.node: 10.244.2.0/26 of Node b is that of "a" by IPAMBlock 10-244-2-0-26, which counts; delete the affinity`}},
		{"an affinity that is no CIDR", []any{mine, a, always, blockMe, blockA, affinity("x a confirmed")}, []string{ca1, caMe, caA,
			`conflict: BlockAffinity a-x: spec.cidr: "x" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`}},

		{"pools that overlap", []any{mine, a, always, pool("q", "10.244.2.0/24"), blockMe, blockA}, []string{ca1, caMe, caA,
			"conflict: IPPool q: spec.cidr: 10.244.2.0/24 overlaps 10.244.0.0/16 of IPPool p, so it is left out; give each its own"}},
		{"a pool of both", []any{mine, a, always, pool("q", "10.99.0.0/16 vxlan=Always ipip=Always"), blockMe, blockA}, []string{ca1, caMe, caA,
			"conflict: IPPool q: spec.ipipMode: both vxlanMode and ipipMode are on, so the pool is left out; set one of them to Never"}},
		{"a pool of neither", []any{mine, a, always, pool("q", "10.99.0.0/16 vxlan=Sometimes"), blockMe, blockA}, []string{ca1, caMe, caA,
			`conflict: IPPool q: spec.vxlanMode: "Sometimes" is no mode, so the pool is left out; write Never, Always or CrossSubnet`}},
		{"IPIP over IPv6", []any{mine, a, always, pool("q", "fd00::/48 ipip=Always"), blockMe, blockA}, []string{ca1, caMe, caA,
			"conflict: IPPool q: spec.ipipMode: there is no IPIP for IPv6, so the pool is left out; set it to Never"}},
		{"a pool that is none", []any{mine, a, always, pool("q", "fd00:: vxlan=Always"), blockMe, blockA}, []string{ca1, caMe, caA,
			`conflict: IPPool q: spec.cidr: "fd00::" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`}},
		{"a size of blocks that is none", []any{mine, a, pool("p", "10.244.0.0/16 vxlan=Always size=19"), blockMe, blockA}, []string{ca1, caMe, caA,
			"conflict: IPPool p: spec.blockSize: 19 is no length of blocks in 10.244.0.0/16; write one from 20 to 32"}},
		{"a selector that is none", []any{mine, a, pool("p", "10.244.0.0/16 vxlan=Always nodes=zone="), blockMe, blockA}, []string{ca1, caMe, caA,
			`conflict: IPPool p: spec.nodeSelector: "zone=" is no selector: a comparison was expected at "=", so this node takes no address of it`}},

		{"dual stack", []any{six(mine, "2001:db8::1/64", "fd00::1:0"), six(a, "2001:db8::2/64", "fd00::2:0"), always, pool("q", "fd00::/48 vxlan=Always"), blockMe, blockA,
			ipamBlock("fd00::1:0/122 me"), ipamBlock("fd00::2:0/122 a")}, []string{ca1, "local me 10.0.0.1 10.244.1.0 66:b1:c1:d8:73:6f [10.244.1.0/26 fd00::1:0/122]",
			"and 2001:db8::1 fd00::1:0 66:c2:35:6f:e2:dd", caA, "a ipv6 2001:db8::2 fd00::2:0 66:b0:25:93:68:b9 [fd00::2:0/122] vxlan"}},
		{"IPv6 across subnets", []any{six(mine, "2001:db8::1/64", "fd00::1:0"), six(a, "2001:db8::2/64", "fd00::2:0"), always, pool("q", "fd00::/48 vxlan=CrossSubnet"), blockMe, blockA,
			ipamBlock("fd00::1:0/122 me"), ipamBlock("fd00::2:0/122 a")}, []string{ca1, "local me 10.0.0.1 10.244.1.0 66:b1:c1:d8:73:6f [10.244.1.0/26 fd00::1:0/122]",
			"and 2001:db8::1 fd00::1:0 66:c2:35:6f:e2:dd", caA, "a ipv6 2001:db8::2 fd00::2:0 66:b0:25:93:68:b9 [] vxlan",
			"a ipv6 direct 2001:db8::2 invalid IP 00:00:00:00:00:00 [fd00::2:0/122] none"}},
		{"IPv6 blocks of a node without IPv6", []any{mine, a, always, pool("q", "fd00::/48"), blockMe, blockA, ipamBlock("fd00::1:0/122 me")},
			[]string{ca1, "local me 10.0.0.1 10.244.1.0 66:b1:c1:d8:73:6f [10.244.1.0/26 fd00::1:0/122]", caA,
				`conflict: Node me: metadata.annotations["` + ca + `IPv6Address"]: is missing, and so is an InternalIP of that family: peers cannot send to this node; add one of them`}},

		{"this node is not there", []any{a, always, blockA}, []string{ca1, caA,
			"conflict: Node me: metadata.name: there is no such object, so nothing is known of this node; create it, or set node to the name of the one that is meant"}},
		{"this node has no block", []any{calicoNode("me", "10.0.0.1/24", ""), a, always, blockA}, []string{ca1, "local me 10.0.0.1 invalid IP 66:b1:c1:d8:73:6f []", caA, noBlock,
			`conflict: Node me: metadata.annotations["` + ca + `IPv4VXLANTunnelAddr"]: is missing, and no block of this node has a free address for it, so peers do not route to this node; give the node a block`}},
		{"this node's address as the uplink has it", []any{node("me", "10.0.0.1", ""), a, cross, blockMe, blockA}, []string{ca1, caMe,
			"a 10.0.0.2 10.244.2.0 66:86:f7:e4:37:fa [] vxlan", "a direct 10.0.0.2 invalid IP 00:00:00:00:00:00 [10.244.2.0/26] none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := Options{Node: "me", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}
			check(t, Calico(objects(c.in...), opt), c.want)
			// In the other order, but for pools: of those that overlap the first by name counts.
			objs := objects(c.in...)
			slices.Reverse(objs.Nodes)
			slices.Reverse(objs.IPAMBlocks)
			slices.Reverse(objs.BlockAffinities)
			check(t, Calico(objs, opt), c.want)
		})
	}
}

// broken is a block with an index that is out of range.
func broken(b *source.IPAMBlock) *source.IPAMBlock {
	c := *b
	n := 5
	c.Spec.Allocations = slices.Clone(b.Spec.Allocations)
	c.Spec.Allocations[3] = &n
	return &c
}

func TestCalicoFelixConfiguration(t *testing.T) {
	n := func(i int) *int { return &i }
	cluster := felixConf("default", func(s *source.FelixConfigurationSpec) {
		s.VXLANVNI, s.VXLANPort, s.VXLANMTU, s.IPIPMTU = n(77), n(8472), n(1400), n(1300)
	})
	own := felixConf("node.me", func(s *source.FelixConfigurationSpec) { s.VXLANPort = n(4790) })
	other := felixConf("node.a", func(s *source.FelixConfigurationSpec) { s.VXLANVNI = n(5) })
	bad := felixConf("node.me", func(s *source.FelixConfigurationSpec) { s.VXLANVNI, s.VXLANPort = n(0), n(65536) })
	vxlan, ipip := pool("p", "10.244.0.0/16 vxlan=Always"), pool("q", "10.99.0.0/16 ipip=Always")
	for _, c := range []struct {
		in   []any
		want string
	}{
		{[]any{vxlan}, "calico vxlan vni 4096 port 4789 mtu 0"},
		{[]any{vxlan, cluster}, "calico vxlan vni 77 port 8472 mtu 1400"},
		{[]any{own, vxlan, cluster, other}, "calico vxlan vni 77 port 4790 mtu 1400"},
		{[]any{vxlan, ipip, cluster}, "calico vxlan vni 77 port 8472 mtu 1300"},
		{[]any{ipip, cluster}, "calico ipip vni 77 port 8472 mtu 1300"},
		{[]any{vxlan, cluster, bad}, "calico vxlan vni 77 port 8472 mtu 1400"},
	} {
		d := Calico(objects(c.in...), Options{Node: "me"})
		if got := network(d)[0]; got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	d := Calico(objects(vxlan, bad), Options{Node: "me"})
	if len(d.Conflicts) != 3 || !strings.Contains(d.Conflicts[1].String(), "FelixConfiguration node.me: spec.vxlanVNI: 0 is out of range") {
		t.Errorf("conflicts %v", d.Conflicts)
	}
}

// Which blocks pods get addresses of, which addresses of them not, and what the
// node's own address in them is.
func TestCalicoAddressesOfThisNode(t *testing.T) {
	block := ipamBlock("10.244.1.0/26 me 0=me/early 1=a/borrower 2=me/late 3=")
	labelled := func(n *corev1.Node) *corev1.Node {
		n = n.DeepCopy()
		n.Labels = map[string]string{"zone": "east"}
		return n
	}
	fresh := labelled(node("me", "10.0.0.1", ""))
	manual := "Manual"
	for _, c := range []struct {
		name         string
		in           []any
		kept         string
		inUse        string
		tunnel, from string // the tunnel address, the pools
	}{
		{"the first that is free", []any{pool("p", "10.244.0.0/16 vxlan=Always")}, "", "", "10.244.1.4", "[10.244.1.0/26]"},
		{"what was taken before", []any{pool("p", "10.244.0.0/16 vxlan=Always")}, "10.244.1.9", "", "10.244.1.9", "[10.244.1.0/26]"},
		{"what was taken before is a pod's by now", []any{pool("p", "10.244.0.0/16 vxlan=Always")}, "10.244.1.2", "", "10.244.1.4", "[10.244.1.0/26]"},
		{"what was taken before is of another pool", []any{pool("p", "10.244.0.0/16 vxlan=Always")}, "10.77.1.2", "", "10.244.1.4", "[10.244.1.0/26]"},
		{"a pod has it", []any{pool("p", "10.244.0.0/16 vxlan=Always")}, "", "10.244.1.4", "10.244.1.5", "[10.244.1.0/26]"},
		{"the node says", []any{annotated(fresh, ca+"IPv4VXLANTunnelAddr=10.244.9.9"), pool("p", "10.244.0.0/16 vxlan=Always")}, "", "", "10.244.9.9", "[10.244.1.0/26]"},
		{"a block says", []any{pool("p", "10.244.0.0/16 vxlan=Always"), ipamBlock("10.244.7.0/26 a 7=me#vxlanTunnelAddress")}, "", "", "10.244.7.7", "[10.244.1.0/26]"},
		{"IPIP's, by the block", []any{pool("p", "10.244.0.0/16 ipip=Always"), ipamBlock("10.244.7.0/26 me 7=me#ipipTunnelAddress")}, "", "", "10.244.7.7", "[10.244.1.0/26 10.244.7.0/26]"},
		{"none is needed", []any{pool("p", "10.244.0.0/16")}, "", "", "invalid IP", "[10.244.1.0/26]"},
		{"this node is selected", []any{pool("p", "10.244.0.0/16 vxlan=Always nodes=zone=='east'")}, "", "", "10.244.1.4", "[10.244.1.0/26]"},
		{"this node is not selected", []any{pool("p", "10.244.0.0/16 vxlan=Always nodes=zone=='west'")}, "", "", "invalid IP", "[]"},
		{"disabled", []any{pool("p", "10.244.0.0/16 vxlan=Always disabled")}, "", "", "invalid IP", "[]"},
		{"for pods alone", []any{pool("p", "10.244.0.0/16 vxlan=Always uses=Workload")}, "", "", "invalid IP", "[10.244.1.0/26]"},
		{"for tunnels alone", []any{pool("p", "10.244.0.0/16 vxlan=Always uses=Tunnel")}, "", "", "10.244.1.4", "[]"},
		{"by hand", []any{pool("p", "10.244.0.0/16 vxlan=Always manual="+manual)}, "", "", "10.244.1.4", "[]"},
		{"the affinity is not confirmed", []any{pool("p", "10.244.0.0/16 vxlan=Always"), affinity("10.244.1.0/26 me pending")}, "", "", "invalid IP", "[]"},
		{"the affinity is given up", []any{pool("p", "10.244.0.0/16 vxlan=Always"), affinity("10.244.1.0/26 me pendingDeletion")}, "", "", "invalid IP", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := append([]any{block}, c.in...)
			if _, ok := c.in[0].(*corev1.Node); !ok {
				in = append(in, fresh)
			}
			d := Calico(objects(append(in, calicoNode("a", "10.0.0.2/24", ""))...), Options{
				Node: "me", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")},
				Kept:  map[string]string{ca + "IPv4VXLANTunnelAddr": c.kept},
				InUse: func(a netip.Addr) bool { return a.String() == c.inUse },
			})
			l := d.Local
			if got := fmt.Sprint(l.TunnelIP, " ", l.Pools); got != c.tunnel+" "+c.from {
				t.Errorf("tunnel address and pools %s, want %s %s", got, c.tunnel, c.from)
			}
			if !slices.Contains(l.PodCIDRs, netip.MustParsePrefix("10.244.1.0/26")) {
				t.Errorf("the block is not this node's: %v", l.PodCIDRs)
			}
			want := map[string]string{ca + "IPv4Address": "10.0.0.1/24"}
			if c.tunnel != "invalid IP" {
				key := "IPv4VXLANTunnelAddr"
				if d.Encap == "ipip" {
					key = "IPv4IPIPTunnelAddr"
				}
				want[ca+key] = c.tunnel
			}
			sameMap(t, d.Annotations, want)
			if len(l.Pools) == 0 {
				return
			}
			held := map[string]Held{}
			for _, h := range l.Held {
				held[h.Addr.String()] = h
			}
			for addr, ask := range map[string]bool{"10.244.1.0": true, "10.244.1.1": false, "10.244.1.2": true, "10.244.1.3": false} {
				if h, ok := held[addr]; !ok || h.Ask != ask || h.Why == "" {
					t.Errorf("%s is held: %t, %+v", addr, ok, h)
				}
			}
			if _, ok := held[c.tunnel]; !ok && c.tunnel != "invalid IP" {
				t.Error("the tunnel address is not held")
			}
		})
	}
}

func TestCalicoPools(t *testing.T) {
	legacy := pool("c", "10.3.0.0/16")
	legacy.Spec.LegacyIPIP, legacy.Spec.LegacyNAT = &source.LegacyIPIP{Enabled: true, Mode: "cross-subnet"}, true
	old := pool("d", "10.4.0.0/16")
	old.Spec.LegacyIPIP = &source.LegacyIPIP{Enabled: true}
	nat := pool("a", "10.1.0.0/16 vxlan=CrossSubnet disabled")
	nat.Spec.NATOutgoing = true
	d := Calico(objects(nat, pool("b", "10.2.0.0/16 ipip=Always vxlan=Never"), legacy, old), Options{Node: "me"})
	var got []string
	for _, p := range d.Pools {
		got = append(got, fmt.Sprintf("%s %s vxlan %q ipip %q nat %t disabled %t", p.Name, p.CIDR, p.VXLAN, p.IPIP, p.NATOutgoing, p.Disabled))
	}
	want := []string{
		`a 10.1.0.0/16 vxlan "CrossSubnet" ipip "" nat true disabled true`, `b 10.2.0.0/16 vxlan "" ipip "Always" nat false disabled false`,
		`c 10.3.0.0/16 vxlan "" ipip "CrossSubnet" nat true disabled false`, `d 10.4.0.0/16 vxlan "" ipip "Always" nat false disabled false`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("pools\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// The clusters of the write-up, from each of their nodes.
func TestClustersOfTheWriteUp(t *testing.T) {
	calico, flannel := manifests(t, "../testdata/calico"), manifests(t, "../testdata/flannel")
	if got := Detect(calico) + " " + Detect(flannel); got != "calico flannel" {
		t.Errorf("they look like %s", got)
	}
	for _, c := range []struct {
		node string
		objs *source.Objects
		want []string
	}{
		{"worker1", calico, []string{"calico vxlan vni 4096 port 4789 mtu 0",
			"local worker1 192.168.0.41 10.244.127.64 66:c0:2a:ba:db:54 [10.244.127.64/26]",
			"master 192.168.0.40 10.244.186.128 66:21:c3:1b:bf:6a [10.244.186.128/26] vxlan",
			"worker2 192.168.0.42 10.244.50.128 66:61:0d:36:b4:86 [10.244.50.128/26] vxlan"}},
		{"worker2", calico, []string{"calico vxlan vni 4096 port 4789 mtu 0",
			"local worker2 192.168.0.42 10.244.50.128 66:61:0d:36:b4:86 [10.244.50.128/26]",
			"master 192.168.0.40 10.244.186.128 66:21:c3:1b:bf:6a [10.244.186.128/26] vxlan",
			"worker1 192.168.0.41 10.244.127.64 66:c0:2a:ba:db:54 [10.244.127.64/26] vxlan"}},
		{"server", flannel, []string{"flannel vxlan vni 1 port 8472 mtu 0",
			"local server 192.168.0.10 10.42.0.0 be:7e:3c:5f:81:10 [10.42.0.0/24]",
			"agent 192.168.0.11 10.42.1.0 4a:c6:29:d0:5e:11 [10.42.1.0/24] vxlan"}},
		{"agent", flannel, []string{"flannel vxlan vni 1 port 8472 mtu 0",
			"local agent 192.168.0.11 10.42.1.0 4a:c6:29:d0:5e:11 [10.42.1.0/24]",
			"server 192.168.0.10 10.42.0.0 be:7e:3c:5f:81:10 [10.42.0.0/24] vxlan"}},
	} {
		t.Run(c.node, func(t *testing.T) {
			check(t, Want(Detect(c.objs), c.objs, Options{Node: c.node}), c.want)
		})
	}
}

// tenThousandBlocks is a cluster of 5,000 nodes with two blocks each.
func tenThousandBlocks() *source.Objects {
	parts := []any{pool("p", "10.0.0.0/8 vxlan=Always")}
	for i := range 5000 {
		n := fmt.Sprintf("n%d", i)
		parts = append(parts, calicoNode(n, fmt.Sprintf("172.16.%d.%d/12", i/250, 1+i%250), fmt.Sprintf("10.%d.%d.0", i/250, i%250)),
			ipamBlock(fmt.Sprintf("10.%d.%d.0/26 %s 0=%s#vxlanTunnelAddress", i/250, i%250, n, n)),
			ipamBlock(fmt.Sprintf("10.%d.%d.64/26 %s 5=n7/x", i/250, i%250, n)))
	}
	return objects(parts...)
}

func BenchmarkCalico10000Blocks(b *testing.B) {
	objs := tenThousandBlocks()
	for b.Loop() {
		if d := Calico(objs, Options{Node: "n7"}); len(d.Peers) != 4999 || len(d.Conflicts) != 0 {
			b.Fatal(len(d.Peers), d.Conflicts)
		}
	}
}

// BenchmarkCalicoNodeChange is one Node's change in that cluster.
func BenchmarkCalicoNodeChange(b *testing.B) {
	objs := tenThousandBlocks()
	opt := Options{Node: "n7", Cache: &Cache{}}
	Calico(objs, opt)
	for i := 0; b.Loop(); i++ {
		next := *objs
		next.Nodes = slices.Clone(objs.Nodes)
		n := *next.Nodes[100+i%4000]
		n.Annotations = maps.Clone(n.Annotations)
		n.Annotations["projectcalico.org/VXLANTunnelMACAddr"] = fmt.Sprintf("66:00:00:00:%02x:%02x", i>>8&255, i&255)
		next.Nodes[100+i%4000] = &n
		if d := Calico(&next, opt); len(d.Peers) != 4999 || len(d.Conflicts) != 0 {
			b.Fatal(len(d.Peers), d.Conflicts)
		}
	}
}
