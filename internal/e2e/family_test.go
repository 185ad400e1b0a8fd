package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// Pods with addresses of both families exchange everything with each other, on one
// node and across two, the second of each kind, over either underlay.
func TestBothFamiliesExchangeEverything(t *testing.T) {
	for _, underlay := range []lab.Family{lab.IPv4, lab.IPv6} {
		for _, peer := range lab.Kinds {
			t.Run(fmt.Sprintf("%s over %s", peer, underlay), func(t *testing.T) {
				c := up(t, lab.Options{Peer: peer, Family: lab.Dual, Underlay: underlay, Interfaces: []string{"veth", "veth", "tap"}, Pods: 3})
				a, local, tap, b := c.Nodes[0].Pods[0], c.Nodes[0].Pods[1], c.Nodes[0].Pods[2], c.Nodes[1].Pods[0]
				for _, way := range []struct{ from, to *lab.Pod }{{a, b}, {b, a}, {a, local}, {tap, b}, {b, tap}, {a, tap}} {
					for i, addr := range way.to.Addrs {
						if addr.Is4() && underlay == lab.IPv4 {
							continue // TestPodsExchangeEverything
						}
						t.Run(fmt.Sprintf("%s to %s IPv%d", way.from.Name, way.to.Name, 4+2*i), func(t *testing.T) {
							exchange(t, c, way.from, way.to, addr)
						})
					}
				}
			})
		}
	}
}

// exchange sends pings up to the pods' MTU, TCP and UDP.
func exchange(t *testing.T, c *cluster, from, to *lab.Pod, addr netip.Addr) {
	t.Helper()
	most := largestPing(c, addr)
	for _, size := range []int{8, 56, 500, 1300, most - 1, most} {
		must(t, from.Netns, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "2", "-M", "do", "-s", fmt.Sprint(size), addr.String())
	}
	transfer(t, from.Netns, to.Netns, addr.String(), 1, bulk/4)
	transfer(t, from.Netns, to.Netns, addr.String(), 16, bulk/100)
	echoUDP(t, from.Netns, to.Netns, addr.String(), 1, 100, 1300, most, most+1, 2000, 9000, 30000, 65000)
}

// largestPing is the data of the largest echo request that fits the pods' MTU.
func largestPing(c *cluster, to netip.Addr) int {
	if to.Is6() {
		return c.PodMTU() - 48
	}
	return c.PodMTU() - 28
}

// Pods without IPv4 are configured as the interface of the CNI plugin has it, find
// the gateway by neighbour discovery alone and reach everybody.
func TestPodsOfIPv6Alone(t *testing.T) {
	for _, underlay := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(string(underlay), func(t *testing.T) {
			c := up(t, lab.Options{Family: lab.IPv6, Underlay: underlay, Interfaces: []string{"veth", "tap"}})
			a, local, b := c.Nodes[0].Pods[0], c.Nodes[0].Pods[1], c.Nodes[1].Pods[0]
			for _, p := range []*lab.Pod{a, local} {
				out := must(t, p.Netns, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
				if !strings.Contains(out, p.Addr.String()+"/128") || strings.Contains(out, "tentative") || strings.Count(out, "inet6") != 1 {
					t.Errorf("addresses of %s:\n%s", p.Name, out)
				}
				if out := must(t, p.Netns, "ip", "-4", "addr", "show", "dev", "eth0"); out != "" {
					t.Errorf("IPv4 addresses of %s:\n%s", p.Name, out)
				}
				if out := must(t, p.Netns, "ip", "-6", "route", "show", "default"); !strings.HasPrefix(out, "default via fe80::ecee:eeff:feee:eeee dev eth0") {
					t.Errorf("default route of %s: %s", p.Name, out)
				}
			}
			for _, to := range []*lab.Pod{local, b} {
				exchange(t, c, a, to, to.Addr)
			}
			// Before anybody else has talked: the gateway answers its solicitation, also
			// when it is asked whether it is still there, and pings of its link-local address.
			must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", "fe80::ecee:eeff:feee:eeee%eth0")
			eventually(t, "the gateway's neighbour entry", func() error {
				out := must(t, a.Netns, "ip", "-6", "neigh", "show", "fe80::ecee:eeff:feee:eeee")
				if !strings.Contains(out, "lladdr ee:ee:ee:ee:ee:ee") || strings.Contains(out, "FAILED") {
					return fmt.Errorf("it is %s", out)
				}
				return nil
			})
		})
	}
}

// A packet that is too big is answered with the pods' MTU, in both families and
// whatever the underlay, and TCP through the same narrowing works.
func TestPathMTUOfBothFamilies(t *testing.T) {
	for _, underlay := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(string(underlay), func(t *testing.T) {
			c := up(t, lab.Options{Family: lab.Dual, Underlay: underlay})
			a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
			must(t, a.Netns, "ip", "link", "set", "eth0", "mtu", "1500")
			for _, addr := range b.Addrs {
				told, route, size := "mtu = ", "mtu ", "1472"
				if addr.Is6() {
					told, size = "mtu=", "1452"
				}
				out, err := netns(a.Netns, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", size, addr.String())
				if err == nil || !strings.Contains(out, fmt.Sprint(told, c.PodMTU())) && !strings.Contains(out, fmt.Sprint("mtu: ", c.PodMTU())) {
					t.Errorf("ping of 1500 bytes to %s: %v\n%s", addr, err, out)
				}
				if out := must(t, a.Netns, "ip", "route", "get", addr.String()); !strings.Contains(out, fmt.Sprint(route, c.PodMTU())) {
					t.Errorf("the kernel did not learn the path MTU to %s: %s", addr, out)
				}
				transfer(t, a.Netns, b.Netns, addr.String(), 1, 4<<20)
				must(t, a.Netns, "ip", "route", "flush", "cache")
				must(t, a.Netns, "ip", "-6", "route", "flush", "cache")
				transfer(t, a.Netns, b.Netns, addr.String(), 1, 4<<20)
			}
		})
	}
}

// Each node on the way answers for itself: by its address in the underlay where
// that is of the packet's family, else by its tunnel address.
func TestTracerouteOfBothFamilies(t *testing.T) {
	for _, underlay := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(string(underlay), func(t *testing.T) {
			c := up(t, lab.Options{Family: lab.Dual, Underlay: underlay})
			a, local, b := c.Nodes[0].Pods[0], c.Nodes[0].Pods[1], c.Nodes[1].Pods[0]
			by := func(n *lab.Node, i int) netip.Addr {
				if addr := n.PodCIDRs[i].Addr(); addr.Is4() != n.Addr.Is4() {
					return addr
				}
				return n.Addr
			}
			for i := range b.Addrs {
				want := []netip.Addr{by(c.Nodes[0], i), by(c.Nodes[1], i), b.Addrs[i]}
				if got := hops(t, a, b.Addrs[i]); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("across nodes: %v, want %v", got, want)
				}
				want = []netip.Addr{by(c.Nodes[0], i), local.Addrs[i]}
				if got := hops(t, a, local.Addrs[i]); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("on one node: %v, want %v", got, want)
				}
				// Who answers is there.
				must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", by(c.Nodes[0], i).String())
			}
		})
	}
}

// hops are the addresses that a traceroute shows.
func hops(t *testing.T, from *lab.Pod, to netip.Addr) (list []string) {
	t.Helper()
	out := must(t, from.Netns, "traceroute", "-n", "-q", "1", "-w", "2", "-m", "5", to.String())
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] != "traceroute" {
			list = append(list, f[1])
		}
	}
	return list
}

// Uplinks with an XDP program of their own steer tunnels over IPv6 as the intake does,
// and the host's own traffic over IPv6 still passes.
func TestUnderlay6WithXDP(t *testing.T) {
	for _, mode := range []string{"generic", "native"} {
		t.Run(mode, func(t *testing.T) {
			c := up(t, lab.Options{Peer: lab.Calico, Family: lab.Dual, Underlay: lab.IPv6, Config: "xdp: {mode: " + mode + "}\n"})
			a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
			for i := range b.Addrs {
				exchange(t, c, a, b, b.Addrs[i])
				exchange(t, c, b, a, a.Addrs[i])
			}
			must(t, c.Nodes[0].Netns, "ping", "-n", "-c", "1", "-W", "2", c.Nodes[1].Addr.String())
		})
	}
}
