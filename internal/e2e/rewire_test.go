package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// The lab joins two nodes by a wire. These helpers put something else in its place,
// while no agent runs.

// stopped runs f while no agent of the lab runs.
func (c *cluster) stopped(f func()) {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Kind == lab.Culvert {
			if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	f()
	for _, n := range c.Nodes {
		if n.Kind == lab.Culvert {
			if err := c.StartAgent(context.Background(), n); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// space makes a network namespace that goes with the test, after the agents, whose
// uplinks may end there.
func (c *cluster) space(what string) string {
	c.t.Helper()
	name := c.Name + "-" + what
	run(c.t, "ip", "netns", "add", name)
	c.t.Cleanup(func() {
		for _, n := range c.Nodes {
			if n.Kind == lab.Culvert {
				c.stopCleanly(n)
			}
		}
		run(c.t, "ip", "netns", "del", name)
	})
	must(c.t, name, "ip", "link", "set", "lo", "up")
	return name
}

// join makes a veth pair of an MTU between two namespaces.
func (c *cluster) join(a, aName, b, bName string, mtu int) {
	c.t.Helper()
	must(c.t, a, "ip", "link", "add", aName, "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", bName, "mtu", fmt.Sprint(mtu), "netns", b)
	must(c.t, a, "ip", "link", "set", aName, "up")
	must(c.t, b, "ip", "link", "set", bName, "up")
}

// readdress gives the nodes other addresses in the manifests.
func (c *cluster) readdress(addrs ...string) {
	c.t.Helper()
	file := filepath.Join(c.ManifestDir(), "nodes.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	s := string(text)
	for i, n := range c.Nodes {
		was := fmt.Sprintf("InternalIP, address: %q", n.Addr)
		if !strings.Contains(s, was) {
			c.t.Fatalf("%s does not say %s", file, was)
		}
		s = strings.Replace(s, was, fmt.Sprintf("InternalIP, address: %q", addrs[i]), 1)
	}
	if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// route puts two routers between the first two nodes, with a link of an MTU of their
// own: a ─1500─ r1 ─mtu─ r2 ─1500─ b. With v6 the nodes' addresses are fd00:50:a::1 and
// fd00:50:b::1, else they stay. It returns the routers' namespaces, and the address of
// the first one, which errors about a's packets come from.
func (c *cluster) route(mtu int, v6 bool) (r1, r2, addr string) {
	c.t.Helper()
	a, b := c.Nodes[0], c.Nodes[1]
	r1, r2 = c.space("r1"), c.space("r2")
	c.stopped(func() {
		must(c.t, a.Netns, "ip", "link", "del", nic0)
		c.join(r1, "node", a.Netns, nic0, 1500)
		c.join(r2, "node", b.Netns, nic0, 1500)
		c.join(r1, "mid", r2, "mid", mtu)
		if v6 {
			c.route6(r1, r2)
			addr = "fd00:50:a::fe"
			return
		}
		addr = "192.168.50.101"
		for i, r := range []string{r1, r2} {
			here, there := c.Nodes[i], c.Nodes[1-i]
			must(c.t, r, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.node.proxy_arp=1", "net.ipv4.neigh.node.proxy_delay=0")
			must(c.t, r, "ip", "addr", "add", fmt.Sprintf("192.168.50.%d/32", 101+i), "dev", "lo")
			must(c.t, r, "ip", "addr", "add", fmt.Sprintf("172.16.0.%d/30", 1+i), "dev", "mid")
			must(c.t, r, "ip", "route", "add", here.Addr.String(), "dev", "node", "src", fmt.Sprintf("192.168.50.%d", 101+i))
			must(c.t, r, "ip", "route", "add", there.Addr.String(), "via", fmt.Sprintf("172.16.0.%d", 2-i))
			must(c.t, here.Netns, "ip", "addr", "add", here.Addr.String()+"/24", "dev", nic0)
			must(c.t, here.Netns, "ip", "route", "add", "default", "via", "192.168.50.254")
			if here.Kind != lab.Culvert {
				c.retunnel(here)
			}
		}
	})
	return r1, r2, addr
}

func (c *cluster) route6(r1, r2 string) {
	c.t.Helper()
	for i, r := range []string{r1, r2} {
		here := c.Nodes[i].Netns
		net, other := fmt.Sprintf("fd00:50:%c::", 'a'+i), fmt.Sprintf("fd00:50:%c::", 'b'-i)
		must(c.t, r, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
		must(c.t, r, "ip", "addr", "add", net+"fe/64", "dev", "node", "nodad")
		must(c.t, r, "ip", "addr", "add", fmt.Sprintf("fd00:50::%d/64", 1+i), "dev", "mid", "nodad")
		must(c.t, r, "ip", "route", "add", other+"/64", "via", fmt.Sprintf("fd00:50::%d", 2-i))
		must(c.t, here, "ip", "addr", "add", net+"1/64", "dev", nic0, "nodad")
		must(c.t, here, "ip", "route", "add", "default", "via", net+"fe")
	}
	c.readdress("fd00:50:a::1", "fd00:50:b::1")
}

// run runs a command and fails the test if it fails.
func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
