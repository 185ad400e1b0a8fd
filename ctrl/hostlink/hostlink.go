// Package hostlink keeps culvert0, the device by which the node's own stack and the
// pods meet: its addresses, the kernel's routes to the pod networks by it, and the
// sysctls without which Linux would not take what comes by it.
//
// Here live netlink requests about that one device. What it is to have is decided
// elsewhere; frames of it are dataplane/tap's.
//
// The device stays when culvertd ends: the node's connections to pods outlive a
// restart. Remove takes it away at uninstall.
package hostlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"culvert/dataplane/tap"
	"culvert/internal/packet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Name is the device's.
const Name = "culvert0"

// protocol marks routes as Culvert's (rtm_protocol; /etc/iproute2/rt_protos has no name
// for it). Others on the device are left alone.
const protocol = 197

// Want is what the device is to have. It is immutable once given away.
type Want struct {
	MTU int // of the pods; 0: as it is
	// Addrs are the node's in the pod network. The first of a family is the source of
	// what the node sends to pods.
	Addrs []netip.Addr
	// Networks are where pods are, and Pods where this node's are.
	Networks, Pods []netip.Prefix
	// Own are the node's addresses outside of the pods' network, with which packets of pods
	// come by the device for the kernel to send on.
	Own []netip.Addr
}

// Link is culvert0. Its methods are safe for concurrent use.
type Link struct {
	MAC packet.MAC

	log    *slog.Logger
	handle *netlink.Handle
	index  int
	kick   chan struct{}

	table tableWant // as it was written; Run's alone

	mu   sync.Mutex
	want Want
	err  error // why it is not as it is to be
}

// Open makes the device, or takes the one that is there, in the network namespace of the
// calling thread, ready for its queues to be opened with tap.Open.
func Open(log *slog.Logger) (*Link, error) {
	made, err := tap.MakePlain(Name)
	if err != nil {
		return nil, err
	}
	defer made.Close()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("%s: opening a netlink socket: %w", Name, err)
	}
	l := &Link{log: log, handle: h, kick: make(chan struct{}, 1)}
	if err := l.prepare(); err != nil {
		h.Close()
		return nil, err
	}
	return l, nil
}

// prepare brings a new device, or an old one, up.
func (l *Link) prepare() error {
	link, err := l.handle.LinkByName(Name)
	if err != nil {
		return fmt.Errorf("%s: looking at the device: %w", Name, err)
	}
	l.index = link.Attrs().Index
	for _, step := range []struct {
		what string
		err  error
	}{
		{"sysctls", setSysctls()},
		// Nobody is on that link to be asked for an address: what the kernel sends there is
		// addressed to the device's own MAC (arp_constructor of net/ipv4/arp.c).
		{"NOARP", l.handle.LinkSetARPOff(link)},
		{"queue length", l.handle.LinkSetTxQLen(link, ringLen)},
		{"up", l.handle.LinkSetUp(link)},
	} {
		if step.err != nil {
			return fmt.Errorf("%s: setting %s: %w", Name, step.what, step.err)
		}
	}
	l.MAC = packet.MAC(link.Attrs().HardwareAddr)
	return nil
}

// ringLen is how many frames each queue holds for culvertd to read.
const ringLen = 2048

// Close lets go of the kernel. The device stays.
func (l *Link) Close() { l.handle.Close() }

// Set says what the device is to have from now on. Run brings it there.
func (l *Link) Set(w Want) {
	l.mu.Lock()
	l.want = w
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default: // Run has not seen the last one yet
	}
}

// Problem says why the device is not as it is to be; nil if it is.
func (l *Link) Problem() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// lookEvery is how often the device is compared with what it is to be without a
// reason: somebody may have taken an address or a route away.
const lookEvery = 10 * time.Second

// Run keeps the device as it is to be until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
		case <-tick.C:
		}
		l.note(l.sync())
	}
}

// note keeps why it failed, and logs it once.
func (l *Link) note(err error) {
	l.mu.Lock()
	before := l.err
	l.err = err
	l.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		l.log.Error("the node's own way to pods is not complete", "cause", err)
	case err == nil && before != nil:
		l.log.Info("the node's own way to pods is complete")
	}
}

// sync brings the device to what it is to have.
func (l *Link) sync() error {
	l.mu.Lock()
	want := l.want
	l.mu.Unlock()
	link, err := l.handle.LinkByIndex(l.index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil // who opened it hears of that, and opens it anew
	}
	if err != nil {
		return fmt.Errorf("%s: looking at the device: %w", Name, err)
	}
	if want.MTU != 0 && link.Attrs().MTU != want.MTU {
		if err := l.handle.LinkSetMTU(link, want.MTU); err != nil {
			return fmt.Errorf("%s: setting MTU %d: %w", Name, want.MTU, err)
		}
	}
	if link.Attrs().Flags&unix.IFF_UP == 0 {
		if err := l.handle.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s: setting it up: %w", Name, err)
		}
	}
	is6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	v6 := slices.ContainsFunc(want.Networks, is6)
	v4 := slices.ContainsFunc(want.Networks, func(p netip.Prefix) bool { return !is6(p) })
	return errors.Join(forward(l.log, v4, v6), l.syncAddrs(link, want.Addrs), l.syncRoutes(want), l.syncTable(tableWant{want.Pods, want.Own}))
}

// Remove deletes the device, and with it its addresses and routes, and the table of
// nftables, in the network namespace of the calling thread. It reports false if there is
// nothing of Culvert's making.
func Remove() (removed bool, err error) {
	table, err := removeTable()
	device, deviceErr := removeDevice()
	return table || device, errors.Join(err, deviceErr)
}

func removeDevice() (removed bool, err error) {
	link, err := netlink.LinkByName(Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) || err == nil && link.Type() != "tuntap" {
		return false, nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return false, fmt.Errorf("removing %s: %w", Name, err)
	}
	return true, nil
}

// Exists reports whether there is something for Remove in the network namespace of the
// calling thread.
func Exists() (bool, error) {
	if hasTable() {
		return true, nil
	}
	link, err := netlink.LinkByName(Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for %s: %w", Name, err)
	}
	return link.Type() == "tuntap", nil
}
