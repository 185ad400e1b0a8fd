package underlay

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route asks the kernel for the route to dst and what kind it is. With no error
// and the kind unicast it has at least one next hop.
func (k *kernel) route(dst netip.Addr) (r route, kind int, err error) {
	a, kind, err := k.routeGet(dst, nil)
	if a == nil || err != nil {
		return route{}, kind, err
	}
	r = route{src: addrFrom(a.Src), mtu: a.MTU}
	r.hops = []way{{hopKey{a.LinkIndex, gateway(a.Gw, a.Via, dst)}, 1}}
	if a.Type != unix.RTN_UNICAST {
		return r, a.Type, nil
	}
	// That is the next hop the kernel would take for one packet. The route's
	// entry in the kernel's table has all of them.
	entry, kind, err := k.routeGet(dst, &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		return route{}, 0, err
	}
	if entry == nil || kind != unix.RTN_UNICAST {
		return r, a.Type, nil // it changed meanwhile: the notification is on its way
	}
	if all := ways(entry.MultiPath, dst); len(all) > 0 {
		r.hops = all
	}
	return r, a.Type, nil
}

// ways are the next hops of a multipath route that are alive, in the order of
// device and address; all of them if none is. A next hop is dead when its device
// is down, and has RTNH_F_LINKDOWN without a carrier (fib_sync_down_dev of
// net/ipv4/fib_semantics.c, fib6_ifdown of net/ipv6/route.c).
func ways(hops []*netlink.NexthopInfo, dst netip.Addr) []way {
	var all, alive []way
	for _, h := range hops {
		by := way{hopKey{h.LinkIndex, gateway(h.Gw, h.Via, dst)}, h.Hops + 1}
		all = append(all, by)
		if h.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) == 0 {
			alive = append(alive, by)
		}
	}
	if len(alive) > 0 {
		all = alive
	}
	slices.SortFunc(all, func(a, b way) int {
		return cmp.Or(cmp.Compare(a.ifindex, b.ifindex), a.addr.Compare(b.addr))
	})
	return slices.CompactFunc(all, func(a, b way) bool { return a.hopKey == b.hopKey })
}

// gateway is the next hop's address: dst itself where there is no gateway.
func gateway(gw []byte, via netlink.Destination, dst netip.Addr) netip.Addr {
	if via, ok := via.(*netlink.Via); ok { // an IPv4 route through an IPv6 gateway
		return addrFrom(via.Addr)
	}
	if len(gw) != 0 {
		return addrFrom(gw)
	}
	return dst
}

// routeGet asks the kernel for a route. It is nil, with its kind, where the
// kernel answers with an error that says what kind it is.
func (k *kernel) routeGet(dst netip.Addr, options *netlink.RouteGetOptions) (r *netlink.Route, kind int, err error) {
	var found []netlink.Route
	err = k.do(func(h *netlink.Handle) (err error) {
		found, err = h.RouteGetWithOptions(dst.AsSlice(), options)
		return err
	})
	switch {
	case errors.Is(err, errStopped):
		return nil, 0, err
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), err == nil && len(found) == 0:
		return nil, 0, fmt.Errorf("the kernel has no route to %s; add one, or check the addresses of the uplinks", dst)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL): // prohibit, blackhole
		return nil, unix.RTN_BLACKHOLE, nil
	case err != nil:
		return nil, 0, fmt.Errorf("%w: the route to %s: %w", errRefused, dst, err)
	}
	return &found[0], found[0].Type, nil
}
