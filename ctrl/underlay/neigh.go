package underlay

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"culvert/fib"
	"culvert/internal/packet"
)

// States of a neighbour whose link-layer address may be used, and those in
// which it is nobody's business to check it.
const (
	usableStates = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | staticStates
	staticStates = netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// clockTick is the unit of ages in neighbour messages: USER_HZ is 100 on every
// architecture that Culvert runs on.
const clockTick = 10 * time.Millisecond

// hopKey is a next hop: one neighbour of one uplink.
type hopKey struct {
	ifindex int
	addr    netip.Addr
}

// neighbour is the kernel's entry; the zero neighbour is none.
type neighbour struct {
	state int
	mac   packet.MAC
	// confirmed is how long ago the neighbour was last heard of.
	confirmed time.Duration
	// foreign entries are kept up to date by somebody else: a routing daemon
	// that learned them, or the kernel at somebody's behest.
	foreign bool
}

// hop is a next hop of tracked destinations. Run alone changes it.
type hop struct {
	neighbour           // mac is the last known one
	tries     int       // attempts to resolve it since it was last usable
	due       time.Time // when to look at it again
}

func (n *neighbour) usable() bool { return n.state&usableStates != 0 && !n.mac.IsZero() }

// stateName is the state as 'ip neigh' shows it.
func (n *neighbour) stateName() string {
	switch n.state {
	case netlink.NUD_NONE:
		return "NONE"
	case netlink.NUD_INCOMPLETE:
		return "INCOMPLETE"
	case netlink.NUD_REACHABLE:
		return "REACHABLE"
	case netlink.NUD_STALE:
		return "STALE"
	case netlink.NUD_DELAY:
		return "DELAY"
	case netlink.NUD_PROBE:
		return "PROBE"
	case netlink.NUD_FAILED:
		return "FAILED"
	case netlink.NUD_NOARP:
		return "NOARP"
	case netlink.NUD_PERMANENT:
		return "PERMANENT"
	}
	return fmt.Sprintf("state 0x%02x", n.state)
}

// take replaces what is known with n and reports whether that makes a
// difference to somebody who sends.
func (h *hop) take(n neighbour) (changed bool) {
	before := h.neighbour
	if n.mac.IsZero() {
		n.mac = before.mac
	}
	h.neighbour = n
	return h.usable() != before.usable() || h.mac != before.mac || h.state&staticStates != before.state&staticStates
}

// Neighbours are the next hops of tracked destinations that the kernel has an
// entry for, ordered by address and device. MAC is the last known one. The
// result is the caller's.
func (w *Watcher) Neighbours() []fib.Neighbour {
	w.mu.RLock()
	defer w.mu.RUnlock()
	all := make([]fib.Neighbour, 0, len(w.hops))
	for key, h := range w.hops {
		up := w.uplink(key.ifindex)
		if up == nil || h.state == netlink.NUD_NONE {
			continue
		}
		all = append(all, fib.Neighbour{Addr: key.addr, MAC: h.mac, Dev: up.Name, State: h.stateName()})
	}
	slices.SortFunc(all, func(a, b fib.Neighbour) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Dev, b.Dev))
	})
	return all
}

// neighbourFrom reads a message about a neighbour; ok is false if it is about
// something else, such as a bridge's forwarding entry.
func neighbourFrom(m []byte) (key hopKey, n neighbour, ok bool) {
	e, err := netlink.NeighDeserialize(m)
	if err != nil || e.Family != unix.AF_INET && e.Family != unix.AF_INET6 || e.Flags&netlink.NTF_PROXY != 0 {
		return hopKey{}, neighbour{}, false
	}
	n = neighbour{
		state: e.State, confirmed: time.Duration(e.Confirmed) * clockTick,
		foreign: e.Flags&netlink.NTF_EXT_LEARNED != 0 || e.FlagsExt&netlink.NTF_EXT_MANAGED != 0,
	}
	if len(e.HardwareAddr) == len(n.mac) {
		n.mac = packet.MAC(e.HardwareAddr)
	}
	return hopKey{e.LinkIndex, addrFrom(e.IP)}, n, true
}

// neighRequest sends a message about one neighbour.
func (k *kernel) neighRequest(kind, flags, state, neighFlags int, key hopKey) ([][]byte, error) {
	return k.request(unix.NETLINK_ROUTE, kind, flags, unix.RTM_NEWNEIGH,
		&netlink.Ndmsg{
			Family: uint8(family(key.addr)), Index: uint32(key.ifindex), State: uint16(state), Flags: uint8(neighFlags),
		},
		nl.NewRtAttr(netlink.NDA_DST, key.addr.AsSlice()))
}

// neighbour reads one entry; that there is none is no error.
func (k *kernel) neighbour(key hopKey) (neighbour, error) {
	answers, err := k.neighRequest(unix.RTM_GETNEIGH, 0, 0, 0, key)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return neighbour{}, nil
	}
	if err != nil {
		return neighbour{}, fmt.Errorf("asking the kernel for neighbour %s: %w", key.addr, err)
	}
	for _, m := range answers {
		if _, n, ok := neighbourFrom(m); ok {
			return n, nil
		}
	}
	return neighbour{}, nil
}

// solicit makes the kernel resolve a neighbour that it does not know, as if it
// had a packet for it: it broadcasts requests, three within three seconds.
func (k *kernel) solicit(key hopKey) error {
	_, err := k.neighRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK, netlink.NUD_NONE, netlink.NTF_USE, key)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil // it has just gone; the notification is on its way
	case errors.Is(err, unix.ENOBUFS):
		name := "ipv4"
		if key.addr.Is6() {
			name = "ipv6"
		}
		return fmt.Errorf("the kernel's neighbour table is full: raise net.%s.neigh.default.gc_thresh3 above the number of nodes", name)
	case err != nil:
		return fmt.Errorf("asking the kernel to resolve %s: %w", key.addr, err)
	}
	return nil
}

// confirm makes the kernel ask a neighbour whether it still has its address:
// one unicast request, repeated twice if there is no answer. The entry keeps
// its address meanwhile, and fails after three seconds.
func (k *kernel) confirm(key hopKey) error {
	// Neither REPLACE nor CREATE: the entry's flags stay, and one that has just
	// gone does not come back empty.
	_, err := k.neighRequest(unix.RTM_NEWNEIGH, unix.NLM_F_ACK, netlink.NUD_PROBE, 0, key)
	gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) // no address to confirm
	if err != nil && !gone {
		return fmt.Errorf("asking the kernel to confirm %s: %w", key.addr, err)
	}
	return nil
}
