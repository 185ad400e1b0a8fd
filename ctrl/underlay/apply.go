package underlay

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// apply enters notifications into the mirror.
func (l *loop) apply(msgs []syscall.NetlinkMessage) {
	now := time.Now()
	for i := range msgs {
		m := &msgs[i]
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			l.applyLink(m)
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			key, n, ok := neighbourFrom(m.Data)
			h := l.w.hops[key]
			if !ok || h == nil {
				continue
			}
			if m.Header.Type == unix.RTM_DELNEIGH {
				n = neighbour{}
			}
			l.takeHop(h, n, now)
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			l.want(&l.uplinks)
			l.want(&l.routes) // preferred sources
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWRULE, unix.RTM_DELRULE,
			unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
			l.want(&l.routes)
		}
	}
}

// applyLink enters a notification about a device.
func (l *loop) applyLink(m *syscall.NetlinkMessage) {
	if nl.DeserializeIfInfomsg(m.Data).Family != unix.AF_UNSPEC {
		return // about a bridge's port: the device itself is told separately
	}
	header := unix.NlMsghdr(m.Header)
	link, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		l.want(&l.resync)
		return
	}
	index := link.Attrs().Index
	if m.Header.Type == unix.RTM_DELLINK {
		l.setDevice(index, device{})
	} else {
		l.setDevice(index, deviceFrom(link))
	}
}

// setDevice enters a device into the mirror, or takes it out if d is zero, and
// tells the consumer.
func (l *loop) setDevice(index int, d device) {
	w := l.w
	before, had := w.devices[index]
	if before == d {
		return
	}
	gone := d == device{}
	w.mu.Lock()
	if gone {
		delete(w.devices, index)
	} else {
		w.devices[index] = d
	}
	w.mu.Unlock()
	switch {
	case gone && had:
		l.push(Event{LinkGone, index, before.name})
	case d.up && !before.up:
		l.push(Event{LinkUp, index, d.name})
	case before.up && !d.up:
		l.push(Event{LinkDown, index, d.name})
	}
	if slices.Contains(w.names, d.name) || slices.Contains(w.names, before.name) {
		l.want(&l.uplinks)
		l.want(&l.routes) // the kernel drops routes with their device silently
	} else if before.up != d.up {
		l.want(&l.routes)
	}
}

// refresh reads what is wanted. What it could not read stays wanted.
func (l *loop) refresh(now time.Time) error {
	full := l.resync
	if full {
		devices, err := l.w.kernel.links()
		if err != nil {
			return err
		}
		for index := range l.w.devices {
			if _, ok := devices[index]; !ok {
				l.setDevice(index, device{})
			}
		}
		for index, d := range devices {
			l.setDevice(index, d)
		}
		l.resync, l.uplinks, l.routes = false, true, true
		l.resyncAt = now.Add(resyncEvery)
	}
	if l.uplinks {
		if err := l.refreshUplinks(full, now); err != nil {
			return err
		}
		l.uplinks = false
	}
	if l.routes {
		l.routes = false // Track may want it again meanwhile
		if err := l.refreshRoutes(full, now); err != nil {
			l.routes = true
			return err
		}
	}
	return nil
}

// refreshUplinks reads the uplinks again.
func (l *loop) refreshUplinks(queues bool, now time.Time) error {
	w := l.w
	next, err := w.readUplinks(queues)
	if err != nil {
		return err
	}
	before := w.uplinks
	if slices.EqualFunc(before, next, sameLink) {
		return nil
	}
	w.mu.Lock()
	w.uplinks = next
	w.mu.Unlock()
	l.push(Event{Kind: Changed})
	for i := range next {
		if next[i].Up && !before[i].Up || !slices.Equal(next[i].Addrs, before[i].Addrs) {
			l.hurry(next[i].Index, now)
		}
	}
	return nil
}

func sameLink(a, b Link) bool {
	return a.Index == b.Index && a.Name == b.Name && a.MAC == b.MAC && a.MTU == b.MTU && a.Up == b.Up &&
		a.Queues == b.Queues && a.Kind == b.Kind && slices.Equal(a.Addrs, b.Addrs)
}

// refreshRoutes looks the tracked destinations up again and settles which next
// hops there are. With all set, it reads the known next hops again too.
func (l *loop) refreshRoutes(all bool, now time.Time) error {
	w := l.w
	w.mu.RLock()
	dsts := slices.Collect(maps.Keys(w.targets))
	w.mu.RUnlock()
	found := make(map[netip.Addr]*target, len(dsts))
	for _, dst := range dsts {
		r, err := w.lookup(dst) // without the lock: nobody else writes what it reads
		if errors.Is(err, errRefused) {
			return err // no answer is not the answer that there is no route
		}
		found[dst] = &target{known: true, route: r, err: err}
	}

	routes, err := w.readRoutes()
	if err != nil {
		return err
	}
	hops, err := l.findHops(found, routes, all, now)
	if err != nil {
		return err
	}
	changed := len(hops) != len(w.hops) ||
		!slices.EqualFunc(routes, w.outside, func(a, b outside) bool { return a.equal(&b) })
	w.mu.Lock()
	for dst, t := range found {
		if was := w.targets[dst]; was != nil { // still tracked
			changed = changed || !was.same(t)
			w.targets[dst] = t
		}
	}
	w.hops, w.outside = hops, routes
	w.mu.Unlock()
	if changed {
		l.push(Event{Kind: Changed})
	}
	return nil
}

// findHops are the next hops of the destinations found and of the kernel's routes:
// those that there are already, read again with all set, and new ones.
func (l *loop) findHops(found map[netip.Addr]*target, routes []outside, all bool, now time.Time) (map[hopKey]*hop, error) {
	hops := make(map[hopKey]*hop, len(l.w.hops))
	for _, t := range found {
		if err := l.addHops(hops, &t.route, all, now); err != nil { // none with an error
			return nil, err
		}
	}
	for i := range routes {
		if err := l.addHops(hops, &routes[i].via, all, now); err != nil {
			return nil, err
		}
	}
	return hops, nil
}

// addHops adds a route's next hops to those that there are to be.
func (l *loop) addHops(hops map[hopKey]*hop, r *route, all bool, now time.Time) error {
	for _, by := range r.hops {
		key := by.hopKey
		if hops[key] != nil {
			continue
		}
		h := l.w.hops[key]
		if h == nil || all {
			n, err := l.w.kernel.neighbour(key)
			if err != nil {
				return err
			}
			if h == nil {
				h = &hop{neighbour: n, due: now}
				l.keepBy(now)
			} else {
				l.takeHop(h, n, now)
			}
		}
		hops[key] = h
	}
	return nil
}
