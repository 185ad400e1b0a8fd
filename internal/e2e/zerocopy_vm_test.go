//go:build vm

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"culvert/ctrl/api"
	"culvert/internal/lab"
	"culvert/internal/vm"
)

// These tests run inside a virtual machine (make test-vm), whose NICs are the
// nodes' uplinks: virtio-net, with AF_XDP zero copy.

// nicQueues is how many queue pairs the nodes' NICs have in use: all of them, so
// that virtio-net has none to spare for XDP, where it would receive as well.
const nicQueues = vm.Queues

// nics are the hardware addresses of the nodes' uplinks.
func nics() []string { return vm.NICs[:] }

// prepareNICs makes the machine's NICs ready to be uplinks.
func prepareNICs(t *testing.T) { setNICQueues(t, nicQueues) }

// setNICQueues sets how many of the NICs' queue pairs are in use.
func setNICQueues(t *testing.T, queues int) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if a := l.Attrs(); slices.Contains(nics(), a.HardwareAddr.String()) {
			out, err := exec.Command("ethtool", "-L", a.Name, "combined", fmt.Sprint(queues)).CombinedOutput()
			if err != nil && !strings.Contains(string(out), "unmodified") {
				t.Fatalf("queues of %s: %v: %s", a.Name, err, out)
			}
		}
	}
}

// upOnNICs is up with the machine's NICs as uplinks.
func upOnNICs(t *testing.T, opts lab.Options) *cluster {
	t.Helper()
	prepareNICs(t)
	opts.NICs = nics()
	return up(t, opts)
}

// traffic is a little of everything, both ways.
func (c *cluster) traffic(a, b *lab.Pod, full int) {
	c.t.Helper()
	for _, way := range []struct{ from, to *lab.Pod }{{a, b}, {b, a}} {
		from, to, addr := way.from.Netns, way.to.Netns, way.to.Addr.String()
		for _, size := range []int{0, 56, 1000, full - 28} {
			must(c.t, from, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", "-M", "do", "-s", fmt.Sprint(size), addr)
		}
		must(c.t, from, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", "-s", "4000", addr)
		echoUDP(c.t, from, to, addr, 1, 100, full-28, full-27, 2000, 9000)
		transfer(c.t, from, to, addr, 1, 2<<20)
		transfer(c.t, from, to, addr, 8, 32<<10)
	}
}

// Pods of two nodes talk over zero-copy uplinks, to a node of ours and to a
// kernel's VXLAN.
func TestVMZeroCopyPods(t *testing.T) {
	for _, peer := range []lab.Kind{lab.Culvert, lab.Flannel} {
		t.Run(string(peer), func(t *testing.T) {
			c := upOnNICs(t, lab.Options{Peer: peer, Pods: 1, Config: "xdp: {mode: native, zeroCopy: on}\n"})
			for _, n := range c.Nodes {
				if n.Kind != lab.Culvert {
					continue
				}
				if p := portNamed(t, n, nic0); p.XDP.Mode != "native" || !p.XDP.ZeroCopy || p.Queues != nicQueues {
					t.Errorf("the uplink of %s is %+v", n.Name, p)
				}
				if s := culvertJSON[api.Status](t, n, "status"); len(s.Degraded) != 0 {
					t.Errorf("%s is degraded: %q", n.Name, s.Degraded)
				}
			}
			c.traffic(c.Nodes[0].Pods[0], c.Nodes[1].Pods[0], 1450)
		})
	}
}

// By default an uplink that can do zero copy does.
func TestVMZeroCopyIsTheDefault(t *testing.T) {
	c := upOnNICs(t, lab.Options{Pods: 1, Peer: lab.Flannel})
	if p := portNamed(t, c.Nodes[0], nic0); p.XDP.Mode != "native" || !p.XDP.ZeroCopy {
		t.Errorf("the uplink is %+v", p)
	}
	must(t, c.Nodes[0].Pods[0].Netns, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", c.Nodes[1].Pods[0].Addr.String())
}

// With queue pairs to spare virtio-net would receive on queues that nobody serves: the
// uplink is not taken in native mode then.
func TestVMSpareQueues(t *testing.T) {
	prepareNICs(t)
	setNICQueues(t, 1)
	c := up(t, lab.Options{Pods: 1, Peer: lab.Flannel, NICs: nics()})
	if p := portNamed(t, c.Nodes[0], nic0); p.XDP.Mode != "generic" || p.XDP.ZeroCopy {
		t.Errorf("the uplink is %+v", p)
	}
	c.traffic(c.Nodes[0].Pods[0], c.Nodes[1].Pods[0], 1450)
}

// The uplink goes down and up, the agent ends in order and is killed, and starts
// again: traffic goes on each time.
func TestVMZeroCopySurvives(t *testing.T) {
	c := upOnNICs(t, lab.Options{Pods: 1, Peer: lab.Flannel, Config: "xdp: {mode: native, zeroCopy: on}\n"})
	n, a, b := c.Nodes[0], c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
	again := func(what string) {
		t.Helper()
		eventually(t, what, func() error {
			_, err := netns(a.Netns, "ping", "-n", "-c", "1", "-W", "1", b.Addr.String())
			return err
		})
		transfer(t, a.Netns, b.Netns, b.Addr.String(), 4, 128<<10)
		transfer(t, b.Netns, a.Netns, a.Addr.String(), 4, 128<<10)
		if p := portNamed(t, n, nic0); !p.XDP.ZeroCopy {
			t.Errorf("%s: the uplink is %+v", what, p)
		}
	}
	again("at first")
	for range 2 {
		must(t, n.Netns, "ip", "link", "set", nic0, "down")
		if _, err := netns(a.Netns, "ping", "-n", "-c", "1", "-W", "1", b.Addr.String()); err == nil {
			t.Error("a ping through an uplink that is down")
		}
		must(t, n.Netns, "ip", "link", "set", nic0, "up")
		must(t, n.Netns, "ip", "route", "replace", "default", "via", "192.168.50.254") // it went with the link
		again("the link is up again")
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := c.StopAgent(n, signal); err != nil {
			t.Fatal(err)
		}
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		again("the agent is back after " + signal.String())
	}
}
