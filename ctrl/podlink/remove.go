package podlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Remove deletes a link: a veth pair by its host end, a TAP in its namespace.
// One that is gone already, with its namespace or without, is no error. It
// refuses a host end that is no veth: that is not ours.
func Remove(ref Ref) error {
	if ref.Kind == TAP {
		return removeTAP(&ref)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(ref.HostName)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("host interface %s: %w", ref.HostName, err)
	}
	if link.Type() != "veth" {
		return fmt.Errorf("host interface %s is a %s, not the veth of a pod: it is left alone", ref.HostName, link.Type())
	}
	if err := h.LinkDel(link); err != nil && !isGone(err) {
		return fmt.Errorf("deleting %s: %w", ref.HostName, err)
	}
	return nil
}

// Find looks a link up: a veth by its host end's name, whose index it returns, a
// TAP in its namespace, where its index is. A TAP whose namespace is gone is not
// there; that a namespace cannot be looked into is an error.
func Find(ref Ref) (ifindex int, ok bool, err error) {
	if ref.Kind == TAP {
		return findTAP(&ref)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, false, fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(ref.HostName)
	switch {
	case isGone(err):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("host interface %s: %w", ref.HostName, err)
	}
	return link.Attrs().Index, link.Type() == "veth", nil
}

// Adopts reports whether the interface in the namespace is the pod end of what
// ref names: what a DEL may remove although no record tells of it. A namespace
// that is gone, or an interface that is, makes it false.
func Adopts(ref Ref) bool {
	if ref.Kind == TAP {
		_, ok, err := findTAP(&ref)
		return ok && err == nil
	}
	ns, err := OpenNetns(ref.Netns)
	if err != nil {
		return false
	}
	defer ns.Close()
	hostIndex, ok, err := Find(ref)
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
		link, err := h.LinkByName(ref.IfName)
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
