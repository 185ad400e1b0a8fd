package bulk

import (
	"fmt"
	"net/netip"

	"culvert/bench/testbed"
	"culvert/ctrl/podlink"

	"github.com/vishvananda/netlink"
)

// tunnelDevice is the name of Flannel's VXLAN device with VNI 1.
const tunnelDevice = "flannel.1"

// addTunnel gives the node what flanneld gives it (flannel pkg/backend/vxlan):
// a VXLAN device that does not learn, and for the peer a permanent neighbour, a
// permanent FDB entry and an on-link route.
func (n *node) addTunnel(peer *node) error {
	err := n.space.Do(func() error {
		uplink, err := netlink.LinkByName(n.uplink)
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{
				Name: tunnelDevice, HardwareAddr: testbed.VTEP(n.name), MTU: testbed.PodMTU, TxQLen: -1,
			},
			VxlanId: testbed.VNI, VtepDevIndex: uplink.Attrs().Index, SrcAddr: n.addr.AsSlice(), Port: testbed.Port,
			Learning: false,
		})
	})
	if err != nil {
		return fmt.Errorf("adding %s: %w", tunnelDevice, err)
	}
	mac, tunnel := testbed.VTEP(peer.name), peer.cidr.Addr()
	return inOrder(
		func() error { return n.space.AddAddr(tunnelDevice, netip.PrefixFrom(n.cidr.Addr(), 32)) },
		func() error { return n.space.Up(tunnelDevice) },
		func() error { return n.space.AddNeighbour(tunnelDevice, tunnel, mac) },
		func() error { return n.space.AddFDB(tunnelDevice, mac, peer.addr) },
		func() error { return n.space.AddRoute(tunnelDevice, peer.cidr, tunnel) },
	)
}

// addKernelPod attaches a pod as Calico does: a routed veth, behind it the
// gateway 169.254.1.1. That costs the kernel less than Flannel's bridge. The
// gateway's MAC is known from the start, which saves the proxy ARP.
func (n *node) addKernelPod(p *pod) error {
	host := "cali" + p.name
	err := veth(testbed.End{Space: p.space, Name: testbed.PodDevice},
		testbed.End{Space: n.space, Name: host, MAC: podlink.HostMAC}, testbed.PodMTU)
	if err != nil {
		return err
	}
	return inOrder(
		func() error { return n.space.AddRoute(host, netip.PrefixFrom(p.addr, 32), netip.Addr{}) },
		func() error { return p.space.AddAddr(testbed.PodDevice, netip.PrefixFrom(p.addr, 32)) },
		func() error { return p.space.AddNeighbour(testbed.PodDevice, podlink.Gateway4, podlink.HostMAC) },
		func() error {
			return p.space.AddRoute(testbed.PodDevice, netip.MustParsePrefix("0.0.0.0/0"), podlink.Gateway4)
		},
	)
}

// inOrder runs the steps up to the first that fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
