package e2e

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// stack makes the nodes' uplinks virtual devices on what was the uplink, whose name is
// phys0 from now on, while the virtual device has the uplink's.
func (c *cluster) stack(kind ...string) {
	c.t.Helper()
	c.stopped(func() {
		for _, n := range c.Nodes {
			must(c.t, n.Netns, "ip", "link", "set", nic0, "down")
			must(c.t, n.Netns, "ip", "link", "set", nic0, "name", "phys0")
			must(c.t, n.Netns, "ip", "addr", "flush", "dev", "phys0")
			must(c.t, n.Netns, "ip", "link", "set", "phys0", "up")
			must(c.t, n.Netns, append([]string{"ip", "link", "add", "link", "phys0", "name", nic0, "type"}, kind...)...)
			must(c.t, n.Netns, "ip", "addr", "add", n.Addr.String()+"/24", "dev", nic0)
			must(c.t, n.Netns, "ip", "link", "set", nic0, "up")
			must(c.t, n.Netns, "ip", "route", "add", "default", "via", "192.168.50.254")
			if n.Kind != lab.Culvert {
				c.retunnel(n)
			}
		}
	})
}

// retunnel makes a kernel node's VXLAN device again, on its uplink of now.
func (c *cluster) retunnel(n *lab.Node) {
	c.t.Helper()
	dev := "vxlan.calico"
	if n.Kind == lab.Flannel {
		dev = fmt.Sprint("flannel.", c.VNI)
	}
	netns(n.Netns, "ip", "link", "del", dev) // it may have gone with the uplink of before
	must(c.t, n.Netns, "ip", "link", "add", dev, "address", n.VTEPMAC, "mtu", fmt.Sprint(c.MTU-50), "type", "vxlan", "id", fmt.Sprint(c.VNI),
		"dev", nic0, "local", n.Addr.String(), "dstport", fmt.Sprint(c.Port), "nolearning")
	must(c.t, n.Netns, "ip", "link", "set", dev, "up")
	must(c.t, n.Netns, "ip", "addr", "add", n.PodCIDR.Addr().String()+"/32", "dev", dev)
	for _, p := range c.Nodes {
		if p != n {
			inside := p.PodCIDR.Addr().String()
			must(c.t, n.Netns, "ip", "neigh", "replace", inside, "lladdr", p.VTEPMAC, "dev", dev, "nud", "permanent")
			c.forward(n, dev, p)
			must(c.t, n.Netns, "ip", "route", "replace", p.PodCIDR.String(), "via", inside, "dev", dev, "onlink")
		}
	}
}

// forward tells a kernel node's VXLAN device where another node is.
func (c *cluster) forward(n *lab.Node, dev string, to *lab.Node) {
	c.t.Helper()
	if err := inside(n.Netns, func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		mac, err := net.ParseMAC(to.VTEPMAC)
		if err != nil {
			return err
		}
		return netlink.NeighAppend(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE,
			Flags: netlink.NTF_SELF, IP: to.Addr.AsSlice(), HardwareAddr: mac})
	}); err != nil {
		c.t.Fatal(err)
	}
}

// An uplink that is a device on another one, as nodes often have: frames leave through
// it, so that the kernel gives them what it gives its own, a VLAN tag for one, and come
// by it, after the kernel has taken that off. Kernels without VLANs have macvlan, which
// is the same to Culvert.
func TestStackedUplink(t *testing.T) { testStacked(t, "macvlan", "mode", "bridge") }

func testStacked(t *testing.T, kind ...string) {
	for _, tt := range []struct {
		peer   lab.Kind
		config string
	}{
		{lab.Culvert, ""},
		{lab.Calico, ""},
		{lab.Flannel, ""},
		{lab.Culvert, "xdp: {mode: generic}\n"},
		{lab.Calico, "xdp: {mode: generic}\n"},
	} {
		t.Run(fmt.Sprint(tt.peer, tt.config), func(t *testing.T) {
			c := up(t, lab.Options{Peer: tt.peer, Config: tt.config})
			c.stack(kind...)
			n, k := c.Nodes[0], c.Nodes[1]
			eventually(t, "the first ping", func() error {
				_, err := netns(n.Pods[0].Netns, "ping", "-n", "-c", "1", "-W", "1", k.Pods[0].Addr.String())
				return err
			})
			for _, w := range []way{{n.Pods[0], k.Pods[0]}, {k.Pods[0], n.Pods[0]}} {
				from, to, addr := w.from.Netns, w.to.Netns, w.to.Addr.String()
				must(t, from, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", "-M", "do", "-s", "1422", addr)
				echoUDP(t, from, to, addr, 1, 1422, 1423, 9000)
				transfer(t, from, to, addr, 2, 8<<20)
			}
			s := culvertJSON[api.Status](t, n, "status")
			if s.MTU != 1450 || len(s.Degraded) != 0 {
				t.Errorf("MTU %d; %v", s.MTU, s.Degraded)
			}
		})
	}
}
