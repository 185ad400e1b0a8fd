package podlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Remove deletes the pair by its host end; both ends go. A pair that is gone
// already is no error. It refuses a link that is no veth: that is not ours.
func Remove(hostName string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(hostName)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("host interface %s: %w", hostName, err)
	}
	if link.Type() != "veth" {
		return fmt.Errorf("host interface %s is a %s, not the veth of a pod: it is left alone", hostName, link.Type())
	}
	if err := h.LinkDel(link); err != nil && !isGone(err) {
		return fmt.Errorf("deleting %s: %w", hostName, err)
	}
	return nil
}

// Find looks a host end up by name.
func Find(hostName string) (ifindex int, ok bool, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, false, fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(hostName)
	switch {
	case isGone(err):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("host interface %s: %w", hostName, err)
	}
	return link.Attrs().Index, link.Type() == "veth", nil
}

// Adopts reports whether ifName in the namespace is the pod end of hostName:
// what a DEL may remove although no record tells of it. A namespace that is
// gone, or an interface that is, makes it false.
func Adopts(netnsPath, ifName, hostName string) bool {
	ns, err := OpenNetns(netnsPath)
	if err != nil {
		return false
	}
	defer ns.Close()
	hostIndex, ok, err := Find(hostName)
	if err != nil || !ok {
		return false
	}
	ours := false
	err = ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(ifName)
		if err != nil {
			return err
		}
		ours = link.Type() == "veth" && link.Attrs().ParentIndex == hostIndex
		return nil
	})
	return err == nil && ours
}

// isGone reports whether a netlink error says that the link does not exist.
func isGone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}
