package underlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
	// Weight is the next hop's share among those of the same route, 1 to 256.
	Weight int
}

// route is the kernel's answer for a destination. The zero route is none.
type route struct {
	src  netip.Addr
	mtu  int // 0: the link's
	hops []way
}

// way is one next hop of a route.
type way struct {
	hopKey
	weight int
}

func (r *route) equal(o *route) bool {
	return r.src == o.src && r.mtu == o.mtu && slices.Equal(r.hops, o.hops)
}

// target is a tracked destination.
type target struct {
	known bool // looked up since it is tracked
	route route
	err   error // why there is no route
}

// same reports whether two lookups have the same outcome.
func (t *target) same(o *target) bool {
	if t.known != o.known || !t.route.equal(&o.route) || (t.err == nil) != (o.err == nil) {
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
	changed := false
	for _, dst := range dsts {
		if !dst.IsValid() {
			continue
		}
		dst = dst.Unmap().WithZone("")
		if next[dst] = w.targets[dst]; next[dst] == nil {
			next[dst], changed = &target{}, true
		}
	}
	changed = changed || len(next) != len(w.targets)
	w.targets = next
	w.mu.Unlock()
	if !changed {
		return
	}
	select {
	case w.kick <- struct{}{}:
	default: // Run has not seen the last one yet
	}
}

// NextHop is the first of NextHops.
func (w *Watcher) NextHop(dst netip.Addr) (NextHop, error) {
	all, err := w.NextHops(dst)
	if err != nil {
		return NextHop{}, err
	}
	return all[0], nil
}

// NextHops is how dst is reached now, at least one way unless there is an error,
// and more if the kernel's route has several; in the order of Ifindex and Via.
// The answer is from the mirror if dst is tracked; otherwise the kernel is asked,
// and not made to resolve anything. It fails if there is no route, or none
// through an uplink; the error names the device. A next hop that is not resolved
// is no error. The result is the caller's.
func (w *Watcher) NextHops(dst netip.Addr) ([]NextHop, error) {
	if !dst.IsValid() {
		return nil, errors.New("no address to look up a route for")
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
		return nil, t.err
	}
	all := make([]NextHop, 0, len(t.route.hops))
	for _, h := range t.route.hops {
		nh, err := w.nextHop(&t.route, h)
		if err != nil {
			return nil, err
		}
		if nh.Ifindex != 0 {
			all = append(all, nh)
		}
	}
	if len(all) == 0 { // they went while Run has not looked again
		return nil, fmt.Errorf("the route to %s leaves through an uplink that has just disappeared", dst)
	}
	return all, nil
}

// nextHop is one way of a route with what the mirror knows of it; the zero
// NextHop if its uplink is gone. Whoever is not Run holds w.mu.
func (w *Watcher) nextHop(r *route, by way) (NextHop, error) {
	h := w.hops[by.hopKey]
	if h == nil {
		n, err := w.kernel.neighbour(by.hopKey)
		if err != nil {
			return NextHop{}, err
		}
		h = &hop{neighbour: n}
	}
	up := w.uplink(by.ifindex)
	if up == nil {
		return NextHop{}, nil
	}
	nh := NextHop{
		Dev: up.Name, Ifindex: up.Index, Src: r.src, Via: by.addr, MTU: up.MTU,
		SrcMAC: up.MAC, MAC: h.mac, Resolved: h.usable(), State: h.stateName(), Weight: by.weight,
	}
	if r.mtu > 0 {
		nh.MTU = min(nh.MTU, r.mtu)
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

// lookup asks the kernel for the route to dst. It leaves out next hops that do
// not leave through an uplink, and refuses a route that has no other. Whoever is
// not Run holds w.mu.
func (w *Watcher) lookup(dst netip.Addr) (route, error) {
	r, kind, err := w.kernel.route(dst)
	switch {
	case err != nil:
		return route{}, err
	case kind == unix.RTN_LOCAL:
		return route{}, fmt.Errorf("%s is an address of this node itself; two nodes may not have the same one", dst)
	case kind != unix.RTN_UNICAST:
		return route{}, fmt.Errorf("the kernel's route to %s refuses packets (see: ip route get %s)", dst, dst)
	}
	through := r.hops[0].ifindex
	r.hops = slices.DeleteFunc(r.hops, func(h way) bool { return w.uplink(h.ifindex) == nil })
	if len(r.hops) == 0 {
		dev := w.devices[through].name
		if dev == "" {
			dev = fmt.Sprintf("device %d", through)
		}
		return route{}, fmt.Errorf("the kernel's route to %s leaves through %s, which is no uplink (uplinks: %s); correct the route or the list of uplinks",
			dst, dev, strings.Join(w.names, ", "))
	}
	return r, nil
}
