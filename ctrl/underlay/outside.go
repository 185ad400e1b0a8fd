package underlay

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is one of the kernel's routes, as a pod's packet out of the cluster takes it.
type Route struct {
	Dst netip.Prefix
	// Own: it is the node's own, such as an address of any of its devices.
	Own bool
	// Hops are its next hops, all of them gateways on uplinks. None: the destination is
	// the kernel's to reach, or to take, or to refuse.
	Hops []NextHop
}

// maxRoutes bounds what is mirrored of a kernel with a table of the whole Internet: the
// node's own addresses and the widest prefixes are kept, and the rest goes where those lead.
const maxRoutes = 4096

// outside is a route as the mirror has it.
type outside struct {
	dst  netip.Prefix
	via  route // no hops: the kernel's
	rank int   // the route's metric; the local table goes before all
	own  bool  // of the local table
}

func (r *outside) equal(o *outside) bool {
	return r.dst == o.dst && r.own == o.own && r.via.equal(&o.via)
}

// Routes are the kernel's routes and its own addresses in the order of their prefixes,
// without what is of one link only. Those of the main and the local table: a packet
// that a rule sends by another table is not known here.
func (w *Watcher) Routes() []Route {
	w.mu.RLock()
	defer w.mu.RUnlock()
	all := make([]Route, 0, len(w.outside))
	for i := range w.outside {
		r := Route{Dst: w.outside[i].dst, Own: w.outside[i].own}
		for _, by := range w.outside[i].via.hops {
			nh, err := w.nextHop(&w.outside[i].via, by)
			if err == nil && nh.Ifindex != 0 {
				r.Hops = append(r.Hops, nh)
			}
		}
		all = append(all, r)
	}
	return all
}

// readRoutes reads the kernel's tables. Only Run calls it, or who comes before.
func (w *Watcher) readRoutes() ([]outside, error) {
	best := map[netip.Prefix]outside{}
	for _, table := range []int{unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN} {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			err := w.kernel.dump("routes", func(h *netlink.Handle) error {
				return h.RouteListFilteredIter(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
					o, ok := w.outsideOf(&r, family)
					if before, had := best[o.dst]; ok && (!had || o.rank < before.rank) {
						best[o.dst] = o
					}
					return true
				})
			})
			if err != nil && (family == unix.AF_INET || !errors.Is(err, unix.EAFNOSUPPORT)) {
				return nil, errors.Join(errRefused, err)
			}
		}
	}
	return widest(slices.Collect(maps.Values(best)), maxRoutes), nil
}

// widest are n of the routes at most, in the order of their prefixes: the node's own
// addresses, and of what leads elsewhere the widest prefixes.
func widest(all []outside, n int) []outside {
	rank := func(o *outside) int {
		if o.own {
			return -1
		}
		return o.dst.Bits()
	}
	slices.SortFunc(all, func(a, b outside) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), a.dst.Addr().Compare(b.dst.Addr()))
	})
	all = all[:min(len(all), n)]
	slices.SortFunc(all, func(a, b outside) int {
		return cmp.Or(a.dst.Addr().Compare(b.dst.Addr()), cmp.Compare(a.dst.Bits(), b.dst.Bits()))
	})
	return all
}

// outsideOf takes over a route of the kernel's, unless it is of no use to pods.
func (w *Watcher) outsideOf(r *netlink.Route, family int) (o outside, ok bool) {
	switch r.Type {
	case unix.RTN_UNICAST, unix.RTN_LOCAL, unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
	default: // broadcast and multicast
		return o, false
	}
	o.dst = prefixOf(r.Dst, family)
	// IPv4's link-local addresses are used beyond a link: metadata servers, node-local DNS.
	if a := o.dst.Addr(); a.IsLoopback() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() {
		return o, false
	}
	if d := w.devices[r.LinkIndex]; w.ours != "" && d.name == w.ours {
		return o, false // what leads to pods
	}
	if r.Table == unix.RT_TABLE_LOCAL {
		o.rank, o.own = -1, true
		return o, true
	}
	o.rank = r.Priority
	if r.Type != unix.RTN_UNICAST {
		return o, true
	}
	o.via.mtu = r.MTU
	hops := r.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Flags: r.Flags}}
	}
	o.via.hops = ways(hops, netip.Addr{})
	if slices.ContainsFunc(o.via.hops, func(h way) bool { return !h.addr.IsValid() || w.uplink(h.ifindex) == nil }) {
		o.via = route{} // on the link, or elsewhere: the kernel knows how
	}
	return o, true
}

// prefixOf converts a route's destination; none is that of the default route.
func prefixOf(dst *net.IPNet, family int) netip.Prefix {
	if dst == nil {
		if family == unix.AF_INET {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	bits, _ := dst.Mask.Size()
	return netip.PrefixFrom(addrFrom(dst.IP), bits).Masked()
}
