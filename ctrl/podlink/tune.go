package podlink

import (
	"errors"
	"fmt"

	"culvert/internal/ethtool"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tune prepares a pod's link for bulk traffic. It may be called again, when what it
// depends on has changed.
//
// Of a veth it sets whether the pod may send UDP frames that are to be cut
// (UDP_SEGMENT), which with udp false its kernel cuts by itself, and how long GSO
// frames may be, in both directions, in bytes:
// 65536 is Linux's default, more is BIG TCP for IPv4 (since Linux 6.3). A kernel
// that knows nothing of it leaves the default. Over IPv6 a pod goes on sending
// 64 KB: a longer packet has an extension header in front of TCP
// (net/ipv6/ip6_output.c, ip6_xmit), which is nothing to forward. The host's end
// knows one limit for whatever the pod is sent. A TAP takes 64 KB and no more.
func Tune(ref Ref, gso int, udp bool) error {
	if ref.Kind == TAP {
		return nil
	}
	host := setGSO(ref.HostName, gso, anyGSO, ipv4GSO)
	ns, err := OpenNetns(ref.Netns)
	if err != nil {
		return errors.Join(host, err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		return errors.Join(ethtool.Set(ref.IfName, udp, udpSegmentation), setGSO(ref.IfName, gso, ipv4GSO))
	})
	if err != nil {
		err = fmt.Errorf("in %s: %w", ref.Netns, err)
	}
	return errors.Join(host, err)
}

// gsoLimit is a limit of a device's GSO frames. Asking is cheap, and a restart finds all
// of them set; setting tells everybody who listens to the kernel's links.
type gsoLimit struct {
	get func(*netlink.LinkAttrs) uint32
	set func(netlink.Link, int) error
}

var (
	anyGSO  = gsoLimit{func(a *netlink.LinkAttrs) uint32 { return a.GSOMaxSize }, netlink.LinkSetGSOMaxSize}
	ipv4GSO = gsoLimit{func(a *netlink.LinkAttrs) uint32 { return a.GSOIPv4MaxSize }, netlink.LinkSetGSOIPv4MaxSize}
)

// setGSO sets limits of a device's GSO frames.
func setGSO(name string, size int, limits ...gsoLimit) error {
	l, err := netlink.LinkByName(name)
	for _, limit := range limits {
		if err == nil && limit.get(l.Attrs()) != uint32(size) {
			err = limit.set(l, size)
		}
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("setting the length of GSO frames of %s: %w", name, err)
	}
	return nil
}
