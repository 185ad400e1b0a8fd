package testbed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a way over a device: with Via as an on-link gateway if it is valid,
// to the link itself otherwise.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// Neighbour is an address and its MAC.
type Neighbour struct {
	Addr netip.Addr
	MAC  net.HardwareAddr
}

// AddRoute adds one route over a device, or changes it.
func (s *Space) AddRoute(name string, dst netip.Prefix, via netip.Addr) error {
	return s.AddRoutes(name, Route{dst, via})
}

// AddRoutes adds routes over a device: some ten microseconds each. One with the
// same destination is replaced.
func (s *Space) AddRoutes(name string, routes ...Route) error {
	return s.change(name, func(h *netlink.Handle, ifindex int) error {
		for _, r := range routes {
			n := netlink.Route{LinkIndex: ifindex, Dst: ipNet(r.Dst), Scope: netlink.SCOPE_LINK}
			if r.Via.IsValid() {
				n.Gw, n.Flags, n.Scope = r.Via.AsSlice(), int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
			}
			if err := h.RouteReplace(&n); err != nil {
				return fmt.Errorf("adding a route to %s over %s: %w", r.Dst, name, err)
			}
		}
		return nil
	})
}

// AddNeighbour makes an address' MAC known for good.
func (s *Space) AddNeighbour(name string, addr netip.Addr, mac net.HardwareAddr) error {
	return s.AddNeighbours(name, Neighbour{addr, mac})
}

// AddNeighbours makes the MACs of addresses known for good. Such entries do not
// count towards the kernel's limit, gc_thresh3.
func (s *Space) AddNeighbours(name string, all ...Neighbour) error {
	return s.neighbours(name, netlink.Neigh{State: netlink.NUD_PERMANENT}, all)
}

// AddFDB makes the tunnel end behind which a MAC is known for good.
func (s *Space) AddFDB(name string, mac net.HardwareAddr, end netip.Addr) error {
	return s.AddFDBs(name, Neighbour{end, mac})
}

// AddFDBs makes tunnel ends known for good: each Addr is the end behind which
// the MAC is.
func (s *Space) AddFDBs(name string, all ...Neighbour) error {
	return s.neighbours(name, netlink.Neigh{
		Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
	}, all)
}

// neighbours adds entries that have all but address and MAC in common.
func (s *Space) neighbours(name string, n netlink.Neigh, all []Neighbour) error {
	return s.change(name, func(h *netlink.Handle, ifindex int) error {
		n.LinkIndex = ifindex
		for _, one := range all {
			n.IP, n.HardwareAddr = one.Addr.AsSlice(), one.MAC
			if err := h.NeighSet(&n); err != nil {
				return fmt.Errorf("adding neighbour %s %s to %s: %w", n.IP, n.HardwareAddr, name, err)
			}
		}
		return nil
	})
}

// DropRoutes removes the IPv4 routes over a device but those of its addresses.
func (s *Space) DropRoutes(name string) error {
	return s.change(name, func(h *netlink.Handle, ifindex int) error {
		routes, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{LinkIndex: ifindex}, netlink.RT_FILTER_OIF)
		for _, r := range routes {
			err = errors.Join(err, h.RouteDel(&r))
		}
		if err != nil {
			return fmt.Errorf("removing the routes over %s: %w", name, err)
		}
		return nil
	})
}

// change runs f with one netlink socket for all that it does.
func (s *Space) change(name string, f func(h *netlink.Handle, ifindex int) error) error {
	return s.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("opening a netlink socket: %w", err)
		}
		defer h.Close()
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		return f(h, l.Attrs().Index)
	})
}
