// Package underlay mirrors what the kernel knows about the network between the
// nodes: the uplinks with their addresses, and for each VTEP the route, the
// next hop and its link-layer address. The kernel stays in charge of all of it;
// this package reads over rtnetlink, in the network namespace that New was
// called in, and makes the kernel resolve the next hops that Culvert sends to,
// because the kernel never sees that traffic and would let them go.
//
// Here live netlink sockets and what they say, and nothing else: no table of
// the dataplane, no configuration file, no Kubernetes. Nothing of the kernel is
// changed here except the state of neighbours that the kernel itself resolves:
// no route, address or link setting, and no neighbour that somebody made
// permanent or keeps up to date by himself.
//
//	kernel ── sub (multicast groups) ──→ Run ──→ mirror ──→ Uplinks, NextHop, Neighbours
//	       ←─ kernel (requests) ────────  │
//	                                      └───→ Events
//
// One goroutine, Run, writes the mirror; all exported methods are safe for
// concurrent use.
package underlay

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"culvert/internal/packet"
)

// Link is an uplink as it is now.
type Link struct {
	Index  int    // 0: there is no device of that name now
	Name   string // as configured
	MAC    packet.MAC
	MTU    int
	Up     bool           // administratively up and with carrier
	Addrs  []netip.Prefix // usable ones, in the kernel's order; not tentative
	Queues int            // receive queues in use
	Kind   string         // of virtual devices: veth, bond, vlan, …
}

// EventKind says what an Event is about.
type EventKind uint8

// Kinds of events.
const (
	// Changed says that what Uplinks, NextHop of a tracked address, or
	// Neighbours return is not what it was. The steps of the kernel's own cycle
	// between usable states of a neighbour (REACHABLE, STALE, DELAY, PROBE) and
	// between unusable ones (INCOMPLETE, FAILED, none) are not told.
	Changed EventKind = iota + 1
	// LinkGone says that a device was removed or moved to another namespace.
	LinkGone
	// LinkDown says that a device lost its carrier or was taken down.
	LinkDown
	// LinkUp says that a device is up and has its carrier.
	LinkUp
)

// String is the kind's name.
func (k EventKind) String() string {
	names := [...]string{"none", "changed", "link gone", "link down", "link up"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// Event is a change in the kernel. Device events are about any device of the
// namespace, the host ends of pods included; Changed has no device.
type Event struct {
	Kind    EventKind
	Ifindex int
	Name    string
}

// Watcher mirrors the kernel. Between New and Run it answers from what New
// read; after Run has returned, from what was last known.
type Watcher struct {
	log     *slog.Logger
	kernel  *kernel
	first   *sub // the subscription that New made, until Run takes it
	names   []string
	events  chan Event
	kick    chan struct{} // Track to Run: the set is another one
	started atomic.Bool

	mu      sync.RWMutex // guards what follows; written by Run and Track only
	devices map[int]device
	uplinks []Link // in the order of names
	targets map[netip.Addr]*target
	hops    map[hopKey]*hop
	outside []outside
	ours    string // the device that leads to pods; written before Run
}

// New opens the netlink sockets and reads the uplinks of these names; without
// names, it takes the device of the default route, IPv4's before IPv6's, that
// of the lowest metric. The choice is made once: a default route that moves
// later moves no uplink. Errors say what the operator is to configure.
//
// Run has to be called for the sockets to be closed.
func New(log *slog.Logger, uplinks []string) (*Watcher, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	w := &Watcher{
		log: log, kernel: k, events: make(chan Event), kick: make(chan struct{}, 1),
		targets: map[netip.Addr]*target{}, hops: map[hopKey]*hop{},
	}
	// Subscribed first, read afterwards: nothing falls in between.
	if w.first, err = k.subscribe(); err == nil {
		err = w.begin(uplinks)
	}
	if err != nil {
		return nil, errors.Join(err, w.stop(w.first))
	}
	return w, nil
}

// Overlook leaves out of Routes what leads to the device of that name: culvertd's own.
// To be called before Run.
func (w *Watcher) Overlook(device string) { w.ours = device }

// begin reads the devices and settles which are the uplinks.
func (w *Watcher) begin(names []string) (err error) {
	if w.devices, err = w.kernel.links(); err != nil {
		return err
	}
	if len(names) == 0 {
		name, err := w.defaultUplink()
		if err != nil {
			return err
		}
		names = []string{name}
	}
	for _, name := range names {
		if slices.Contains(w.names, name) {
			continue
		}
		index, ok := findDevice(w.devices, name)
		if !ok {
			return fmt.Errorf("there is no device %s on this node, which has %s; name the NIC that reaches the other nodes",
				name, strings.Join(w.deviceNames(), ", "))
		}
		if !w.devices[index].ethernet {
			return fmt.Errorf("%s is no Ethernet device and cannot carry tunnels; name the NIC beneath it", name)
		}
		w.names = append(w.names, name)
	}
	w.uplinks, err = w.readUplinks(true)
	return err
}

// stop closes the sockets. The mirror stays readable.
func (w *Watcher) stop(s *sub) error {
	if s != nil {
		s.close()
	}
	return w.kernel.close()
}

// Events is where Run tells what happened; it is for one consumer. Changed is
// coalesced: at most one waits. Device events are queued without bound, in
// order. The channel is never closed: a consumer ends with its own context.
func (w *Watcher) Events() <-chan Event { return w.events }

// Uplinks is the current state of all uplinks, in the order of the
// configuration. One that disappeared has index 0 and no more than its name.
// The result is the caller's.
func (w *Watcher) Uplinks() []Link {
	w.mu.RLock()
	defer w.mu.RUnlock()
	all := slices.Clone(w.uplinks)
	for i := range all {
		all[i].Addrs = slices.Clone(all[i].Addrs)
	}
	return all
}
