package flavour

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// annotated gives a Node annotations: "prefix/key=value". An empty value removes one.
func annotated(n *corev1.Node, annotations ...string) *corev1.Node {
	n = n.DeepCopy()
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	for _, a := range annotations {
		k, v, _ := strings.Cut(a, "=")
		if n.Annotations[k] = v; v == "" {
			delete(n.Annotations, k)
		}
	}
	return n
}

const fl = "flannel.alpha.coreos.com/"

// flanneld is a Node as flanneld writes it.
func flanneld(name, ip, cidrs, mac string) *corev1.Node {
	return annotated(node(name, ip, cidrs), fl+"kube-subnet-manager=true", fl+"backend-type=vxlan",
		fl+"public-ip="+ip, fl+`backend-data={"VNI":1,"VtepMAC":"`+mac+`"}`)
}

func configMap(namespace, netConf string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{Data: map[string]string{"net-conf.json": netConf}}
	m.Namespace, m.Name = namespace, "kube-flannel-cfg"
	return m
}

// network says what is common to all nodes, in front of brief.
func network(d *Desired) []string {
	return []string{strings.TrimSpace(strings.Join([]string{d.Mode, d.Encap, "vni", itoa(int(d.VNI)), "port", itoa(int(d.Port)), "mtu", itoa(d.MTU)}, " "))}
}

const (
	flMe = "local me 192.168.0.1 10.42.1.0 66:b1:c1:d8:73:6f [10.42.1.0/24]"
	flA  = "a 192.168.0.2 10.42.2.0 0a:00:00:00:00:02 [10.42.2.0/24] vxlan"
	flB  = "b 192.168.0.3 10.42.3.0 0a:00:00:00:00:03 [10.42.3.0/24] vxlan"
	fl1  = "flannel vxlan vni 1 port 8472 mtu 0"
	aKey = `conflict: Node a: metadata.annotations["` + fl
)

func TestFlannel(t *testing.T) {
	mine := node("me", "192.168.0.1", "10.42.1.0/24")
	a := flanneld("a", "192.168.0.2", "10.42.2.0/24", "0a:00:00:00:00:02")
	b := flanneld("b", "192.168.0.3", "10.42.3.0/24", "0a:00:00:00:00:03")
	dual := annotated(flanneld("a", "192.168.0.2", "10.42.2.0/24 fd00:42:2::/64", "0a:00:00:00:00:02"),
		fl+"public-ipv6=2001:db8::2", fl+`backend-v6-data={"VNI":1,"VtepMAC":"0a:00:00:00:06:02"}`)
	dualMe := node("me", "192.168.0.1 2001:db8::1", "10.42.1.0/24 fd00:42:1::/64")
	conf4 := `{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"`
	conf6 := `{"Network": "10.42.0.0/16", "IPv6Network": "fd00:42::/32", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}`
	for _, c := range []struct {
		name  string
		conf  string // net-conf.json; empty: there is no ConfigMap
		nodes []*corev1.Node
		want  []string
	}{
		{"without a ConfigMap", "", []*corev1.Node{b, mine, a}, []string{fl1, flMe, flA, flB}},
		{"defaults", conf4 + "}}", []*corev1.Node{mine, a}, []string{fl1, flMe, flA}},
		{"VNI, port, MTU", conf4 + `, "VNI": 77, "Port": 4789, "MTU": 1450}}`, []*corev1.Node{mine}, []string{"flannel vxlan vni 77 port 4789 mtu 1400", flMe}},
		{"keys in any case", `{"network": "10.42.0.0/16", "BACKEND": {"type": "vxlan", "vni": 2}}`, []*corev1.Node{mine}, []string{"flannel vxlan vni 2 port 8472 mtu 0", flMe}},
		{"a peer's other VNI is told and not followed", conf4 + `, "VNI": 2}}`, []*corev1.Node{mine, a}, []string{"flannel vxlan vni 2 port 8472 mtu 0", flMe, flA,
			aKey + `backend-data"]: VNI 1 is not the cluster's, 2, which is used; restart flanneld there`}},
		{"group policies", conf4 + `, "GBP": true}}`, []*corev1.Node{mine}, []string{fl1, flMe,
			`conflict: ConfigMap kube-flannel/kube-flannel-cfg: data["net-conf.json"]: Backend.GBP true is not carried: packets' group policies get lost`}},
		{"direct routing", conf4 + `, "DirectRouting": true}}`, []*corev1.Node{mine, a, flanneld("b", "172.16.0.3", "10.42.3.0/24", "0a:00:00:00:00:03")}, []string{fl1, flMe,
			"a 192.168.0.2 invalid IP 00:00:00:00:00:00 [10.42.2.0/24] none", "b 172.16.0.3 10.42.3.0 0a:00:00:00:00:03 [10.42.3.0/24] vxlan"}},
		{"host-gw", `{"Network": "10.42.0.0/16", "Backend": {"Type": "host-gw"}}`, []*corev1.Node{mine, a,
			annotated(b, fl+"backend-type=host-gw", fl+"backend-data=null")}, []string{"flannel none vni 1 port 8472 mtu 0", flMe,
			"b 192.168.0.3 invalid IP 00:00:00:00:00:00 [10.42.3.0/24] none",
			aKey + `backend-type"]: is "vxlan" and the cluster's backend is host-gw, so this node is left out; let all nodes have the same`}},
		{"ipip", `{"Network": "10.42.0.0/16", "Backend": {"Type": "ipip"}}`, []*corev1.Node{mine, annotated(b, fl+"backend-type=ipip", fl+"backend-data=null")},
			[]string{"flannel ipip vni 1 port 8472 mtu 0", flMe, "b 192.168.0.3 invalid IP 00:00:00:00:00:00 [10.42.3.0/24] ipip"}},

		{"dual stack", conf6, []*corev1.Node{dualMe, dual}, []string{fl1, "local me 192.168.0.1 10.42.1.0 66:b1:c1:d8:73:6f [10.42.1.0/24 fd00:42:1::/64]",
			"and 2001:db8::1 fd00:42:1:: 66:c2:35:6f:e2:dd", flA, "a ipv6 2001:db8::2 fd00:42:2:: 0a:00:00:00:06:02 [fd00:42:2::/64] vxlan"}},
		{"dual stack without a ConfigMap", "", []*corev1.Node{dualMe, dual}, []string{fl1, "local me 192.168.0.1 10.42.1.0 66:b1:c1:d8:73:6f [10.42.1.0/24 fd00:42:1::/64]",
			"and 2001:db8::1 fd00:42:1:: 66:c2:35:6f:e2:dd", flA, "a ipv6 2001:db8::2 fd00:42:2:: 0a:00:00:00:06:02 [fd00:42:2::/64] vxlan"}},
		{"one family of a dual-stack node is off", conf4 + "}}", []*corev1.Node{dualMe, dual}, []string{fl1, flMe, flA}},
		{"IPv6 alone", `{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:42::/32", "Backend": {"Type": "vxlan"}}`, []*corev1.Node{dualMe, dual}, []string{fl1,
			"local me 2001:db8::1 fd00:42:1:: 66:c2:35:6f:e2:dd [fd00:42:1::/64]", "a ipv6 2001:db8::2 fd00:42:2:: 0a:00:00:00:06:02 [fd00:42:2::/64] vxlan"}},
		{"half a dual-stack peer", conf6, []*corev1.Node{dualMe, a}, []string{fl1,
			"local me 192.168.0.1 10.42.1.0 66:b1:c1:d8:73:6f [10.42.1.0/24 fd00:42:1::/64]", "and 2001:db8::1 fd00:42:1:: 66:c2:35:6f:e2:dd", flA,
			"conflict: Node a: spec.podCIDRs: has none for fd00:42::/32, which the cluster's network has; let the controller manager allocate one"}},
		{"a dual-stack peer's IPv6 is broken", conf6, []*corev1.Node{dualMe, annotated(dual, fl+"backend-v6-data=")}, []string{fl1,
			"local me 192.168.0.1 10.42.1.0 66:b1:c1:d8:73:6f [10.42.1.0/24 fd00:42:1::/64]", "and 2001:db8::1 fd00:42:1:: 66:c2:35:6f:e2:dd", flA,
			aKey + `backend-v6-data"]: is missing; until then nothing is sent to fd00:42:2::/64`}},

		{"no node of flannel's", "", []*corev1.Node{mine, annotated(a, fl+"kube-subnet-manager="), annotated(b, fl+"kube-subnet-manager=True")}, []string{fl1, flMe}},
		{"no pod CIDR yet", "", []*corev1.Node{mine, flanneld("a", "192.168.0.2", "", "0a:00:00:00:00:02"), b}, []string{fl1, flMe, flB}},
		{"overwritten in a moment", "", []*corev1.Node{mine, annotated(a, fl+"public-ip=", fl+"public-ip-overwrite=203.0.113.2")}, []string{fl1, flMe,
			"a 203.0.113.2 10.42.2.0 0a:00:00:00:00:02 [10.42.2.0/24] vxlan"}},
		{"what peers see goes before what will be", "", []*corev1.Node{mine, annotated(a, fl+"public-ip-overwrite=203.0.113.2")}, []string{fl1, flMe, flA}},
		{"no backend-type", "", []*corev1.Node{mine, annotated(a, fl+"backend-type="), b}, []string{fl1, flMe, flB,
			aKey + `backend-type"]: is "" and the cluster's backend is vxlan, so this node is left out; let all nodes have the same`}},
		{"no address", "", []*corev1.Node{mine, annotated(a, fl+"public-ip="), b}, []string{fl1, flMe, flB,
			aKey + `public-ip"]: is missing, so nothing can be sent to it; restart flanneld there, which writes it`}},
		{"an address with a mask", "", []*corev1.Node{mine, annotated(a, fl+"public-ip=192.168.0.2/24"), b}, []string{fl1, flMe, flB,
			aKey + `public-ip"]: "192.168.0.2/24" is no IP address; write one such as 192.0.2.10; until then nothing is sent to it`}},
		{"an address of the other family", "", []*corev1.Node{mine, annotated(a, fl+"public-ip=2001:db8::2"), b}, []string{fl1, flMe, flB,
			aKey + `public-ip"]: 2001:db8::2 is of the other family; until then nothing is sent to it`}},
		{"no backend-data", "", []*corev1.Node{mine, annotated(a, fl+"backend-data="), b}, []string{fl1, flMe, flB,
			aKey + `backend-data"]: is missing; until then nothing is sent to 10.42.2.0/24`}},
		{"backend-data of another backend", "", []*corev1.Node{mine, annotated(a, fl+"backend-data=null"), b}, []string{fl1, flMe, flB,
			aKey + `backend-data"]: "null" has no VtepMAC; until then nothing is sent to 10.42.2.0/24`}},
		{"backend-data that is none", "", []*corev1.Node{mine, annotated(a, fl+`backend-data={"VNI":1,`), b}, []string{fl1, flMe, flB,
			aKey + `backend-data"]: "{\"VNI\":1," is not what flannel writes, such as {"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"}; until then nothing is sent to 10.42.2.0/24`}},
		{"no MAC address", "", []*corev1.Node{mine, annotated(a, fl+`backend-data={"VNI":1,"VtepMAC":"x"}`), b}, []string{fl1, flMe, flB,
			aKey + `backend-data"]: "x" is no MAC address; write six bytes such as 66:b3:68:28:39:8e; until then nothing is sent to 10.42.2.0/24`}},
		{"a group's MAC address", "", []*corev1.Node{mine, annotated(a, fl+`backend-data={"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}`), b}, []string{fl1, flMe, flB,
			aKey + `backend-data"]: 01:00:5e:00:00:01 is a group address; write a unicast address; until then nothing is sent to 10.42.2.0/24`}},
		{"more than one entry for a family", "", []*corev1.Node{mine, flanneld("a", "192.168.0.2", "10.42.2.0/24 10.42.8.0/24 fd00::/64", "0a:00:00:00:00:02"), b}, []string{fl1, flMe, flB,
			"conflict: Node a: spec.podCIDRs: has 3 entries, and flannel knows one for each family; remove the others"}},
		{"the first of a family counts", "", []*corev1.Node{mine, flanneld("a", "192.168.0.2", "10.42.2.0/24 10.42.8.0/24", "0a:00:00:00:00:02")}, []string{fl1, flMe, flA}},
		{"no CIDR", "", []*corev1.Node{mine, flanneld("a", "192.168.0.2", "x", "0a:00:00:00:00:02"), b}, []string{fl1, flMe, flB,
			`conflict: Node a: spec.podCIDRs[0]: "x" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`}},
		{"the same MAC", "", []*corev1.Node{mine, a, flanneld("b", "192.168.0.3", "10.42.3.0/24", "0a:00:00:00:00:02")}, []string{fl1, flMe, flA,
			`conflict: Node b: metadata.annotations["` + fl + `backend-data"]: VTEP MAC 0a:00:00:00:00:02 is also that of Node a, so this node is left out; give each its own`}},
		{"the same address", "", []*corev1.Node{mine, a, flanneld("b", "192.168.0.2", "10.42.3.0/24", "0a:00:00:00:00:03")}, []string{fl1, flMe, flA,
			`conflict: Node b: metadata.annotations["` + fl + `public-ip"]: 192.168.0.2 is also the address of Node a, so this node is left out; give each its own`}},
		{"the same prefix, the older node keeps it", "", []*corev1.Node{mine, aged(flanneld("a", "192.168.0.2", "10.42.3.0/24", "0a:00:00:00:00:02"), 1), aged(b, 2)}, []string{fl1, flMe, flB,
			"conflict: Node a: spec.podCIDRs: 10.42.3.0/24 overlaps 10.42.3.0/24 of Node b, so it is left out; give each node its own"}},

		{"this node is not there", "", []*corev1.Node{a}, []string{fl1, flA,
			"conflict: Node me: metadata.name: there is no such object, so nothing is known of this node; create it, or set node to the name of the one that is meant"}},
		{"this node waits for a prefix", "", []*corev1.Node{node("me", "192.168.0.1", "")}, []string{fl1, "local me 192.168.0.1 invalid IP 66:b1:c1:d8:73:6f []",
			"conflict: Node me: spec.podCIDRs: is missing, so pods of this node get no address; set it, or let the controller manager allocate one"}},
		{"this node has no address", "", []*corev1.Node{node("me", "", "10.42.1.0/24")}, []string{fl1, "local me invalid IP invalid IP 00:00:00:00:00:00 [10.42.1.0/24]",
			"conflict: Node me: status.addresses: has no InternalIP of the family of 10.42.1.0/24, so nothing can be sent to it; add one, or annotate the node with " + fl + "public-ip-overwrite"}},
		{"this node is outside of the network", conf4 + "}}", []*corev1.Node{node("me", "192.168.0.1", "10.43.1.0/24")}, []string{fl1, "local me 192.168.0.1 invalid IP 66:b1:c1:d8:73:6f []",
			"conflict: Node me: spec.podCIDRs: 10.43.1.0/24 is outside of flannel's network 10.42.0.0/16, so it is left out; correct one of them"}},
		{"an administrator's address for this node", "", []*corev1.Node{annotated(mine, fl+"public-ip-overwrite=203.0.113.1", fl+"public-ip=192.168.0.9")}, []string{fl1,
			"local me 203.0.113.1 10.42.1.0 66:b1:c1:d8:73:6f [10.42.1.0/24]"}},
		{"what flanneld wrote for this node", "", []*corev1.Node{flanneld("me", "192.168.0.1", "10.42.1.0/24", "0a:00:00:00:00:01")}, []string{fl1,
			"local me 192.168.0.1 10.42.1.0 0a:00:00:00:00:01 [10.42.1.0/24]"}},
		{"nonsense for this node", "", []*corev1.Node{annotated(mine, fl+"public-ip-overwrite=x", fl+"backend-data=y")}, []string{fl1, flMe,
			`conflict: Node me: metadata.annotations["` + fl + `public-ip-overwrite"]: "x" is no IP address; write one such as 192.0.2.10; until then it is not used`,
			`conflict: Node me: metadata.annotations["` + fl + `backend-data"]: "y" is not what flannel writes, such as {"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"}; until then it is not used`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			objs := &source.Objects{Nodes: c.nodes}
			if c.conf != "" {
				objs.ConfigMaps = []*corev1.ConfigMap{configMap("kube-flannel", c.conf)}
			}
			opt := Options{Node: "me", Subnets: []netip.Prefix{netip.MustParsePrefix("192.168.0.1/24")}}
			check(t, Flannel(objs, opt), c.want)
			slices.Reverse(c.nodes)
			check(t, Flannel(objs, opt), c.want)
		})
	}
}

// check compares a state with lines, those of conflicts in any order.
func check(t *testing.T, d *Desired, want []string) {
	t.Helper()
	got := append(network(d), brief(d)...)
	slices.Sort(got)
	want = slices.Clone(want)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// What is wrong for all nodes refuses the state, and says so.
func TestFlannelRefuses(t *testing.T) {
	for conf, want := range map[string]string{
		`{`:                           "is no JSON that flanneld would read: unexpected end of JSON input",
		`{"Network": "10.42.0.0/16"}`: "Backend.Type udp is nothing that Culvert speaks; it joins networks of vxlan, host-gw and ipip",
		`{"Network": "10.42.0.0/16", "Backend": {"Type": "wireguard"}}`:                      "Backend.Type wireguard is nothing that Culvert speaks; it joins networks of vxlan, host-gw and ipip",
		`{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}`:         "Backend.VNI 16777216 is out of range; write a number from 1 to 16777215",
		`{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "VNI": -1}}`:               "Backend.VNI -1 is out of range; write a number from 1 to 16777215",
		`{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "Port": 65536}}`:           "Backend.Port 65536 is out of range; write a number from 1 to 65535",
		`{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "MTU": 10}}`:               "Backend.MTU 10 is out of range; write that of the nodes' NICs, 626 to 65535",
		`{"Backend": {"Type": "vxlan"}}`:                                                     `Network: "" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`,
		`{"Network": "fd00::/48", "Backend": {"Type": "vxlan"}}`:                             "Network: fd00::/48 is of the other family",
		`{"Network": "10.42.0.0/16", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}`:      `IPv6Network: "" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`,
		`{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": "true"}}`: "is no JSON that flanneld would read: json: cannot unmarshal string into Go struct field .Backend.DirectRouting of type bool",
	} {
		objs := &source.Objects{
			Nodes:      []*corev1.Node{node("me", "192.168.0.1", "10.42.1.0/24"), flanneld("a", "192.168.0.2", "10.42.2.0/24", "0a:00:00:00:00:02")},
			ConfigMaps: []*corev1.ConfigMap{configMap("kube-system", conf)},
		}
		d := Flannel(objs, Options{Node: "me"})
		if !d.Refused || len(d.Conflicts) != 1 || d.Conflicts[0].What != want || len(d.Peers) != 0 || d.Local != nil {
			t.Errorf("%s: refused %t, conflicts %v, want %s", conf, d.Refused, d.Conflicts, want)
		}
	}
	m := configMap("kube-flannel", "")
	delete(m.Data, "net-conf.json")
	if d := Flannel(&source.Objects{ConfigMaps: []*corev1.ConfigMap{m}}, Options{Node: "me"}); !d.Refused {
		t.Error("a ConfigMap without net-conf.json was taken")
	}
}

// Of two ConfigMaps the one of today's manifests counts.
func TestFlannelConfigMapOfToday(t *testing.T) {
	conf := func(vni string) string {
		return `{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "VNI": ` + vni + `}}`
	}
	maps := []*corev1.ConfigMap{configMap("kube-system", conf("5")), configMap("kube-flannel", conf("6")), configMap("zzz", conf("7"))}
	for range maps {
		if d := Flannel(&source.Objects{ConfigMaps: maps}, Options{Node: "me"}); d.VNI != 6 {
			t.Errorf("VNI %d", d.VNI)
		}
		maps = append(maps[1:], maps[0])
	}
}

// What this node publishes is what flanneld would, to the byte; the MAC stays.
func TestFlannelPublishes(t *testing.T) {
	mine := node("me", "192.168.0.1 2001:db8::1", "10.42.1.0/24 fd00:42:1::/64")
	objs := &source.Objects{Nodes: []*corev1.Node{mine}}
	d := Flannel(objs, Options{Node: "me"})
	want := map[string]string{
		fl + "kube-subnet-manager": "true", fl + "backend-type": "vxlan",
		fl + "public-ip": "192.168.0.1", fl + "backend-data": `{"VNI":1,"VtepMAC":"66:b1:c1:d8:73:6f"}`,
		fl + "public-ipv6": "2001:db8::1", fl + "backend-v6-data": `{"VNI":1,"VtepMAC":"66:c2:35:6f:e2:dd"}`,
	}
	sameMap(t, d.Annotations, want)

	kept := map[string]string{fl + "backend-data": `{"VNI":1,"VtepMAC":"0a:00:00:00:00:77"}`, fl + "backend-v6-data": "broken", fl + "public-ip": "192.168.0.99"}
	d = Flannel(objs, Options{Node: "me", Kept: kept})
	if got := d.Local.VTEPMAC.String(); got != "0a:00:00:00:00:77" || d.Local.PublicIP.String() != "192.168.0.1" {
		t.Errorf("after a restart the MAC is %s and the address %s", got, d.Local.PublicIP)
	}
	if len(d.Conflicts) != 0 || d.Local.V6.VTEPMAC.String() != "66:c2:35:6f:e2:dd" {
		t.Errorf("IPv6's MAC is %s, conflicts %v", d.Local.V6.VTEPMAC, d.Conflicts)
	}
	objs.Nodes[0] = annotated(mine, fl+`backend-data={"VNI":1,"VtepMAC":"0a:00:00:00:00:88"}`)
	if d = Flannel(objs, Options{Node: "me", Kept: kept}); d.Local.VTEPMAC.String() != "0a:00:00:00:00:88" {
		t.Errorf("what the Node says does not go before what was kept: %s", d.Local.VTEPMAC)
	}
	objs.ConfigMaps = []*corev1.ConfigMap{configMap("kube-flannel", `{"Network": "10.42.0.0/16", "Backend": {"Type": "host-gw"}}`)}
	d = Flannel(objs, Options{Node: "me"})
	sameMap(t, d.Annotations, map[string]string{fl + "kube-subnet-manager": "true", fl + "backend-type": "host-gw", fl + "public-ip": "192.168.0.1", fl + "backend-data": "null"})
}
