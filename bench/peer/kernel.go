package peer

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"

	"culvert/bench/testbed"

	"github.com/vishvananda/netlink"
)

// tunnelDevice is the name of Flannel's VXLAN device with VNI 1.
const tunnelDevice = "flannel.1"

// Kernel is the kernel's own forwarding with a VXLAN device as Flannel sets it
// up (flannel pkg/backend/vxlan: nolearning; per peer a permanent neighbour, a
// permanent FDB entry and an on-link route). The pod is routed as Calico does
// it, which costs the kernel less than Flannel's bridge.
type Kernel struct {
	// RPS spreads the pod's and the uplink's packets over all processors.
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
func (k Kernel) Check() error { return nil }

// Start implements Device.
func (k Kernel) Start(ctx context.Context) (*Instance, error) {
	return start(true, func(i *Instance) error {
		if err := k.build(ctx, i.Bed); err != nil {
			return fmt.Errorf("kernel: %w", err)
		}
		i.Note = "flannel.1 nolearning, routed pod"
		return nil
	})
}

func (k Kernel) build(ctx context.Context, b *testbed.Bed) error {
	if err := b.Node.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := b.ConnectPod(); err != nil {
		return err
	}
	if err := b.Node.Do(addTunnel); err != nil {
		return fmt.Errorf("adding %s: %w", tunnelDevice, err)
	}
	steps := []func() error{
		func() error { return b.Node.AddAddr(tunnelDevice, netip.PrefixFrom(testbed.PodCIDR.Addr(), 32)) },
		func() error { return b.Node.Up(tunnelDevice) },
		func() error {
			return b.Node.AddNeighbour(tunnelDevice, testbed.PeerCIDR.Addr(), testbed.PeerVTEP)
		},
		func() error { return b.Node.AddFDB(tunnelDevice, testbed.PeerVTEP, testbed.PeerAddr) },
		func() error { return b.Node.AddRoute(tunnelDevice, testbed.PeerCIDR, testbed.PeerCIDR.Addr()) },
		func() error {
			return b.Node.AddRoute(testbed.HostDevice, netip.PrefixFrom(testbed.PodAddr, 32), netip.Addr{})
		},
		func() error { return b.Node.AddNeighbour(testbed.HostDevice, testbed.PodAddr, testbed.PodMAC) },
	}
	if k.RPS {
		steps = append(steps, func() error { return setRPS(ctx, b.Node, testbed.HostDevice, testbed.Uplink) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// addTunnel makes the VXLAN device in the calling thread's namespace.
func addTunnel() error {
	u, err := netlink.LinkByName(testbed.Uplink)
	if err != nil {
		return err
	}
	return netlink.LinkAdd(&netlink.Vxlan{
		LinkAttrs:    netlink.LinkAttrs{Name: tunnelDevice, HardwareAddr: testbed.NodeVTEP, MTU: testbed.PodMTU, TxQLen: -1},
		VxlanId:      testbed.VNI,
		VtepDevIndex: u.Attrs().Index,
		SrcAddr:      testbed.NodeAddr.AsSlice(),
		Port:         testbed.Port,
		Learning:     false,
	})
}

// setRPS lets every processor take part in receiving from the devices. Devices
// of a namespace are only in a sysfs that was mounted in it.
func setRPS(ctx context.Context, s *testbed.Space, devices ...string) error {
	const script = `mount -t sysfs sysfs /sys && for d; do
		printf %x $(( (1 << $(nproc)) - 1 )) > /sys/class/net/$d/queues/rx-0/rps_cpus || exit 1; done`
	args := append([]string{"--mount", "sh", "-c", script, "sh"}, devices...)
	_, err := s.Run(ctx, exec.CommandContext(ctx, "unshare", args...))
	return err
}
