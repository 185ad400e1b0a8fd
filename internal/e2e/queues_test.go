package e2e

import (
	"context"
	"fmt"
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

// Pods live on when the number of workers changes, whether they were made with more
// queues than there are workers then, or with fewer.
func TestWorkerCountChanges(t *testing.T) {
	c := up(t, lab.Options{Interfaces: []string{"veth", "tap"}})
	n, b := c.Nodes[0], c.Nodes[1].Pods[0]
	restart := func(queues int) {
		t.Helper()
		if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the kernel has closed the sockets", func() error {
			_, err := netns(n.Netns, "ethtool", "-L", "eth0", "rx", fmt.Sprint(queues), "tx", fmt.Sprint(queues))
			return err
		})
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	check := func(workers int, queues ...int) {
		t.Helper()
		s := culvertJSON[api.Status](t, n, "status")
		if len(s.Workers) != workers || s.Pods != len(n.Pods) {
			t.Fatalf("%d workers, %d pods, degraded %q", len(s.Workers), s.Pods, s.Degraded)
		}
		for i, p := range n.Pods {
			pod := podNamed(t, n, p.Name)
			p.Addr = netip.MustParseAddr(pod.Addrs[0])
			if port := portNamed(t, n, pod.Port); port.Queues != queues[i] {
				t.Errorf("%s has %d queues, want %d", p.Name, port.Queues, queues[i])
			}
			transfer(t, p.Netns, b.Netns, b.Addr.String(), 8, 1<<18)
			transfer(t, b.Netns, p.Netns, p.Addr.String(), 8, 1<<18)
		}
		if len(s.Degraded) != 0 {
			t.Errorf("degraded: %q", s.Degraded)
		}
	}
	check(1, 1, 1)
	restart(2)
	check(2, 2, 2)
	for _, command := range []string{"DEL", "ADD"} {
		if _, err := c.CNI(context.Background(), n, n.Pods[0], command); err != nil {
			t.Fatal(err)
		}
	}
	check(2, 2, 2)
	restart(1)
	check(1, 2, 1)
}

// An uplink that changes under a running agent gets a port that knows it.
func TestUplinkChanges(t *testing.T) {
	c := up(t, lab.Options{})
	n, a, b := c.Nodes[0], c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
	before := portNamed(t, n, "eth0")
	became := func(what string, ok func(api.Port) bool) {
		t.Helper()
		eventually(t, what, func() error {
			for _, p := range culvertJSON[[]api.Port](t, n, "port") {
				if p.Name == "eth0" && ok(p) {
					return nil
				}
			}
			return fmt.Errorf("the port was %+v", before)
		})
		eventually(t, "the other node is reached", func() error {
			_, err := netns(a.Netns, "ping", "-n", "-c", "1", "-W", "1", b.Addr.String())
			return err
		})
		transfer(t, a.Netns, b.Netns, b.Addr.String(), 4, 1<<18)
	}
	must(t, n.Netns, "ip", "link", "set", "eth0", "mtu", "1480")
	became("the MTU is known", func(p api.Port) bool { return p.MTU == 1480 })
	must(t, n.Netns, "ip", "link", "set", "eth0", "address", "02:00:00:00:77:01")
	became("the MAC is known", func(p api.Port) bool { return p.MAC == "02:00:00:00:77:01" })
	if ports := culvertJSON[[]api.Port](t, n, "port"); len(ports) != 2+len(n.Pods) { // the uplink, the host, and the pods
		t.Errorf("%d ports", len(ports))
	}
}

// A node's address may be on any of its devices; only one that is on none is
// replaced by the uplink's, and that is told.
func TestNodeAddressOnLoopback(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1})
	n := c.Nodes[0]
	text := "apiVersion: v1\nkind: Node\nmetadata: {name: " + n.Name + "}\nspec: {podCIDRs: [" + n.PodCIDR.String() +
		"]}\nstatus:\n  addresses: [{type: InternalIP, address: 192.0.2.99}]\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(c.ManifestDir(), "nodes.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	local := func(want string, degraded bool) {
		t.Helper()
		eventually(t, "the VTEP is at "+want, func() error {
			s := culvertJSON[api.Status](t, n, "status")
			told := strings.Contains(strings.Join(s.Degraded, "\n"), "192.0.2.99")
			if s.VTEP == nil || s.VTEP.Local != want || told != degraded {
				return fmt.Errorf("%+v, degraded %q", s.VTEP, s.Degraded)
			}
			return nil
		})
	}
	local(n.Addr.String(), true)
	must(t, n.Netns, "ip", "addr", "add", "192.0.2.99/32", "dev", "lo")
	write(text + "\n") // instead of waiting for the resync
	local("192.0.2.99", false)
}

// A pod whose device is in another's hands when the agent starts is listed as
// detached, and attached when the device is free.
func TestDetachedPodIsTriedAgain(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Config: "xdp: {mode: generic}\n"})
	n, a, b := c.Nodes[0], c.Nodes[0].Pods[0], c.Nodes[0].Pods[1]
	port := podNamed(t, n, a.Name).Port
	if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another program is attached", func() error {
		_, err := netns(n.Netns, "ip", "link", "set", port, "xdpgeneric", "obj", "../../dataplane/xsk/steer_bpfel.o", "program", "steer_pod")
		return err
	})
	if err := c.StartAgent(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	if p := podNamed(t, n, a.Name); p.State != "detached" || p.Error == "" {
		t.Errorf("listed as %+v", p)
	}
	if s := culvertJSON[api.Status](t, n, "status"); !strings.Contains(strings.Join(s.Degraded, "\n"), a.Name+" is detached") {
		t.Errorf("degraded: %q", s.Degraded)
	}
	must(t, n.Netns, "ip", "link", "set", port, "xdpgeneric", "off")
	for range 3 { // the agent tries every ten seconds
		if time.Sleep(4 * time.Second); podNamed(t, n, a.Name).State == "ready" {
			break
		}
	}
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
}

func podNamed(t *testing.T, n *lab.Node, name string) api.Pod {
	t.Helper()
	for _, p := range culvertJSON[[]api.Pod](t, n, "pod") {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no pod %s", name)
	return api.Pod{}
}

func portNamed(t *testing.T, n *lab.Node, name string) api.Port {
	t.Helper()
	for _, p := range culvertJSON[[]api.Port](t, n, "port") {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no port %s", name)
	return api.Port{}
}

// A worker serves every queue of an uplink that has more of them than there are
// workers: no flow is left to the kernel.
func TestFewerWorkersThanQueues(t *testing.T) {
	c := up(t, lab.Options{Config: "workers: 1\nxdp: {mode: native}\n"})
	n, b := c.Nodes[0], c.Nodes[1].Pods[0]
	a := n.Pods[0]
	// Both ends of the wire: a native program wants as many receive queues as
	// the other end has transmit queues (drivers/net/veth.c, veth_set_channels).
	for _, n := range c.Nodes {
		if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.Nodes {
		eventually(t, "the kernel has closed the sockets", func() error {
			_, err := netns(n.Netns, "ethtool", "-L", "eth0", "rx", "2", "tx", "2")
			return err
		})
	}
	for _, n := range c.Nodes {
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	if p := portNamed(t, n, "eth0"); p.Queues != 2 || p.XDP.Mode != "native" {
		t.Fatalf("the uplink's port is %+v", p)
	}
	transfer(t, b.Netns, a.Netns, a.Addr.String(), 32, 1<<16)
	transfer(t, a.Netns, b.Netns, b.Addr.String(), 32, 1<<16)
	for range 32 { // each from a port of its own, and so of a flow of its own
		echoUDP(t, b.Netns, a.Netns, a.Addr.String(), 100)
	}
}
