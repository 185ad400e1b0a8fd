package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

func sampleLab(name string) *lab.Lab {
	return &lab.Lab{
		Name: name, MTU: 1500, VNI: 4096, Port: 4789, Dir: "/tmp/" + name + "-1",
		Nodes: []*lab.Node{
			{Name: "node-a", Kind: lab.Culvert, Netns: name + "-node-a", Addr: netip.MustParseAddr("192.168.50.1"),
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd44:0:0:1::/64")}, Socket: "/tmp/" + name + "-1/node-a/culvert.sock",
				Pods: []*lab.Pod{{Name: "a1", Node: "node-a", Netns: name + "-a1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd44:0:0:1::2")}}}},
			{Name: "node-b", Kind: lab.Flannel, Netns: name + "-node-b", Addr: netip.MustParseAddr("192.168.50.2"),
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")},
				Pods: []*lab.Pod{{Name: "b1", Node: "node-b", Netns: name + "-b1", Addr: netip.MustParseAddr("10.244.2.2"),
					Addrs: []netip.Addr{netip.MustParseAddr("10.244.2.2")}}}},
		},
	}
}

func TestLabTable(t *testing.T) {
	var b bytes.Buffer
	printLabs(&b, viewLabs([]*lab.Lab{sampleLab("cvl-1")}))
	const want = `lab cvl-1: underlay mtu 1500, vni 4096, dstport 4789

NODE    KIND     ADDRESS       PODCIDR                        NETNS         SOCKET
node-a  culvert  192.168.50.1  10.244.1.0/24,fd44:0:0:1::/64  cvl-1-node-a  /tmp/cvl-1-1/node-a/culvert.sock
node-b  flannel  192.168.50.2  10.244.2.0/24                  cvl-1-node-b  N/A

POD  NODE    ADDRESS                   NETNS
a1   node-a  10.244.1.2,fd44:0:0:1::2  cvl-1-a1
b1   node-b  10.244.2.2                cvl-1-b1

ip netns exec cvl-1-a1 ping 10.244.2.2
culvert --socket /tmp/cvl-1-1/node-a/culvert.sock flow
culvert lab down cvl-1
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", &b, want)
	}
}

func TestChooseLabs(t *testing.T) {
	one := []*lab.Lab{sampleLab("cvl-1")}
	two := append(one, sampleLab("cvl-2"))
	for _, c := range []struct {
		name string
		labs []*lab.Lab
		args []string
		all  bool
		want string
		code int
	}{
		{"none", nil, nil, false, "", 0},
		{"the only one", one, nil, false, "cvl-1", 0},
		{"which of two", two, nil, false, "", 2},
		{"all of two", two, nil, true, "cvl-1 cvl-2", 0},
		{"by name", two, []string{"cvl-2"}, false, "cvl-2", 0},
		{"no such name", two, []string{"cvl-3"}, false, "", 1},
		{"name and all", two, []string{"cvl-2"}, true, "", 2},
	} {
		labs, err := chooseLabs(c.labs, c.args, c.all)
		if code := api.ExitCode(err); code != c.code {
			t.Errorf("%s: exit code %d, want %d: %v", c.name, code, c.code, err)
		}
		if got := strings.Join(labNames(labs), " "); err == nil && got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLabPeerIsAnEnum(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"lab", "up", "--peer", "cisco"}, &stdout, &stderr); code != api.ExitUsage ||
		!strings.Contains(stderr.String(), "must be one of culvert, flannel, calico") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
