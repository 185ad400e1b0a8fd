package config

import (
	"strings"
	"testing"
)

// mistakes are files and the one line each gives, without "c.yaml:".
var mistakes = []struct{ in, want string }{
	// Shape.
	{"nod: x\n", "1: nod: unknown key; known here are node, source, kubeconfig, mode, uplinks, native, vxlan, serviceCIDRs, nat, mtu, mssClamp, workers, poll, xdp, flows, ipam, socket, stateDir, listen, cni"},
	{"mtu: 1400\nuplink: [eth0]\n", "2: uplink: unknown key; did you mean uplinks?"},
	{"MTU: 1400\n", "1: MTU: unknown key; did you mean mtu?"},
	{"vxlan:\n  vni: 1\n  vlan: 2\n", "3: vxlan.vlan: unknown key; known here are vni, port"},
	{"native: {crosssubnet: true}\n", "1: native.crosssubnet: unknown key; did you mean crossSubnet?"},
	{"node.x: 1\n", `1: ["node.x"]: unknown key; known here are node, source, kubeconfig, mode, uplinks, native, vxlan, serviceCIDRs, nat, mtu, mssClamp, workers, poll, xdp, flows, ipam, socket, stateDir, listen, cni`},
	{"vxlan: 4789\n", "1: vxlan: is a number, want a mapping; write key: value lines"},
	{"\n\nvxlan:\n- 1\n", "4: vxlan: is a list, want a mapping; write key: value lines"},
	{"node\n", "1: is text, want a mapping; write key: value lines"},
	{"- node: x\n", "1: is a list, want a mapping; write key: value lines"},
	{"mtu: 1400\nmtu: 1500\n", "2: mtu: given twice, first in line 1; remove one"},
	{"mtu: 1400\n---\nmtu: 1400\n", "2: a second document begins; keep the configuration in one"},
	{"mtu: [1\n", "1: is no YAML: sequence end token ']' not found; check the quoting and the indentation"},
	// Types.
	{"node: 12\n", "1: node: is a number, want text; put it in quotes"},
	{"node: [a]\n", "1: node: is a list, want text; write one value"},
	{"node: true\n", "1: node: is a truth value, want text; put it in quotes"},
	{"mtu: \"1400\"\n", "1: mtu: is text, want a number; write a whole number from 0 to 65535"},
	{"mtu: big\n", "1: mtu: is text, want a number; write a whole number from 0 to 65535"},
	{"mtu: 1400.5\n", "1: mtu: is a number with a fraction, want a number; write a whole number from 0 to 65535"},
	{"mtu: {a: 1}\n", "1: mtu: is a mapping, want a number; write a whole number from 0 to 65535"},
	{"uplinks: eth0\n", "1: uplinks: is text, want a list; write a list such as [eth0]"},
	{"uplinks:\n- eth0\n- 7\n", "3: uplinks[1]: is a number, want text; put it in quotes"},
	{"native: {crossSubnet: 1}\n", "1: native.crossSubnet: is a number, want a truth value; write true or false"},
	{"native: {clusterCIDRs: 10.0.0.0/8}\n", "1: native.clusterCIDRs: is text, want a list; write a list such as [10.244.0.0/16]"},
	{"xdp: {zeroCopy: true}\n", "1: xdp.zeroCopy: is a truth value, want text; put it in quotes"},
	// Values.
	{"node: Worker_1\n", `1: node: "Worker_1" is no Kubernetes node name; write the name that kubectl get nodes shows`},
	{"node: \"\"\nmode: x\n", `1: node: "" is no Kubernetes node name; write the name that kubectl get nodes shows`},
	{"source: /etc/x\n", `1: source: unknown source "/etc/x"; write dir:PATH or kube`},
	{"source: 'dir:'\n", `1: source: unknown source "dir:"; write dir:PATH or kube`},
	{"mode: cilium\n", `1: mode: unknown value "cilium"; write auto, native, calico or flannel`},
	{"poll: sometimes\n", `1: poll: unknown value "sometimes"; write busy, adaptive or interrupt`},
	{"native: {encap: geneve}\n", `1: native.encap: unknown value "geneve"; write vxlan, ipip or none`},
	{"xdp: {mode: skb}\n", `1: xdp.mode: unknown value "skb"; write auto, native or generic`},
	{"xdp: {zeroCopy: yes}\n", `1: xdp.zeroCopy: unknown value "yes"; write auto, on or off`},
	{"uplinks: [eth0, eth1, eth0]\n", "1: uplinks[2]: eth0 is uplinks[0] already; name every uplink once"},
	{"uplinks: [lo]\n", "1: uplinks[0]: the loopback device reaches no other node; name a NIC"},
	{"uplinks: [a/b]\n", `1: uplinks[0]: "a/b" is no device name; write the name that ip link shows`},
	{"uplinks: [averyverylongname]\n", `1: uplinks[0]: "averyverylongname" has 17 bytes, a device name at most 15; write the name that ip link shows`},
	{"native:\n  clusterCIDRs:\n  - 10.244.0.0\n", `3: native.clusterCIDRs[0]: "10.244.0.0" is no CIDR; write ADDRESS/LENGTH such as 10.244.0.0/16`},
	{"native: {clusterCIDRs: [10.244.0.1/16]}\n", "1: native.clusterCIDRs[0]: 10.244.0.1/16 has bits set behind its length; write 10.244.0.0/16"},
	{"native:\n  clusterCIDRs:\n  - 10.0.0.0/8\n  - 10.244.0.0/16\n", "4: native.clusterCIDRs[1]: 10.244.0.0/16 overlaps 10.0.0.0/8, which is clusterCIDRs[0]; keep one of them"},
	{"native: {clusterCIDRs: []}\n", "1: native.clusterCIDRs: is empty; write the prefixes that pods have addresses of"},
	{"native: {clusterCIDRs: [224.0.0.0/4]}\n", "1: native.clusterCIDRs[0]: 224.0.0.0/4 is reserved; write a unicast prefix"},
	{"native: {clusterCIDRs: [0.0.0.0/0]}\n", "1: native.clusterCIDRs[0]: 0.0.0.0/0 is every address there is; write the prefix that pods have addresses of"},
	{"native: {clusterCIDRs: ['::ffff:10.0.0.0/104']}\n", "1: native.clusterCIDRs[0]: ::ffff:10.0.0.0/104 is an IPv4 prefix in IPv6 clothes; write it as IPv4"},
	{"serviceCIDRs: [10.96.0.0/12, 10.96.1.0/24]\n", "1: serviceCIDRs[1]: 10.96.1.0/24 overlaps 10.96.0.0/12, which is serviceCIDRs[0]; keep one of them"},
	{"nat: {ports: 80-90}\n", `1: nat.ports: "80-90" is no range of ports from 1024 to 65535; write one such as 61000-65535`},
	{"nat: {ports: 61000}\n", "1: nat.ports: is a number, want text; put it in quotes"},
	{"nat: {ports: 2000-1999}\n", `1: nat.ports: "2000-1999" is no range of ports from 1024 to 65535; write one such as 61000-65535`},
	{"nat: {exclude: [10.0.0.1/8]}\n", "1: nat.exclude[0]: 10.0.0.1/8 has bits set behind its length; write 10.0.0.0/8"},
	{"vxlan: {vni: 0}\n", "1: vxlan.vni: 0 is out of range; write a number from 1 to 16777215, the same on every node"},
	{"vxlan: {vni: 16777216}\n", "1: vxlan.vni: 16777216 is out of range; write a number from 1 to 16777215, the same on every node"},
	{"vxlan:\n\n  port: 65536\n", "3: vxlan.port: 65536 is out of range; write a number from 1 to 65535, the same on every node"},
	{"vxlan: {port: -1}\n", "1: vxlan.port: -1 is out of range; write a number from 1 to 65535, the same on every node"},
	{"mtu: 1279\n", "1: mtu: 1279 is out of range; write a number from 1280 to 65535, or 0 for the smallest uplink MTU less the tunnel's overhead"},
	{"mtu: 65536\n", "1: mtu: 65536 is out of range; write a number from 0 to 65535, or 0 for the smallest uplink MTU less the tunnel's overhead"},
	{"workers: -1\n", "1: workers: -1 is out of range; write a number from 0 to 256, 0 stands for one per uplink queue"},
	{"xdp: {frameSize: 3000}\n", "1: xdp.frameSize: 3000 is no size of an AF_XDP frame; write 2048 or 4096"},
	{"xdp: {frameSize: 8192}\n", "1: xdp.frameSize: 8192 is no size of an AF_XDP frame; write 2048 or 4096"},
	{"xdp: {ringSize: 1000}\n", "1: xdp.ringSize: 1000 is no power of two; write 512 or 1024"},
	{"xdp: {ringSize: 32}\n", "1: xdp.ringSize: 32 is out of range; write a number from 64 to 32768, a power of two"},
	{"flows: {capacity: 63}\n", "1: flows.capacity: 63 is out of range; write a number from 64 to 67108864, 262144 suits most nodes"},
	{"ipam: {cooldown: 2h}\n", `1: ipam.cooldown: "2h" is no time from 0s to 1h; write one such as 30s`},
	{"ipam: {cooldown: soon}\n", `1: ipam.cooldown: "soon" is no time from 0s to 1h; write one such as 30s`},
	{"socket: culvert.sock\n", `1: socket: "culvert.sock" is no absolute path; begin it with /`},
	{"socket: /" + strings.Repeat("x", 106) + "\n", "1: socket: has 107 bytes, a unix socket's path at most 106; choose a shorter path"},
	{"stateDir: state\n", `1: stateDir: "state" is no absolute path; begin it with /`},
	{"cni: {confDir: cni}\n", `1: cni.confDir: "cni" is no absolute path; begin it with /`},
	{"cni: {conf: ''}\n", `1: cni.conf: "" is no absolute path; begin it with /`},
	{"cni: /etc/cni/net.d\n", "1: cni: is text, want a mapping; write key: value lines"},
	{"listen: 9476\n", "1: listen: is a number, want text; put it in quotes"},
	{"listen: 127.0.0.1\n", `1: listen: "127.0.0.1" is no address to listen on; write HOST:PORT such as 127.0.0.1:9476`},
	{"listen: 127.0.0.1:metrics\n", `1: listen: port "metrics" is out of range; write a number from 0 to 65535`},
	{"listen: worker-1:9476\n", `1: listen: host "worker-1" is no IP address; write one of this node's addresses, or nothing for all`},
	// Contradictions.
	{"xdp:\n  mode: generic\n  zeroCopy: on\n", "3: xdp.zeroCopy: on needs the driver's own XDP, xdp.mode is generic; set zeroCopy to auto or mode to native"},
	{"native:\n  crossSubnet: true\n  encap: none\n", "2: native.crossSubnet: true says when to tunnel, native.encap none never does; set crossSubnet to false or encap to vxlan"},
	{"source: dir:/m\nkubeconfig: /k\n", "2: kubeconfig: /k says how to reach an API server, and source is dir:/m; remove it, or set source to kube"},
}

func TestMistakesInTheFile(t *testing.T) {
	for _, c := range mistakes {
		_, err := Parse("c.yaml", []byte(c.in), []string{"NODE_NAME=n"})
		if err == nil {
			t.Errorf("%q was accepted", c.in)
			continue
		}
		if got := err.Error(); got != "c.yaml:"+c.want {
			t.Errorf("%q\n got %s\nwant c.yaml:%s", c.in, got, c.want)
		}
	}
}

func TestMistakesInTheEnvironment(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"CULVERT_MTU=12", "CULVERT_MTU: mtu: 12 is out of range; write a number from 1280 to 65535, or 0 for the smallest uplink MTU less the tunnel's overhead"},
		{"CULVERT_MTU=big", `CULVERT_MTU: mtu: "big" is no number; write a whole number from 0 to 65535`},
		{"CULVERT_MTU=99999999999999999999", "CULVERT_MTU: mtu: 99999999999999999999 is out of range; write a number from 0 to 65535, or 0 for the smallest uplink MTU less the tunnel's overhead"},
		{"CULVERT_UPLINKS=eth0,,eth1", "CULVERT_UPLINKS: uplinks[1]: an empty name; write a device name such as eth0"},
		{"CULVERT_NATIVE_CROSS_SUBNET=yes", `CULVERT_NATIVE_CROSS_SUBNET: native.crossSubnet: "yes" is no truth value; write true or false`},
		{"CULVERT_NATIVE_CLUSTERCIDRS=10.0.0.0/8,10.1.0.0/16", "CULVERT_NATIVE_CLUSTERCIDRS: native.clusterCIDRs[1]: 10.1.0.0/16 overlaps 10.0.0.0/8, which is clusterCIDRs[0]; keep one of them"},
		{"CULVERT_KUBECONFIG=/k", "CULVERT_KUBECONFIG: kubeconfig: /k says how to reach an API server, and source is dir:/etc/culvert/manifests; remove it, or set source to kube"},
		{"CULVERT_STATEDIR=/a CULVERT_STATE_DIR=/b", "CULVERT_STATE_DIR: stateDir: differs from CULVERT_STATEDIR, which sets the same key; set one of them"},
	} {
		_, err := Parse("c.yaml", nil, append(strings.Fields(c.env), "NODE_NAME=n"))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.env, err, c.want)
		}
	}
}
