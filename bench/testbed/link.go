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

// AddAddr gives a device an address.
func (s *Space) AddAddr(name string, prefix netip.Prefix) error {
	return s.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		addr := &netlink.Addr{IPNet: ipNet(prefix), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("adding %s to %s: %w", prefix, name, err)
		}
		return nil
	})
}

// AddRoute adds a route over a device: with via as an on-link gateway if it is
// valid, to the link itself otherwise.
func (s *Space) AddRoute(name string, dst netip.Prefix, via netip.Addr) error {
	return s.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(dst), Scope: netlink.SCOPE_LINK}
		if via.IsValid() {
			r.Gw, r.Flags, r.Scope = via.AsSlice(), int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
		}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("adding a route to %s over %s: %w", dst, name, err)
		}
		return nil
	})
}

// AddNeighbour makes an address' MAC known for good.
func (s *Space) AddNeighbour(name string, addr netip.Addr, mac net.HardwareAddr) error {
	return s.neighbour(name, netlink.Neigh{State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac})
}

// AddFDB makes the tunnel end behind which a MAC is known for good.
func (s *Space) AddFDB(name string, mac net.HardwareAddr, end netip.Addr) error {
	return s.neighbour(name, netlink.Neigh{
		Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: end.AsSlice(), HardwareAddr: mac,
	})
}

func (s *Space) neighbour(name string, n netlink.Neigh) error {
	return s.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		n.LinkIndex = l.Attrs().Index
		if err := netlink.NeighSet(&n); err != nil {
			return fmt.Errorf("adding neighbour %s %s to %s: %w", n.IP, n.HardwareAddr, name, err)
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

// XDPMode is how an XDP program is attached to a device: native or generic, or
// nothing if none is.
func (s *Space) XDPMode(name string) (string, error) {
	link, err := s.Link(name)
	if err != nil || link.Xdp == nil || !link.Xdp.Attached {
		return "", err
	}
	switch link.Xdp.AttachMode {
	case nl.XDP_ATTACHED_DRV:
		return "native", nil
	case nl.XDP_ATTACHED_SKB:
		return "generic", nil
	}
	return fmt.Sprintf("mode %d", link.Xdp.AttachMode), nil
}

// Sysctl sets a kernel parameter of the namespace, such as net/ipv4/ip_forward.
func (s *Space) Sysctl(key, value string) error {
	return s.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
