package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// takeNIC moves a device of the caller's namespace to a node, as its uplink.
func takeNIC(node, mac string, mtu int) error {
	nic, err := linkByMAC(mac)
	if err != nil {
		return err
	}
	if nic == nil {
		return fmt.Errorf("there is no device %s", mac)
	}
	if err := moveTo(nic, node); err != nil {
		return err
	}
	return enter(node, func() error {
		nic, err := linkByMAC(mac) // by another index than it had
		if err != nil {
			return err
		}
		if nic == nil {
			return fmt.Errorf("device %s is not where it was moved", mac)
		}
		for _, step := range []func() error{
			func() error { return netlink.LinkSetName(nic, uplink) },
			func() error { return netlink.LinkSetMTU(nic, mtu) },
			func() error { return netlink.LinkSetUp(nic) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}

// giveNICBack moves a node's device to the caller's namespace; it may be there
// already. The kernel moves those of a namespace that ends to the machine's
// first one, in its own time.
func giveNICBack(node, mac string) error {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	err = enter(node, func() error {
		nic, err := linkByMAC(mac)
		if err != nil || nic == nil {
			return err
		}
		// A name of its own: there may be a device like the node's.
		if err := errors.Join(netlink.LinkSetDown(nic), netlink.LinkSetName(nic, "nic"+mac[len(mac)-2:])); err != nil {
			return err
		}
		return netlink.LinkSetNsFd(nic, int(home))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("giving device %s of %s back: %w", mac, node, err)
	}
	return nil
}

// linkByMAC finds a device that has a hardware address of its own, nil if there is none.
func linkByMAC(mac string) (netlink.Link, error) {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool {
		return l.Type() == "device" && l.Attrs().HardwareAddr.String() == hw.String()
	})
	if i < 0 {
		return nil, nil
	}
	return links[i], nil
}

func moveTo(l netlink.Link, name string) error {
	return withNetnsFd(name, func(fd netlink.NsFd) error { return netlink.LinkSetNsFd(l, int(fd)) })
}
