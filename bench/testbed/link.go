package testbed

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"culvert/internal/ethtool"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// End is one end of a veth pair.
type End struct {
	Space *Space
	Name  string
	MAC   net.HardwareAddr // nil leaves it to the kernel
}

// Veth makes a veth pair, both ends up and with GRO on, so that frames can be
// redirected into either.
func Veth(a, b End, mtu int) error {
	err := a.Space.Do(func() error {
		v := netlink.NewVeth(netlink.LinkAttrs{Name: a.Name, HardwareAddr: a.MAC, MTU: mtu, TxQLen: -1})
		v.PeerName, v.PeerHardwareAddr, v.PeerMTU = b.Name, b.MAC, uint32(mtu)
		v.PeerNamespace = netlink.NsFd(b.Space.handle)
		return netlink.LinkAdd(v)
	})
	if err != nil {
		return fmt.Errorf("making the veth pair %s, %s: %w", a.Name, b.Name, err)
	}
	for _, end := range []End{a, b} {
		err := end.Space.Do(func() error {
			if err := up(end.Name); err != nil {
				return err
			}
			return ethtool.Set(end.Name, true, ethtool.GRO)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Up brings a device up.
func (s *Space) Up(name string) error { return s.Do(func() error { return up(name) }) }

// GRO switches GRO of a device on: its NAPI polls, and frames can be
// redirected into its veth peer.
func (s *Space) GRO(name string) error {
	return s.Do(func() error { return ethtool.Set(name, true, ethtool.GRO) })
}

// AddAddr gives a device an address, unless it has it.
func (s *Space) AddAddr(name string, prefix netip.Prefix) error {
	return s.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		addr := &netlink.Addr{IPNet: ipNet(prefix), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(l, addr); err != nil {
			return fmt.Errorf("adding %s to %s: %w", prefix, name, err)
		}
		return nil
	})
}

// Link is a device's attributes now.
func (s *Space) Link(name string) (attrs netlink.LinkAttrs, err error) {
	err = s.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		attrs = *l.Attrs()
		return nil
	})
	return attrs, err
}

// Links are the attributes of all devices, by their names.
func (s *Space) Links() (map[string]netlink.LinkAttrs, error) {
	all := make(map[string]netlink.LinkAttrs)
	err := s.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			all[l.Attrs().Name] = *l.Attrs()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing devices: %w", err)
	}
	return all, nil
}

// XDPMode is how an XDP program is attached to a device: native or generic, or
// nothing if none is.
func (s *Space) XDPMode(name string) (string, error) {
	link, err := s.Link(name)
	return XDPModeOf(link), err
}

// XDPModeOf is XDPMode of a device's attributes.
func XDPModeOf(link netlink.LinkAttrs) string {
	if link.Xdp == nil || !link.Xdp.Attached {
		return ""
	}
	switch link.Xdp.AttachMode {
	case nl.XDP_ATTACHED_DRV:
		return "native"
	case nl.XDP_ATTACHED_SKB:
		return "generic"
	}
	return fmt.Sprintf("mode %d", link.Xdp.AttachMode)
}

// Sysctl sets a kernel parameter of the namespace, such as net/ipv4/ip_forward.
func (s *Space) Sysctl(key, value string) error {
	return s.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
