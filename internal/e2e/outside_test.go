package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// world is a router behind the nodes' bridge and a host behind that, who know nothing of
// pods; lan is the router's address on the nodes' link.
type world struct{ router, lan, host string }

func outsideOf(t *testing.T, c *cluster) world {
	t.Helper()
	w := world{router: c.Bridge, lan: "192.168.50.254", host: c.Bridge + "-w"}
	must(t, w.router, "ip", "addr", "add", w.lan+"/24", "dev", "br0")
	must(t, w.router, "ip", "addr", "add", "fd50::fe/64", "dev", "br0", "nodad")
	must(t, w.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run("netns", "add", w.host)
	t.Cleanup(func() { run("netns", "del", w.host) })
	run("-n", w.router, "link", "add", "w0", "mtu", "1400", "type", "veth", "peer", "name", "w1", "mtu", "1400", "netns", w.host)
	must(t, w.router, "ip", "addr", "add", "203.0.113.1/24", "dev", "w0")
	must(t, w.router, "ip", "link", "set", "w0", "up")
	must(t, w.host, "ip", "addr", "add", "203.0.113.5/24", "dev", "w1")
	must(t, w.host, "ip", "link", "set", "w1", "up")
	must(t, w.host, "ip", "link", "set", "lo", "up")
	must(t, w.host, "ip", "route", "add", "default", "via", "203.0.113.1")
	return w
}

// dropInvalid is a rule that kube-proxy has in all its modes (KUBE-FORWARD, and filter-forward of
// pkg/proxy/nftables/proxier.go).
func dropInvalid(t *testing.T, n *lab.Node) {
	t.Helper()
	must(t, n.Netns, "nft", "table ip kpf { chain forward { type filter hook forward priority filter; ct state invalid counter drop; }; }")
}

const worldAddr = "203.0.113.5"

// Pods reach the world with the node's address: by the gateway, and on the nodes' own
// link; whatever they send; with the errors of routers on the way.
func TestPodsReachTheWorld(t *testing.T) {
	for _, iface := range []string{"veth", "tap"} {
		t.Run(iface, func(t *testing.T) {
			c := up(t, lab.Options{Bridge: true, Interfaces: []string{iface}})
			w := outsideOf(t, c)
			node, pod := c.Nodes[0], c.Nodes[0].Pods[0]
			dropInvalid(t, node)
			eventually(t, "the gateway", func() error {
				_, err := netns(pod.Netns, "ping", "-n", "-c", "1", "-W", "1", worldAddr)
				return err
			})
			if got := seenFrom(t, pod.Netns, w.host, worldAddr); got != node.Addr {
				t.Errorf("the world sees %s, want the node's %s", got, node.Addr)
			}
			if got := seenFrom(t, pod.Netns, w.router, w.lan); got != node.Addr {
				t.Errorf("a host of the nodes' link sees %s, want the node's %s", got, node.Addr)
			}
			transfer(t, pod.Netns, w.host, worldAddr, 4, bulk/4)
			transfer(t, pod.Netns, w.router, w.lan, 4, bulk/8)
			echoUDP(t, pod.Netns, w.host, worldAddr, 1, 100, 1372)
			for _, to := range []string{worldAddr, w.lan} {
				must(t, pod.Netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", to)
			}
			out, err := netns(pod.Netns, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1400", worldAddr)
			if err == nil || !strings.Contains(out, "mtu = 1400") {
				t.Errorf("a packet that the router cannot forward: %v\n%s", err, out)
			}
			out = must(t, pod.Netns, "traceroute", "-n", "-q", "1", "-w", "2", "-m", "4", worldAddr)
			for _, hop := range []string{node.Addr.String(), w.lan, worldAddr} {
				if !strings.Contains(out, " "+hop+" ") {
					t.Errorf("%s is missing on the way:\n%s", hop, out)
				}
			}
			if _, err := dial(pod.Netns, worldAddr+":9"); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a closed port: %v", err)
			}
			flows := culvert(t, node, "flow", "--dst", worldAddr)
			if !strings.Contains(flows, "dst="+node.Addr.String()) {
				t.Errorf("culvert flow does not show the translation:\n%s", flows)
			}
		})
	}
}

// The node's own connections by ports of the pods' range go on: what is no pod's is the
// node's. And many pods' connections to one destination each have a port.
func TestNodeAndPodsShareTheAddress(t *testing.T) {
	c := up(t, lab.Options{Bridge: true, Config: "nat: {ports: 61000-61099}\n"})
	w := outsideOf(t, c)
	node := c.Nodes[0]
	var to [2]string // for the node, and for pods: to one destination a port is one's own
	for i := range to {
		l, port := listen(t, w.host)
		to[i] = net.JoinHostPort(worldAddr, fmt.Sprint(port))
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, c.RemoteAddr())
			}
		}()
	}
	eventually(t, "the gateway", func() error {
		_, err := netns(node.Pods[0].Netns, "ping", "-n", "-c", "1", "-W", "1", worldAddr)
		return err
	})
	said := func(c net.Conn) netip.AddrPort {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return netip.MustParseAddrPort(strings.TrimSpace(string(buf[:n])))
	}
	var own net.Conn
	if err := inside(node.Netns, func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 61005}, Timeout: 5 * time.Second}
		own, err = d.Dial("tcp", to[0])
		return err
	}); err != nil {
		t.Fatalf("the node from a port of the pods': %v", err)
	}
	defer own.Close()
	if got := said(own); got.Port() != 61005 {
		t.Errorf("the node is seen at %s", got)
	}
	seen := map[uint16]bool{}
	for i := range 60 {
		pod := node.Pods[i%2]
		conn, err := dial(pod.Netns, to[1])
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		got := said(conn)
		if got.Addr() != node.Addr || got.Port() < 61000 || got.Port() > 61099 || seen[got.Port()] {
			t.Errorf("connection %d is seen as %s", i, got)
		}
		seen[got.Port()] = true
	}
	if _, err := fmt.Fprintln(own, "still here"); err != nil {
		t.Errorf("the node's own connection: %v", err)
	}
}

// With nat.outgoing off, and to excluded destinations, pods keep their addresses: who has
// a route to them answers them.
func TestPodsKeepTheirAddress(t *testing.T) {
	for _, config := range []string{"nat: {outgoing: off}\n", "nat: {exclude: [203.0.113.0/24]}\n"} {
		t.Run(config, func(t *testing.T) {
			c := up(t, lab.Options{Bridge: true, Config: config})
			w := outsideOf(t, c)
			node, pod := c.Nodes[0], c.Nodes[0].Pods[0]
			must(t, w.router, "ip", "route", "add", node.PodCIDR.String(), "via", node.Addr.String())
			eventually(t, "the gateway", func() error {
				_, err := netns(pod.Netns, "ping", "-n", "-c", "1", "-W", "1", worldAddr)
				return err
			})
			if got := seenFrom(t, pod.Netns, w.host, worldAddr); got != pod.Addr {
				t.Errorf("the world sees %s, want the pod's %s", got, pod.Addr)
			}
			if got := seenFrom(t, w.host, pod.Netns, pod.Addr.String()); got != netip.MustParseAddr(worldAddr) {
				t.Errorf("the pod sees %s", got)
			}
			transfer(t, pod.Netns, w.host, worldAddr, 4, bulk/8)
			transfer(t, w.host, pod.Netns, pod.Addr.String(), 4, bulk/8)
		})
	}
}
