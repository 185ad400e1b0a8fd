package vm

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Queues is how many queue pairs each NIC can have. With as many as there are
// CPUs in use virtio-net has spare ones for XDP: one for each CPU, or its sends
// take a lock (drivers/net/virtio_net.c, virtnet_xdp_set).
const Queues = 4

// cableMTU is the largest packet between the NICs.
const cableMTU = 9000

// cable is what the NICs hang on: a TAP device for each, with a descriptor for
// each of its queues, and a bridge between them. They are in a namespace of
// their own that ends with the last descriptor.
type cable [2][]*os.File

// newCable makes one. The devices pass on what virtio-net offloads, so that the
// machine's NICs have checksum and segmentation offload as in a cloud.
func newCable() (c cable, err error) {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends in that namespace
		errc <- c.build()
	}()
	if err := <-errc; err != nil {
		c.Close()
		return c, fmt.Errorf("the cable between the machine's NICs: %w", err)
	}
	return c, nil
}

func (c *cable) build() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("a namespace (this needs root): %w", err)
	}
	// The kernel must say nothing of its own on these devices.
	for _, key := range []string{"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"} {
		if err := writeSysctl(key, "1"); err != nil {
			return err
		}
	}
	off, never := false, uint32(0)
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &off}
	// A bridge that forgets at once sends all to the other end, as a cable does.
	bridge.Name, bridge.MTU, bridge.AgeingTime = "cable", cableMTU, &never
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	for i := range c {
		name := fmt.Sprint("nic", i)
		for range Queues {
			f, err := openTap(name)
			if err != nil {
				return fmt.Errorf("TAP device: %w", err)
			}
			c[i] = append(c[i], f)
		}
		tap, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, step := range []func() error{
			func() error { return netlink.LinkSetMTU(tap, cableMTU) },
			func() error { return netlink.LinkSetMaster(tap, bridge) },
			func() error { return netlink.LinkSetUp(tap) },
		} {
			if err := step(); err != nil {
				return fmt.Errorf("TAP device %s: %w", name, err)
			}
		}
	}
	return nil
}

// Close takes the cable away.
func (c *cable) Close() {
	for _, end := range c {
		for _, f := range end {
			f.Close()
		}
	}
}

// openTap opens one more queue of a TAP device, which it makes if need be.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

func writeSysctl(key, value string) error {
	err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
	if os.IsNotExist(err) {
		return nil // a kernel without IPv6
	}
	return err
}
