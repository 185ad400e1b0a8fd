package tap

import (
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lost is what a device lost behind our back. The counters are the device's, for
// all of its queues.
type lost struct {
	unread  uint64 // from the pod: frames that found the ring full, or no queue open
	refused uint64 // for the pod: frames that found a CPU's backlog full (net/core/dev.c, enqueue_to_backlog), or nobody in the pod to take them
}

// drops reads what a device lost. The nil value has nothing to count.
type drops struct {
	mu     sync.Mutex
	handle *netlink.Handle // nil once closed
	index  int
	before lost // when the queues were opened
	last   lost
}

// openDrops looks at a device of the calling thread's network namespace. The
// socket stays in that namespace.
func openDrops(name string) (*drops, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	l, err := h.LinkByName(name)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("finding the device: %w", err)
	}
	d := &drops{handle: h, index: l.Attrs().Index}
	d.before = lostOf(l)
	return d, nil
}

func lostOf(l netlink.Link) lost {
	s := l.Attrs().Statistics
	if s == nil {
		return lost{}
	}
	return lost{unread: s.TxDropped, refused: s.RxDropped}
}

// read is what was lost since openDrops. When the device cannot be asked any more
// it is what it was last.
func (d *drops) read() lost {
	if d == nil {
		return lost{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ask()
	return d.last
}

// ask updates d.last. d.mu is held.
func (d *drops) ask() {
	if d.handle == nil {
		return
	}
	l, err := d.handle.LinkByIndex(d.index)
	if err != nil {
		return
	}
	if now := lostOf(l); now.unread >= d.before.unread && now.refused >= d.before.refused {
		d.last = lost{now.unread - d.before.unread, now.refused - d.before.refused}
	}
}

// close asks a last time.
func (d *drops) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ask()
	if d.handle != nil {
		d.handle.Close()
		d.handle = nil
	}
}
