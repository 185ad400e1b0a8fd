package xsk

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watchRetry is the pause before a broken subscription is made anew.
const watchRetry = 200 * time.Millisecond

// Watch calls notify when a device of the network namespace ns (netns.None()
// for the calling thread's) comes up, goes down or is removed, and once for
// each device that exists at the start (before Watch returns), until done is
// closed. Up means that it is administratively up and has a carrier.
//
// Sockets cannot tell this themselves: a socket whose device is down or gone
// is merely silent. notify runs on one goroutine at a time and must not block
// for long. When the kernel had to drop notifications, Watch lists the devices
// again and reports what it missed.
func Watch(done <-chan struct{}, ns netns.NsHandle, notify func(ifindex int, state State)) error {
	own, err := cloneNS(ns)
	if err != nil {
		return fmt.Errorf("xsk: watching devices: opening the network namespace: %w", err)
	}
	w := &watcher{ns: own, notify: notify, known: map[int]State{}}
	sub, err := w.subscribe()
	if err != nil {
		own.Close()
		return fmt.Errorf("xsk: watching devices: %w", err)
	}
	go func() {
		defer own.Close()
		w.run(sub, done)
	}()
	return nil
}

// cloneNS is a descriptor of our own for the namespace: the subscription may
// have to be made again from another thread.
func cloneNS(ns netns.NsHandle) (netns.NsHandle, error) {
	if !ns.IsOpen() {
		return netns.Get()
	}
	fd, err := unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0)
	return netns.NsHandle(fd), err
}

type watcher struct {
	ns     netns.NsHandle
	notify func(ifindex int, state State)
	known  map[int]State
}

// subscription is one netlink subscription; closing end ends it.
type subscription struct {
	updates chan netlink.LinkUpdate
	end     chan struct{}
}

func (w *watcher) subscribe() (subscription, error) {
	s := subscription{updates: make(chan netlink.LinkUpdate, 64), end: make(chan struct{})}
	err := netlink.LinkSubscribeWithOptions(s.updates, s.end, netlink.LinkSubscribeOptions{Namespace: &w.ns})
	if err != nil {
		return s, fmt.Errorf("subscribing to link events: %w", err)
	}
	if err := w.list(); err != nil {
		s.stop()
		return s, err
	}
	return s, nil
}

// stop ends the subscription and waits for its goroutine.
func (s subscription) stop() {
	close(s.end)
	for range s.updates {
	}
}

// run handles events until done is closed, and subscribes again whenever the
// kernel or the library gave up on us.
func (w *watcher) run(sub subscription, done <-chan struct{}) {
	for {
		select {
		case <-done:
			sub.stop()
			return
		case u, ok := <-sub.updates:
			if ok {
				w.event(u)
				continue
			}
		}
		close(sub.end)
		var err error
		for sub, err = w.subscribe(); err != nil; sub, err = w.subscribe() {
			select {
			case <-done:
				return
			case <-time.After(watchRetry):
			}
		}
	}
}

func (w *watcher) event(u netlink.LinkUpdate) {
	if u.Link == nil || u.IfInfomsg.Family != unix.AF_UNSPEC {
		return // of a bridge port: RTM_DELLINK then means that it left the bridge
	}
	attrs := u.Link.Attrs()
	if u.Header.Type == unix.RTM_DELLINK {
		w.report(attrs.Index, StateGone)
		return
	}
	w.report(attrs.Index, stateOf(attrs))
}

// list compares the devices there are with the known ones.
func (w *watcher) list() error {
	h, err := netlink.NewHandleAt(w.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("listing devices: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("listing devices: %w", err)
	}
	present := map[int]bool{}
	for _, l := range links {
		present[l.Attrs().Index] = true
		w.report(l.Attrs().Index, stateOf(l.Attrs()))
	}
	for ifindex := range w.known {
		if !present[ifindex] {
			w.report(ifindex, StateGone)
		}
	}
	return nil
}

// stateOf is up when frames can be sent: IFF_UP and a carrier.
func stateOf(a *netlink.LinkAttrs) State {
	const working = unix.IFF_UP | unix.IFF_RUNNING
	if a.RawFlags&working == working {
		return StateUp
	}
	return StateDown
}

// report passes a change on.
func (w *watcher) report(ifindex int, state State) {
	was, known := w.known[ifindex]
	if known && was == state || !known && state == StateGone {
		return
	}
	if state == StateGone {
		delete(w.known, ifindex)
	} else {
		w.known[ifindex] = state
	}
	w.notify(ifindex, state)
}
