package podlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetBigTCP sets how long the GSO frames of a pod's veth may be, in both directions,
// in bytes: 65536 is Linux's default, more is BIG TCP (for IPv4, since Linux 6.3).
// A kernel that knows nothing of it leaves the default: no error.
func SetBigTCP(ref Ref, size int) error {
	set := func(name string) error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetGSOIPv4MaxSize(l, size)
		}
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			return nil
		}
		return err
	}
	if err := set(ref.HostName); err != nil {
		return fmt.Errorf("setting the length of GSO frames of %s: %w", ref.HostName, err)
	}
	ns, err := OpenNetns(ref.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.Do(func() error { return set(ref.IfName) }); err != nil {
		return fmt.Errorf("setting the length of GSO frames of %s in %s: %w", ref.IfName, ref.Netns, err)
	}
	return nil
}
