package hostlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostPrefix is the prefix of one address, as the device has it.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// syncAddrs gives the device the addresses that it is to have and takes others away,
// those of the link excepted.
func (l *Link) syncAddrs(link netlink.Link, want []netip.Addr) error {
	have, err := l.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("%s: listing its addresses: %w", Name, err)
	}
	var errs []error
	there := map[netip.Prefix]bool{}
	for i := range have {
		p := prefixOf(have[i].IPNet)
		switch {
		case p.Addr().IsLinkLocalUnicast():
		case p.IsSingleIP() && slices.Contains(want, p.Addr()):
			there[p] = true
		default:
			if err := l.handle.AddrDel(link, &have[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				errs = append(errs, fmt.Errorf("%s: taking the address %s away: %w", Name, p, err))
			}
		}
	}
	for _, a := range want {
		if p := hostPrefix(a); !there[p] {
			err := l.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD})
			if err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, fmt.Errorf("%s: adding the address %s: %w", Name, a, err))
			}
		}
	}
	return errors.Join(errs...)
}

// syncRoutes leads the pod networks to the device.
func (l *Link) syncRoutes(want Want) error {
	src := map[bool]netip.Addr{} // by whether it is IPv6
	for _, a := range slices.Backward(want.Addrs) {
		src[a.Is6()] = a
	}
	missing := make(map[netip.Prefix]netip.Addr, len(want.Networks))
	for _, n := range want.Networks {
		missing[n.Masked()] = src[n.Addr().Is6()]
	}
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		have, err := l.handle.RouteListFiltered(family,
			&netlink.Route{LinkIndex: l.index, Protocol: protocol, Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil && !(family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT)) {
			return errors.Join(append(errs, fmt.Errorf("%s: listing its routes: %w", Name, err))...)
		}
		for i := range have {
			dst := prefixOf(have[i].Dst)
			from, _ := netip.AddrFromSlice(have[i].Src)
			if w, wanted := missing[dst]; wanted && w == from.Unmap() {
				delete(missing, dst)
			} else if !wanted {
				if err := l.handle.RouteDel(&have[i]); err != nil && !errors.Is(err, unix.ESRCH) {
					errs = append(errs, fmt.Errorf("%s: taking the route to %s away: %w", Name, dst, err))
				}
			}
		}
	}
	for dst, from := range missing {
		if err := l.handle.RouteReplace(l.route(dst, from)); err != nil {
			errs = append(errs, fmt.Errorf("%s: adding the route to %s: %w", Name, dst, err))
		}
	}
	return errors.Join(errs[:min(len(errs), maxTold)]...)
}

// maxTold is how many errors are told at once: what fails for one of ten thousand
// routes does so for all.
const maxTold = 5

func (l *Link) route(dst netip.Prefix, from netip.Addr) *netlink.Route {
	r := &netlink.Route{LinkIndex: l.index, Dst: ipNet(dst), Protocol: protocol, Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK}
	if from.IsValid() {
		r.Src = from.AsSlice()
	}
	if dst.Addr().Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	return r
}
