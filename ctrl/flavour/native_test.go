package flavour

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/config"
	"culvert/ctrl/source"
)

func TestVTEPMAC(t *testing.T) {
	for name, want := range map[string]string{"node-1": "66:b3:68:28:39:8e", "worker-1.example.com": "66:79:5c:76:d6:59",
		"node-1-v6": "66:24:ac:63:df:6c", "worker-1.example.com-v6": "66:72:b8:bf:90:80"} {
		if got := VTEPMAC(name).String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// node makes a Node: name, address, pod CIDRs separated by spaces, annotations.
func node(name, ip, cidrs string, annotations ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.PodCIDRs = strings.Fields(cidrs)
	for _, a := range strings.Fields(ip) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
	for _, a := range annotations {
		k, v, _ := strings.Cut(a, "=")
		metav1.SetMetaDataAnnotation(&n.ObjectMeta, "culvert.dev/"+k, v)
	}
	return n
}

func aged(n *corev1.Node, hours int) *corev1.Node {
	n.CreationTimestamp = metav1.NewTime(time.Unix(1_700_000_000, 0).Add(-time.Duration(hours) * time.Hour))
	return n
}

// brief writes a state as the tables below do.
func brief(d *Desired) (out []string) {
	if l := d.Local; l != nil {
		out = append(out, fmt.Sprintf("local %s %v %v %v %v", l.Name, l.PublicIP, l.TunnelIP, l.VTEPMAC, l.PodCIDRs))
		if v6 := l.V6; v6 != nil {
			out = append(out, fmt.Sprintf("and %v %v %v", v6.PublicIP, v6.TunnelIP, v6.VTEPMAC))
		}
	}
	for _, p := range d.Peers {
		out = append(out, fmt.Sprintf("%s %v %v %v %v %s", p.Key(), p.PublicIP, p.TunnelIP, p.VTEPMAC, p.PodCIDRs, p.Encap))
	}
	for _, c := range d.Conflicts {
		out = append(out, "conflict: "+c.String())
	}
	return out
}

const (
	me    = "local me 192.168.0.1 10.244.1.0 66:b1:c1:d8:73:6f [10.244.1.0/24]"
	peerA = "a 192.168.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/24] vxlan"
	peerB = "b 192.168.0.3 10.244.3.0 66:e9:d7:1f:5e:e7 [10.244.3.0/24] vxlan"
)

func TestNative(t *testing.T) {
	mine := node("me", "192.168.0.1", "10.244.1.0/24")
	a := node("a", "192.168.0.2", "10.244.2.0/24")
	b := node("b", "192.168.0.3", "10.244.3.0/24")
	old := node("me", "192.168.0.1", "")
	old.Spec.PodCIDR = "10.244.1.0/24"
	for _, c := range []struct {
		name  string
		nodes []*corev1.Node
		want  []string
	}{
		{"three nodes", []*corev1.Node{b, mine, a}, []string{me, peerA, peerB}},
		{"podCIDR alone", []*corev1.Node{old, a}, []string{me, peerA}},
		{"nobody", nil, []string{"conflict: Node me: metadata.name: there is no such object, so this node has no pod CIDR; create it, or set node to the name of the one that is meant"}},
		{"peers are carried without this node", []*corev1.Node{a}, []string{peerA,
			"conflict: Node me: metadata.name: there is no such object, so this node has no pod CIDR; create it, or set node to the name of the one that is meant"}},
		{"this node waits for a prefix", []*corev1.Node{node("me", "192.168.0.1", "")}, []string{"local me 192.168.0.1 invalid IP 66:b1:c1:d8:73:6f []",
			"conflict: Node me: spec.podCIDRs: is missing, so pods of this node get no address; set it, or let the controller manager allocate one"}},
		{"a peer waits for a prefix", []*corev1.Node{mine, node("a", "", ""), b}, []string{me, peerB}},
		{"annotations", []*corev1.Node{mine, node("a", "10.0.0.9", "10.244.2.0/24", "public-ip=192.168.0.2", "vtep-mac=66:86:f7:e4:37:fa")}, []string{me, peerA}},
		{"IPv4 first", []*corev1.Node{mine, node("a", "fd00::2 192.168.0.2 192.168.0.9", "10.244.2.0/24")}, []string{me, peerA}},
		{"dual stack", []*corev1.Node{mine, node("a", "192.168.0.2", "10.244.2.0/24 fd00:2::/64")}, []string{me,
			"a 192.168.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/24 fd00:2::/64] vxlan"}},
		{"no InternalIP", []*corev1.Node{mine, node("a", "", "10.244.2.0/24"), b}, []string{me, peerB,
			"conflict: Node a: status.addresses: has no InternalIP, so nothing can be sent to it; add one, or annotate the node with culvert.dev/public-ip"}},
		{"same address", []*corev1.Node{mine, node("b", "192.168.0.2", "10.244.3.0/24"), a}, []string{me, peerA,
			"conflict: Node b: status.addresses: 192.168.0.2 is also the address of Node a, so this node is left out; give each its own"}},
		{"my address", []*corev1.Node{mine, node("a", "192.168.0.1", "10.244.2.0/24")}, []string{me,
			"conflict: Node a: status.addresses: 192.168.0.1 is also the address of Node me, so this node is left out; give each its own"}},
		{"same MAC", []*corev1.Node{mine, a, node("b", "192.168.0.3", "10.244.3.0/24", "vtep-mac=66:86:f7:e4:37:fa")}, []string{me, peerA,
			`conflict: Node b: metadata.annotations["culvert.dev/vtep-mac"]: VTEP MAC 66:86:f7:e4:37:fa is also that of Node a, so this node is left out; give each its own`}},
		{"my prefix", []*corev1.Node{mine, node("a", "192.168.0.2", "10.244.0.0/16 10.244.2.0/24")}, []string{me, peerA,
			"conflict: Node a: spec.podCIDRs[0]: 10.244.0.0/16 overlaps 10.244.1.0/24 of Node me, so it is left out; give each node its own"}},
		{"part of a prefix", []*corev1.Node{mine, a, node("b", "192.168.0.3", "10.244.2.128/25")}, []string{me, peerA,
			"conflict: Node b: spec.podCIDRs[0]: 10.244.2.128/25 overlaps 10.244.2.0/24 of Node a, so it is left out; give each node its own"}},
		{"the older node keeps it", []*corev1.Node{mine, aged(node("a", "192.168.0.2", "10.244.3.0/24"), 1), aged(node("b", "192.168.0.3", "10.244.3.0/24"), 2)}, []string{me, peerB,
			"conflict: Node a: spec.podCIDRs[0]: 10.244.3.0/24 overlaps 10.244.3.0/24 of Node b, so it is left out; give each node its own"}},
		{"outside", []*corev1.Node{mine, a, node("b", "192.168.0.3", "10.9.0.0/24 10.244.3.0/24")}, []string{me, peerA, peerB,
			"conflict: Node b: spec.podCIDRs[0]: 10.9.0.0/24 is outside of native.clusterCIDRs [10.244.0.0/16 fd00::/16], so it is left out; correct one of them"}},
		{"an API server's nonsense", []*corev1.Node{mine, node("a", "x 192.168.0.2", "y 10.244.2.0/24", "vtep-mac=z", "public-ip=w")}, []string{me, peerA,
			`conflict: Node a: metadata.annotations["culvert.dev/public-ip"]: "w" is no IP address; write one such as 192.0.2.10; until then the InternalIP is used`,
			`conflict: Node a: status.addresses[0].address: "x" is no IP address; write one such as 192.0.2.10`,
			`conflict: Node a: metadata.annotations["culvert.dev/vtep-mac"]: "z" is no MAC address; write six bytes such as 66:b3:68:28:39:8e; until then 66:86:f7:e4:37:fa is used`,
			`conflict: Node a: spec.podCIDRs[0]: "y" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := Options{Node: "me", Encap: "vxlan", VNI: 4096, Port: 4789, ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/16")}}
			got := brief(Native(&source.Objects{Nodes: c.nodes}, opt))
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
			for i, j := 0, len(c.nodes)-1; i < j; i, j = i+1, j-1 {
				c.nodes[i], c.nodes[j] = c.nodes[j], c.nodes[i]
			}
			if again := brief(Native(&source.Objects{Nodes: c.nodes}, opt)); !reflect.DeepEqual(again, got) {
				t.Errorf("in the other order\n  %s", strings.Join(again, "\n  "))
			}
		})
	}
}

func TestOptionsFromConfig(t *testing.T) {
	c, err := config.Parse("c", []byte("vxlan: {vni: 7, port: 8472}\n"), []string{"NODE_NAME=me"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := OptionsFrom(c, nil), (Options{Node: "me", Encap: "vxlan", VNI: 7, Port: 8472, ServiceCIDRs: []netip.Prefix{},
		NAT: NAT{Exclude: []netip.Prefix{}, Low: 61000, High: 65535}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c, err = config.Parse("c", []byte("native: {clusterCIDRs: [10.1.0.0/16]}\n"), []string{"NODE_NAME=me"})
	if err != nil || len(OptionsFrom(c, nil).ClusterCIDRs) != 1 {
		t.Errorf("clusterCIDRs that were given do not bind: %v", err)
	}
}

func TestDetect(t *testing.T) {
	n := node("a", "", "")
	if got := Detect(&source.Objects{Nodes: []*corev1.Node{n}}); got != "native" {
		t.Error(got)
	}
	if got := Detect(&source.Objects{IPPools: []*source.IPPool{{}}}); got != "calico" {
		t.Error(got)
	}
	if got := Detect(&source.Objects{ConfigMaps: []*corev1.ConfigMap{configMap("kube-flannel", "")}, Nodes: []*corev1.Node{n}}); got != "flannel" {
		t.Error(got)
	}
	n.Annotations = map[string]string{"flannel.alpha.coreos.com/kube-subnet-manager": "true"}
	if got := Detect(&source.Objects{Nodes: []*corev1.Node{n}}); got != "flannel" {
		t.Error(got)
	}
}

func BenchmarkNative5000Nodes(b *testing.B) {
	objs := &source.Objects{}
	for i := range 5000 {
		objs.Nodes = append(objs.Nodes, node(fmt.Sprintf("n%d", i), fmt.Sprintf("192.168.%d.%d", i/250, 1+i%250), fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)))
	}
	for b.Loop() {
		if d := Native(objs, Options{Node: "n7", Encap: "vxlan"}); len(d.Peers) != 4999 || len(d.Conflicts) != 0 {
			b.Fatal(len(d.Peers), d.Conflicts)
		}
	}
}

// With crossSubnet a peer is near if the prefix that the node's own address has on an
// uplink holds it, whatever else the uplinks have.
func TestCrossSubnet(t *testing.T) {
	mine := node("me", "192.168.0.1", "10.244.1.0/24")
	near, far := node("near", "192.168.0.2", "10.244.2.0/24"), node("far", "192.168.9.3", "10.244.3.0/24")
	for _, c := range []struct {
		name, subnets, near, far string
		off                      bool
	}{
		{"one prefix", "192.168.0.1/24", None, VXLAN, false},
		{"switched off", "192.168.0.1/24", VXLAN, VXLAN, true},
		{"a wide one", "192.168.0.1/16", None, None, false},
		{"an address alone", "192.168.0.1/32", VXLAN, VXLAN, false},
		{"no address yet", "", VXLAN, VXLAN, false},
		{"another uplink holds the peer", "192.168.9.1/24 192.168.0.1/24", None, VXLAN, false},
		{"behind NAT the first one counts", "fd00::1/64 192.168.9.1/24 192.168.0.7/24", VXLAN, None, false},
		{"of the other family", "fd00::1/64", VXLAN, VXLAN, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := Options{Node: "me", Encap: VXLAN, VNI: 4096, Port: 4789, CrossSubnet: !c.off}
			for s := range strings.FieldsSeq(c.subnets) {
				opt.Subnets = append(opt.Subnets, netip.MustParsePrefix(s))
			}
			d := Native(&source.Objects{Nodes: []*corev1.Node{near, far, mine}}, opt)
			if len(d.Peers) != 2 || d.Peers[1].Encap != c.near || d.Peers[0].Encap != c.far {
				t.Errorf("%v, want near %s, far %s", brief(d), c.near, c.far)
			}
			if d.Takes(None) != (c.near == None || c.far == None) {
				t.Errorf("routed %v", d.Takes(None))
			}
		})
	}
}

// IPIP is IPv4 in IPv4: what else the objects have is told, with what to do about it.
func TestIPIPIsIPv4(t *testing.T) {
	objs := &source.Objects{Nodes: []*corev1.Node{
		node("me", "192.168.0.1", "10.244.1.0/24 fd00:1::/64"),
		node("a", "192.168.0.2", "10.244.2.0/24 fd00:2::/64"),
		node("b", "fd00::3", "10.244.3.0/24"),
		node("c", "192.168.0.4", "10.244.4.0/24", "vtep-mac=66:86:f7:e4:37:fa"), // a's, which nobody uses
	}}
	want := []string{me, "a 192.168.0.2 10.244.2.0 66:86:f7:e4:37:fa [10.244.2.0/24] ipip", "c 192.168.0.4 10.244.4.0 66:86:f7:e4:37:fa [10.244.4.0/24] ipip",
		"conflict: Node me: spec.podCIDRs[1]: fd00:1::/64 is IPv6, which IPIP does not carry, so it is left out; set native.encap to vxlan or none",
		"conflict: Node a: spec.podCIDRs[1]: fd00:2::/64 is IPv6, which IPIP does not carry, so it is left out; set native.encap to vxlan or none",
		"conflict: Node b: status.addresses: fd00::3 is IPv6, which IPIP has no tunnels over, so this node is left out; give it an IPv4 InternalIP, or set native.encap to vxlan or none",
	}
	if got := brief(Native(objs, Options{Node: "me", Encap: IPIP})); !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	d := Native(objs, Options{Node: "me", Encap: None})
	if len(d.Conflicts) != 0 || len(d.Peers) != 3 || len(d.Peers[0].PodCIDRs) != 2 || d.Peers[0].Encap != None {
		t.Errorf("without a tunnel: %v", brief(d))
	}
}
