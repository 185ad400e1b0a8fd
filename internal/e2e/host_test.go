package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// seenFrom is who connects to a listener in namespace to, as it sees him.
func seenFrom(t *testing.T, from, to, addr string) netip.Addr {
	t.Helper()
	l, port := listen(t, to)
	defer l.Close()
	seen := make(chan net.Addr, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			seen <- c.RemoteAddr()
			c.Close()
		}
	}()
	c, err := dial(from, net.JoinHostPort(addr, fmt.Sprint(port)))
	if err != nil {
		t.Fatalf("%s to %s in %s: %v", from, addr, to, err)
	}
	defer c.Close()
	return (<-seen).(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// The node and pods reach each other, in both directions and across nodes, with the
// addresses that a node of the kernel's would see and show.
func TestNodeAndPods(t *testing.T) {
	for _, o := range []lab.Options{{}, {Peer: lab.Flannel}, {Peer: lab.Calico}, {Encap: "none"}, {Family: lab.Dual}, {Interfaces: []string{"tap"}}} {
		t.Run(fmt.Sprintf("%s%s%s%s", o.Peer, o.Encap, o.Family, strings.Join(o.Interfaces, "")), func(t *testing.T) {
			c := up(t, o)
			node, peer := c.Nodes[0], c.Nodes[1]
			local, remote := node.Pods[0], peer.Pods[0]
			for i := range local.Addrs {
				tunnel := node.PodCIDRs[i].Addr()
				if got := seenFrom(t, node.Netns, local.Netns, local.Addrs[i].String()); got != tunnel {
					t.Errorf("the node's own pod sees %s, want %s", got, tunnel)
				}
				if got := seenFrom(t, node.Netns, remote.Netns, remote.Addrs[i].String()); got != tunnel {
					t.Errorf("the other node's pod sees %s, want %s", got, tunnel)
				}
			}
			if got := seenFrom(t, local.Netns, node.Netns, node.Addr.String()); got != local.Addr {
				t.Errorf("the node sees %s, want its pod %s", got, local.Addr)
			}
			if got := seenFrom(t, local.Netns, peer.Netns, peer.Addr.String()); got != local.Addr {
				t.Errorf("the other node sees %s, want the pod %s", got, local.Addr)
			}
			seenFrom(t, peer.Netns, local.Netns, local.Addr.String())
			seenFrom(t, remote.Netns, node.Netns, node.Addr.String())

			transfer(t, node.Netns, local.Netns, local.Addr.String(), 4, bulk/4)
			transfer(t, local.Netns, node.Netns, node.Addr.String(), 4, bulk/4)
			transfer(t, node.Netns, remote.Netns, remote.Addr.String(), 4, bulk/4)
			transfer(t, remote.Netns, node.Netns, node.PodCIDR.Addr().String(), 4, bulk/4)
			echoUDP(t, node.Netns, remote.Netns, remote.Addr.String(), 1, 1400, 3000, 30000)
			for _, size := range []string{"56", "1422"} {
				must(t, node.Netns, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "2", "-M", "do", "-s", size, remote.Addr.String())
				must(t, local.Netns, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "2", "-M", "do", "-s", size, node.Addr.String())
			}
			if out := must(t, node.Netns, "ip", "-d", "link", "show", "culvert0"); !strings.Contains(out, fmt.Sprintf("mtu %d", c.PodMTU())) {
				t.Errorf("culvert0: %s", out)
			}
		})
	}
}

// service is a Service whose kube-proxy is a rule in the node's namespace.
func service(t *testing.T, c *cluster, n *lab.Node, vip string, port int, endpoint string, target int) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec: {clusterIP: %s, clusterIPs: [%s], ports: [{port: %d}]}\n", vip, vip, port)
	if err := os.WriteFile(filepath.Join(c.ManifestDir(), "service.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	rules := fmt.Sprintf(`
		table ip kp
		delete table ip kp
		table ip kp {
			chain pre { type nat hook prerouting priority dstnat; ip daddr %[1]s tcp dport %[2]d dnat to %[3]s:%[4]d; fib daddr type local tcp dport 30080 meta mark set 0x4000 dnat to %[3]s:%[4]d; }
			chain out { type nat hook output priority -100; ip daddr %[1]s tcp dport %[2]d meta mark set 0x4000 dnat to %[3]s:%[4]d; }
			chain post { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; ip saddr %[3]s ip daddr %[3]s masquerade; }
		}`, vip, port, endpoint, target)
	file := filepath.Join(t.TempDir(), "kp.nft")
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, n.Netns, "nft", "-f", file)
	eventually(t, "the Service's route", func() error {
		for _, r := range culvertJSON[[]api.Route](t, n, "route", "--all") {
			if r.Dst == vip+"/32" && r.Dev == "culvert0" {
				return nil
			}
		}
		return fmt.Errorf("there is none")
	})
}

// A Service through the node's kube-proxy: pods reach endpoints of this node, of another,
// and themselves; the node does; and who comes from outside by a NodePort.
func TestServiceThroughKubeProxy(t *testing.T) {
	c := up(t, lab.Options{})
	node, peer := c.Nodes[0], c.Nodes[1]
	client := node.Pods[0]
	const vip = "10.96.0.10"
	hostNetwork := &lab.Pod{Name: "host-network", Netns: peer.Netns, Addr: peer.Addr}
	for _, endpoint := range []*lab.Pod{node.Pods[1], peer.Pods[0], client, hostNetwork} {
		t.Run(endpoint.Name, func(t *testing.T) {
			l, port := listen(t, endpoint.Netns)
			seen := make(chan netip.Addr, 8)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					seen <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
					buf := make([]byte, 1<<16)
					n, _ := c.Read(buf)
					_, _ = c.Write(buf[:n])
					c.Close()
				}
			}()
			defer l.Close()
			service(t, c, node, vip, 80, endpoint.Addr.String(), port)
			talk := func(from, to string) netip.Addr {
				t.Helper()
				c, err := dial(from, to)
				if err != nil {
					t.Fatalf("%s to %s: %v", from, to, err)
				}
				defer c.Close()
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 5)
				if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
					t.Fatalf("%s to %s: %q, %v", from, to, buf[:n], err)
				}
				return <-seen
			}
			want := client.Addr // kept, but for itself, who would answer itself, and outside of the pods' network
			switch endpoint {
			case client:
				want = node.PodCIDR.Addr()
			case hostNetwork:
				want = node.Addr
			}
			if got := talk(client.Netns, vip+":80"); got != want {
				t.Errorf("the endpoint sees %s, want %s", got, want)
			}
			talk(node.Netns, vip+":80")
			if got := talk(peer.Netns, node.Addr.String()+":30080"); got != node.PodCIDR.Addr() && endpoint != hostNetwork {
				t.Errorf("by NodePort the endpoint sees %s, want the node's tunnel address", got)
			}
			talk(client.Netns, node.Addr.String()+":30080")
		})
	}
}

// culvert0 outlives the agent, is made again when somebody deletes it, and follows
// what is changed on it.
func TestHostDeviceIsKept(t *testing.T) {
	c := up(t, lab.Options{})
	node, local := c.Nodes[0], c.Nodes[0].Pods[0]
	index := must(t, node.Netns, "cat", "/sys/class/net/culvert0/ifindex")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := c.StopAgent(node, signal); err != nil {
			t.Fatal(err)
		}
		if out := must(t, node.Netns, "ip", "route", "show", "dev", "culvert0"); !strings.Contains(out, node.PodCIDR.String()) || !strings.Contains(out, c.Nodes[1].PodCIDR.String()) {
			t.Errorf("after the agent's end the routes are:\n%s", out)
		}
		if err := c.StartAgent(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		if now := must(t, node.Netns, "cat", "/sys/class/net/culvert0/ifindex"); now != index {
			t.Errorf("culvert0 is another device: %s, was %s", now, index)
		}
		seenFrom(t, node.Netns, local.Netns, local.Addr.String())
	}
	must(t, node.Netns, "ip", "link", "del", "culvert0")
	eventually(t, "culvert0 to be made again", func() error {
		_, err := netns(node.Netns, "ping", "-n", "-c", "1", "-W", "1", local.Addr.String())
		return err
	})
	must(t, node.Netns, "ip", "addr", "flush", "dev", "culvert0")
	must(t, node.Netns, "ip", "addr", "add", "192.0.2.77/32", "dev", "culvert0")
	if err := c.StopAgent(node, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAgent(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the addresses of before", func() error {
		out := must(t, node.Netns, "ip", "-4", "-br", "addr", "show", "culvert0")
		if !strings.Contains(out, node.PodCIDR.Addr().String()+"/32") || strings.Contains(out, "192.0.2.77") {
			return fmt.Errorf("culvert0: %s", out)
		}
		return nil
	})
}

// A connection to a Service lives through a restart even if the endpoint is the first to
// speak again: its answer goes by the node's stack, as before.
func TestServiceOverARestart(t *testing.T) {
	c := up(t, lab.Options{})
	node, peer := c.Nodes[0], c.Nodes[1]
	const vip = "10.96.0.10"
	for _, endpoint := range []*lab.Pod{node.Pods[1], peer.Pods[0]} {
		t.Run(endpoint.Name, func(t *testing.T) {
			l, port := listen(t, endpoint.Netns)
			service(t, c, node, vip, 80, endpoint.Addr.String(), port)
			conn, err := dial(node.Pods[0].Netns, vip+":80")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			say := func(from, to net.Conn, what string) {
				t.Helper()
				if _, err := io.WriteString(from, what); err != nil {
					t.Fatal(err)
				}
				to.SetReadDeadline(time.Now().Add(20 * time.Second))
				buf := make([]byte, len(what))
				if _, err := io.ReadFull(to, buf); err != nil || string(buf) != what {
					t.Fatalf("%q, %v; want %q", buf, err, what)
				}
			}
			say(conn, server, "hello")
			say(server, conn, "good day")
			if err := c.StopAgent(node, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := c.StartAgent(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			say(server, conn, "news")
			say(conn, server, "thanks")
		})
	}
}
