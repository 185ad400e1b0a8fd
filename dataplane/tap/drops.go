package tap

import (
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// drops reads what a device lost before anybody could read it: frames that
// found its ring full, or no queue open. The counter is the device's, for all of
// its queues. The nil value has nothing to count.
type drops struct {
	mu     sync.Mutex
	handle *netlink.Handle // nil once closed
	index  int
	before uint64 // lost before the queues were opened
	last   uint64
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
	if s := l.Attrs().Statistics; s != nil {
		d.before = s.TxDropped
	}
	return d, nil
}

// read is the number of frames lost since openDrops. When the device cannot be
// asked any more it is what it was last.
func (d *drops) read() uint64 {
	if d == nil {
		return 0
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
	if s := l.Attrs().Statistics; s != nil && s.TxDropped >= d.before {
		d.last = s.TxDropped - d.before
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
