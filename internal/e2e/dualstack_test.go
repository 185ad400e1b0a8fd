package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/internal/lab"
)

// A flannel cluster becomes a dual-stack one: a tunnel for each family over its own
// underlay, with a VTEP of its own, as flanneld's two devices have it.
func TestFlannelDualStack(t *testing.T) {
	const (
		mac6        = "ca:fe:00:00:06:10"
		node6, own6 = "2001:db8::10", "2001:db8::11"
	)
	rule6 := flavour.VTEPMAC("agent-v6").String()
	c := up(t, lab.Options{Cluster: &lab.Cluster{
		Mode: "flannel", Manifests: manifestFiles(t, "flannel"), Underlay: prefix("192.168.0.0/24"), Pods: prefix("10.42.0.0/16"), VNI: 1, Port: 8472,
		Nodes: []lab.ClusterNode{
			{Name: "server", Kind: lab.Flannel, Addr: addr("192.168.0.10"), PodCIDR: prefix("10.42.0.0/24"), VTEPMAC: macServer,
				Pods: []lab.ClusterPod{{Name: "s1", Addr: addr("10.42.0.7")}}},
			{Name: "agent", Kind: lab.Culvert, Addr: addr("192.168.0.11"), PodCIDR: prefix("10.42.1.0/24"), VTEPMAC: "4a:c6:29:d0:5e:11",
				Pods: []lab.ClusterPod{{Name: "a1"}}},
		},
	}})
	server, n := c.Nodes[0], c.Nodes[1]
	s1, a1 := server.Pods[0], n.Pods[0]
	ip := func(ns, args string) {
		t.Helper()
		must(t, ns, append([]string{"ip"}, strings.Fields(args)...)...)
	}
	ip(n.Netns, "addr add "+own6+"/64 dev eth0 nodad")
	ip(server.Netns, "addr add "+node6+"/64 dev eth0 nodad")
	must(t, server.Netns, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
	ip(server.Netns, "link add flannel-v6.1 address "+mac6+" type vxlan id 1 local "+node6+" dev eth0 dstport 8472 nolearning")
	ip(server.Netns, "link set flannel-v6.1 up")
	ip(server.Netns, "addr add fd00:42::/128 dev flannel-v6.1 nodad")
	ip(server.Netns, "neigh add fd00:42:0:1:: lladdr "+rule6+" dev flannel-v6.1 nud permanent")
	must(t, server.Netns, "bridge", "fdb", "add", rule6, "dev", "flannel-v6.1", "dst", own6)
	ip(server.Netns, "route add fd00:42:0:1::/64 via fd00:42:0:1:: dev flannel-v6.1 onlink")
	ip(server.Netns, "addr add fd00:42::1/64 dev cni0 nodad")
	ip(s1.Netns, "addr add fd00:42::7/64 dev eth0 nodad")
	ip(s1.Netns, "-6 route add default via fd00:42::1")

	change := func(file string, pairs ...string) {
		t.Helper()
		path := filepath.Join(c.ManifestDir(), file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, strings.NewReplacer(pairs...).Replace(string(text)))
	}
	fla := "    flannel.alpha.coreos.com/"
	change("nodes.yaml",
		"podCIDRs: [10.42.0.0/24]", `podCIDRs: [10.42.0.0/24, "fd00:42::/64"]`, "podCIDRs: [10.42.1.0/24]", `podCIDRs: [10.42.1.0/24, "fd00:42:0:1::/64"]`,
		"  - {type: InternalIP, address: 192.168.0.11}", "  - {type: InternalIP, address: 192.168.0.11}\n  - {type: InternalIP, address: \""+own6+"\"}",
		fla+"public-ip: 192.168.0.10", fla+"public-ip: 192.168.0.10\n"+fla+"public-ipv6: \""+node6+"\"\n"+fla+`backend-v6-data: '{"VNI":1,"VtepMAC":"`+mac6+`"}'`)
	change("kube-flannel.yaml", `"Network": "10.42.0.0/16",`, `"Network": "10.42.0.0/16", "IPv6Network": "fd00:42::/56", "EnableIPv6": true,`)
	eventually(t, "the peer is reached over both", func() error {
		r := culvertJSON[[]api.Route](t, n, "route")
		for _, r := range r {
			if r.Dst == "fd00:42::/64" && r.Kind == "vxlan" && r.Via == node6 && r.MAC == mac6 && !r.Unresolved {
				return nil
			}
		}
		return fmt.Errorf("routes %+v, status %+v", r, culvertJSON[api.Status](t, n, "status").Degraded)
	})
	ctx := context.Background()
	if _, err := c.CNI(ctx, n, a1, "DEL"); err != nil {
		t.Fatal(err)
	}
	out, err := c.CNI(ctx, n, a1, "ADD")
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	if err != nil || len(result.IPs) != 2 {
		t.Fatalf("ADD: %v: %s", err, out)
	}
	for _, got := range result.IPs {
		to := "10.42.0.7"
		if got.Address.Addr().Is6() {
			to = "fd00:42::7"
		}
		must(t, a1.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", to)
		transfer(t, a1.Netns, s1.Netns, to, 1, 1<<20)
		transfer(t, s1.Netns, a1.Netns, got.Address.Addr().String(), 1, 1<<20)
	}
	wants(t, n, "fdb", macServer+" dst 192.168.0.10 self permanent", mac6+" dst "+node6+" self permanent")
	wants(t, n, "neigh", "10.42.0.0 dev vxlan lladdr "+macServer+" PERMANENT", "fd00:42:: dev vxlan lladdr "+mac6+" PERMANENT")
	if s := culvertJSON[api.Status](t, n, "status"); s.Peers != 1 || s.MTU != 1450 || len(s.Degraded) != 0 {
		t.Errorf("status: %d peers, MTU %d, degraded %q", s.Peers, s.MTU, s.Degraded)
	}
}
