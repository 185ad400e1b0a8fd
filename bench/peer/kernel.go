package peer

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"

	"culvert/bench/testbed"

	"github.com/vishvananda/netlink"
)

// Names of the tunnel devices: Flannel's for VNI 1, and the one that the kernel's
// IPIP module puts into every namespace, which Calico uses.
const (
	vxlanDevice = "flannel.1"
	ipipDevice  = "tunl0"
)

// Kernel is the kernel's own forwarding. With VXLAN it has a device as Flannel
// sets it up (flannel pkg/backend/vxlan: nolearning; per peer a permanent
// neighbour, a permanent FDB entry and an on-link route), with IPIP tunl0 as
// Calico does (felix dataplane/linux/ipip_mgr.go: per peer an on-link route via
// its address). The pods are routed as Calico does it, which costs the kernel
// less than Flannel's bridge.
type Kernel struct {
	// RPS spreads the pods' and the uplink's packets over all processors.
	RPS bool
}

// Name implements Device.
func (k Kernel) Name() string {
	if k.RPS {
		return "kernel-rps"
	}
	return "kernel"
}

// Check implements Device.
func (k Kernel) Check(o Options) error {
	if o.Encap == IPIP {
		return haveIPIP()
	}
	return nil
}

// haveIPIP says whether the kernel has IPIP, and loads the module if it can.
func haveIPIP() error {
	s, err := testbed.NewSpace()
	if err != nil {
		return err
	}
	defer s.Close()
	err = s.Do(func() error {
		return netlink.LinkAdd(&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, Local: testbed.NodeAddr.AsSlice()})
	})
	if err != nil {
		return fmt.Errorf("the kernel has no IPIP devices (%w): it takes the module ipip", err)
	}
	return nil
}

// Start implements Device.
func (k Kernel) Start(ctx context.Context, o Options) (*Instance, error) {
	return start(ctx, k, o, func(i *Instance) error {
		if err := k.build(ctx, i); err != nil {
			return fmt.Errorf("kernel: %w", err)
		}
		return nil
	})
}

func (k Kernel) build(ctx context.Context, i *Instance) error {
	b := i.Bed
	if err := b.Node.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := b.AddUnderlay(testbed.Uplink); err != nil {
		return err
	}
	if err := addKernelPods(b, i.Options.podMTU()); err != nil {
		return err
	}
	if k.RPS {
		if err := setRPS(ctx, b); err != nil {
			return err
		}
	}
	if i.Options.Encap == IPIP {
		i.Note = "tunl0, routed pods"
		return addIPIP(b)
	}
	i.Note = "flannel.1 nolearning, routed pods"
	return addVXLAN(b)
}

// addKernelPods connects the pods and routes to them.
func addKernelPods(b *testbed.Bed, mtu int) error {
	if err := b.ConnectPods(mtu); err != nil {
		return err
	}
	for _, p := range b.Pods {
		if err := b.Node.AddRoute(p.Host, netip.PrefixFrom(p.Addr, 32), netip.Addr{}); err != nil {
			return err
		}
		if err := b.Node.AddNeighbour(p.Host, p.Addr, p.MAC); err != nil {
			return err
		}
	}
	return nil
}

// addVXLAN makes the VXLAN device and what it knows about each peer.
func addVXLAN(b *testbed.Bed) error {
	err := b.Node.Do(func() error {
		u, err := netlink.LinkByName(testbed.Uplink)
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Vxlan{
			LinkAttrs:    netlink.LinkAttrs{Name: vxlanDevice, HardwareAddr: testbed.NodeVTEP, MTU: testbed.PodMTU, TxQLen: -1},
			VxlanId:      testbed.VNI,
			VtepDevIndex: u.Attrs().Index,
			SrcAddr:      testbed.NodeAddr.AsSlice(),
			Port:         testbed.Port,
			Learning:     false,
		})
	})
	if err != nil {
		return fmt.Errorf("adding %s: %w", vxlanDevice, err)
	}
	var ends, inner []testbed.Neighbour
	var routes []testbed.Route
	for _, p := range b.Peers {
		ends = append(ends, testbed.Neighbour{Addr: p.Addr, MAC: p.VTEP})
		inner = append(inner, testbed.Neighbour{Addr: p.CIDR.Addr(), MAC: p.VTEP})
		routes = append(routes, testbed.Route{Dst: p.CIDR, Via: p.CIDR.Addr()})
	}
	return inOrder(
		func() error { return b.Node.AddAddr(vxlanDevice, netip.PrefixFrom(testbed.PodCIDR.Addr(), 32)) },
		func() error { return b.Node.Up(vxlanDevice) },
		func() error { return b.Node.AddNeighbours(vxlanDevice, inner...) },
		func() error { return b.Node.AddFDBs(vxlanDevice, ends...) },
		func() error { return b.Node.AddRoutes(vxlanDevice, routes...) },
	)
}

// addIPIP makes the IPIP device ready, with a route to each peer's pods.
func addIPIP(b *testbed.Bed) error {
	err := b.Node.Do(func() error {
		l, err := netlink.LinkByName(ipipDevice)
		if err == nil {
			return netlink.LinkSetMTU(l, testbed.PodMTUIPIP)
		}
		// The kernel was told not to make it (net.core.fb_tunnels_only_for_init_net).
		return netlink.LinkAdd(&netlink.Iptun{
			LinkAttrs: netlink.LinkAttrs{Name: ipipDevice, MTU: testbed.PodMTUIPIP, TxQLen: -1},
			Local:     testbed.NodeAddr.AsSlice(),
		})
	})
	if err != nil {
		return fmt.Errorf("setting %s up: %w", ipipDevice, err)
	}
	var routes []testbed.Route
	for _, p := range b.Peers {
		routes = append(routes, testbed.Route{Dst: p.CIDR, Via: p.Addr})
	}
	return inOrder(
		func() error { return b.Node.AddAddr(ipipDevice, netip.PrefixFrom(testbed.PodCIDR.Addr(), 32)) },
		func() error { return b.Node.Up(ipipDevice) },
		func() error { return b.Node.AddRoutes(ipipDevice, routes...) },
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

// setRPS lets every processor take part in receiving from the pods and the
// uplink. Devices of a namespace are only in a sysfs that was mounted in it.
func setRPS(ctx context.Context, b *testbed.Bed) error {
	const script = `mount -t sysfs sysfs /sys && for d; do
		printf %x $(( (1 << $(nproc)) - 1 )) > /sys/class/net/$d/queues/rx-0/rps_cpus || exit 1; done`
	args := []string{"--mount", "sh", "-c", script, "sh", testbed.Uplink}
	for _, p := range b.Pods {
		args = append(args, p.Host)
	}
	_, err := b.Node.Run(ctx, exec.CommandContext(ctx, "unshare", args...))
	return err
}
