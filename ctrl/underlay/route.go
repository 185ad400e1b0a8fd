package underlay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/packet"
)

// NextHop is how a packet to an underlay address leaves the node.
type NextHop struct {
	Dev     string // the uplink
	Ifindex int
	Src     netip.Addr // the source address that the kernel would take; invalid if it has none
	Via     netip.Addr // the gateway, or the destination itself when it is on the link
	MTU     int        // the smaller one of the link's and the route's
	SrcMAC  packet.MAC // the uplink's
	MAC     packet.MAC // Via's; the last known one while it is not resolved
	// Resolved says that MAC can be used: State is REACHABLE, STALE, DELAY,
	// PROBE, PERMANENT or NOARP.
	Resolved bool
	State    string // as 'ip neigh' shows it; NONE if the kernel has no entry
}

// route is the kernel's answer for a destination. The zero route is none.
type route struct {
	ifindex  int
	via, src netip.Addr
	mtu      int // 0: the link's
}

// target is a tracked destination.
type target struct {
	known bool // looked up since it is tracked
	route route
	err   error // why there is no route
}

// same reports whether two lookups have the same outcome.
func (t *target) same(o *target) bool {
	if t.known != o.known || t.route != o.route || (t.err == nil) != (o.err == nil) {
		return false
	}
	return t.err == nil || t.err.Error() == o.err.Error()
}

// Track replaces the set of destinations whose next hops are mirrored and kept
// resolved. It returns at once; a Changed event follows when Run has looked
// them up. Invalid addresses are ignored.
func (w *Watcher) Track(dsts []netip.Addr) {
	w.mu.Lock()
	next := make(map[netip.Addr]*target, len(dsts))
	for _, dst := range dsts {
		if !dst.IsValid() {
			continue
		}
		dst = dst.Unmap().WithZone("")
		if next[dst] = w.targets[dst]; next[dst] == nil {
			next[dst] = &target{}
		}
	}
	w.targets = next
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default: // Run has not seen the last one yet
	}
}

// NextHop is how dst is reached now: from the mirror if it is tracked, by
// asking the kernel otherwise, which then is not made to resolve it. It fails
// if there is no route, or none through an uplink; the error names the device.
// A next hop that is not resolved is no error.
func (w *Watcher) NextHop(dst netip.Addr) (NextHop, error) {
	if !dst.IsValid() {
		return NextHop{}, errors.New("no address to look up a route for")
	}
	dst = dst.Unmap().WithZone("")
	w.mu.RLock()
	defer w.mu.RUnlock()
	t := w.targets[dst]
	if t == nil || !t.known {
		r, err := w.lookup(dst)
		t = &target{known: true, route: r, err: err}
	}
	if t.err != nil {
		return NextHop{}, t.err
	}
	key := hopKey{t.route.ifindex, t.route.via}
	h := w.hops[key]
	if h == nil {
		n, err := w.kernel.neighbour(key)
		if err != nil {
			return NextHop{}, err
		}
		h = &hop{neighbour: n}
	}
	up := w.uplink(t.route.ifindex)
	if up == nil { // it went while Run has not looked again
		return NextHop{}, fmt.Errorf("the route to %s leaves through an uplink that has just disappeared", dst)
	}
	nh := NextHop{
		Dev: up.Name, Ifindex: up.Index, Src: t.route.src, Via: t.route.via, MTU: up.MTU,
		SrcMAC: up.MAC, MAC: h.mac, Resolved: h.usable(), State: h.stateName(),
	}
	if t.route.mtu > 0 {
		nh.MTU = min(nh.MTU, t.route.mtu)
	}
	return nh, nil
}

// uplink is the uplink of that index, nil if it is none. Whoever is not Run
// holds w.mu.
func (w *Watcher) uplink(index int) *Link {
	for i := range w.uplinks {
		if index != 0 && w.uplinks[i].Index == index {
			return &w.uplinks[i]
		}
	}
	return nil
}

// lookup asks the kernel for the route to dst and refuses one that does not
// leave through an uplink. Whoever is not Run holds w.mu.
func (w *Watcher) lookup(dst netip.Addr) (route, error) {
	r, kind, err := w.kernel.route(dst)
	switch {
	case err != nil:
		return route{}, err
	case kind == unix.RTN_LOCAL:
		return route{}, fmt.Errorf("%s is an address of this node itself; two nodes may not have the same one", dst)
	case kind != unix.RTN_UNICAST:
		return route{}, fmt.Errorf("the kernel's route to %s refuses packets (see: ip route get %s)", dst, dst)
	case w.uplink(r.ifindex) == nil:
		dev := w.devices[r.ifindex].name
		if dev == "" {
			dev = fmt.Sprintf("device %d", r.ifindex)
		}
		return route{}, fmt.Errorf("the kernel's route to %s leaves through %s, which is no uplink (uplinks: %s); correct the route or the list of uplinks",
			dst, dev, strings.Join(w.names, ", "))
	}
	return r, nil
}

// route asks the kernel for the route to dst and what kind it is.
func (k *kernel) route(dst netip.Addr) (r route, kind int, err error) {
	var found []netlink.Route
	err = k.do(func(h *netlink.Handle) (err error) {
		found, err = h.RouteGet(dst.AsSlice())
		return err
	})
	switch {
	case errors.Is(err, errStopped):
		return route{}, 0, err
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), err == nil && len(found) == 0:
		return route{}, 0, fmt.Errorf("the kernel has no route to %s; add one, or check the addresses of the uplinks", dst)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL): // prohibit, blackhole
		return route{}, unix.RTN_BLACKHOLE, nil
	case err != nil:
		return route{}, 0, fmt.Errorf("%w: the route to %s: %w", errRefused, dst, err)
	}
	a := &found[0]
	r = route{ifindex: a.LinkIndex, via: dst, src: addrFrom(a.Src), mtu: a.MTU}
	if via, ok := a.Via.(*netlink.Via); ok { // an IPv4 route through an IPv6 gateway
		r.via = addrFrom(via.Addr)
	} else if len(a.Gw) != 0 {
		r.via = addrFrom(a.Gw)
	}
	return r, a.Type, nil
}
