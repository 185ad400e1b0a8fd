package e2e

import (
	"fmt"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// bulk is the size of the transfer that must arrive whole: 100 MB, and less where
// the race detector slows the agents down tenfold.
const bulk = (100 << 20) / slower

// Pods of two nodes, the second of each kind, exchange everything in both
// directions with the offloads that Linux gives them.
func TestPodsExchangeEverything(t *testing.T) {
	for _, peer := range lab.Kinds {
		t.Run(string(peer), func(t *testing.T) {
			c := up(t, lab.Options{Peer: peer})
			a, local, b := c.Nodes[0].Pods[0], c.Nodes[0].Pods[1], c.Nodes[1].Pods[0]
			for _, way := range []struct{ from, to *lab.Pod }{{a, b}, {b, a}, {a, local}} {
				from, to, addr := way.from.Netns, way.to.Netns, way.to.Addr.String()
				t.Run(fmt.Sprintf("%s to %s", way.from.Name, way.to.Name), func(t *testing.T) {
					for _, size := range []string{"56", "500", "1000", "1300", "1421", "1422"} {
						must(t, from, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "2", "-M", "do", "-s", size, addr)
					}
					transfer(t, from, to, addr, 1, bulk)
					transfer(t, from, to, addr, 64, bulk/100)
					echoUDP(t, from, to, addr, 1, 100, 1400, 1422, 1423, 2000, 9000, 30000, 65000)
				})
			}
		})
	}
}

// A packet that is too big is answered with the pod MTU, and TCP through the
// same narrowing works.
func TestPathMTU(t *testing.T) {
	c := up(t, lab.Options{})
	a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
	must(t, a.Netns, "ip", "link", "set", "eth0", "mtu", "1500")
	out, err := netns(a.Netns, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", b.Addr.String())
	if err == nil || !strings.Contains(out, "mtu = 1450") {
		t.Errorf("ping of 1500 bytes: %v\n%s", err, out)
	}
	if out := must(t, a.Netns, "ip", "route", "get", b.Addr.String()); !strings.Contains(out, "mtu 1450") {
		t.Errorf("the kernel did not learn the path MTU: %s", out)
	}
	must(t, a.Netns, "ip", "route", "flush", "cache")
	transfer(t, a.Netns, b.Netns, b.Addr.String(), 1, 4<<20)
	transfer(t, b.Netns, a.Netns, a.Addr.String(), 1, 4<<20)
}

func TestTraceroute(t *testing.T) {
	c := up(t, lab.Options{})
	a, local, b := c.Nodes[0].Pods[0], c.Nodes[0].Pods[1], c.Nodes[1].Pods[0]
	hops := func(to *lab.Pod) (list []string) {
		out := must(t, a.Netns, "traceroute", "-n", "-q", "1", "-w", "2", "-m", "5", to.Addr.String())
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && f[0] != "traceroute" {
				list = append(list, f[1])
			}
		}
		return list
	}
	if got, want := hops(b), []string{c.Nodes[0].Addr.String(), c.Nodes[1].Addr.String(), b.Addr.String()}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("across nodes: %v, want %v", got, want)
	}
	if got, want := hops(local), []string{c.Nodes[0].Addr.String(), local.Addr.String()}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("on one node: %v, want %v", got, want)
	}
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", "169.254.1.1")
	if out := must(t, a.Netns, "ip", "neigh", "show", "169.254.1.1"); !strings.Contains(out, "ee:ee:ee:ee:ee:ee") {
		t.Errorf("the gateway's neighbour entry: %s", out)
	}
}
