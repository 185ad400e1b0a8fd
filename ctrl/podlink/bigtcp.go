package podlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetBigTCP sets how long the GSO frames of a pod's veth may be, in both directions,
// in bytes: 65536 is Linux's default, more is BIG TCP for IPv4 (since Linux 6.3).
// A kernel that knows nothing of it leaves the default: no error.
//
// Over IPv6 a pod goes on sending 64 KB: a longer packet has an extension header
// in front of TCP (net/ipv6/ip6_output.c, ip6_xmit), which is nothing to forward.
// The host's end knows one limit for whatever the pod is sent.
func SetBigTCP(ref Ref, size int) error {
	set := func(name string, limits ...func(netlink.Link, int) error) error {
		l, err := netlink.LinkByName(name)
		for _, limit := range limits {
			if err == nil {
				err = limit(l, size)
			}
		}
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			return nil
		}
		return err
	}
	if err := set(ref.HostName, netlink.LinkSetGSOMaxSize, netlink.LinkSetGSOIPv4MaxSize); err != nil {
		return fmt.Errorf("setting the length of GSO frames of %s: %w", ref.HostName, err)
	}
	ns, err := OpenNetns(ref.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.Do(func() error { return set(ref.IfName, netlink.LinkSetGSOIPv4MaxSize) }); err != nil {
		return fmt.Errorf("setting the length of GSO frames of %s in %s: %w", ref.IfName, ref.Netns, err)
	}
	return nil
}
