package underlay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// requestTimeout ends a request that the kernel does not answer.
const requestTimeout = 5 * time.Second

var (
	// errStopped is the answer to requests after Run has returned.
	errStopped = errors.New("the underlay is not watched any more: culvertd is stopping")
	// errRefused says that the kernel could not answer, whatever the answer.
	errRefused = errors.New("the kernel did not answer")
)

// kernel sends requests to the kernel of one network namespace, from any
// goroutine and whatever namespace its thread is in. After close every request
// fails with errStopped.
type kernel struct {
	ns *os.File // the namespace, for sockets that are opened later

	mu     sync.RWMutex // held for reading during requests
	closed bool
	handle *netlink.Handle
	raw    map[int]*nl.SocketHandle // for requests that the library has not
}

// openKernel opens the sockets in the namespace of the calling thread.
func openKernel() (*kernel, error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace (is /proc mounted?): %w", err)
	}
	k := &kernel{ns: ns, raw: map[int]*nl.SocketHandle{}}
	k.handle, err = netlink.NewHandleAt(k.at(), unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a netlink socket: %w", err), ns.Close())
	}
	if err := k.handle.SetSocketTimeout(requestTimeout); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing a netlink socket: %w", err), k.close())
	}
	timeout := unix.NsecToTimeval(requestTimeout.Nanoseconds())
	for _, family := range []int{unix.NETLINK_ROUTE, unix.NETLINK_GENERIC} {
		s, err := nl.GetNetlinkSocketAt(k.at(), netns.None(), family)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening a netlink socket: %w", err), k.close())
		}
		k.raw[family] = &nl.SocketHandle{Socket: s}
		if err := errors.Join(s.SetSendTimeout(&timeout), s.SetReceiveTimeout(&timeout)); err != nil {
			return nil, errors.Join(fmt.Errorf("preparing a netlink socket: %w", err), k.close())
		}
	}
	return k, nil
}

func (k *kernel) at() netns.NsHandle { return netns.NsHandle(k.ns.Fd()) }

// close waits for requests under way and closes the sockets, once.
func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	k.handle.Close()
	for _, s := range k.raw {
		s.Close()
	}
	return k.ns.Close()
}

// do runs f, which sends requests through handle.
func (k *kernel) do(f func(h *netlink.Handle) error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return errStopped
	}
	return f(k.handle)
}

// request sends a message made of parts and returns the answers of type want.
func (k *kernel) request(family, kind, flags int, want uint16, parts ...nl.NetlinkRequestData) (answers [][]byte, err error) {
	err = k.do(func(*netlink.Handle) error {
		req := nl.NewNetlinkRequest(kind, flags)
		req.Sockets = k.raw
		for _, p := range parts {
			req.AddData(p)
		}
		answers, err = req.Execute(family, want)
		return err
	})
	return answers, err
}

// dump runs f again while the kernel says that the list changed under it. What
// an interrupted last try found is taken: the change itself is notified.
func (k *kernel) dump(what string, f func(h *netlink.Handle) error) error {
	return k.do(func(h *netlink.Handle) error {
		for range 5 {
			err := f(h)
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				if err != nil {
					return fmt.Errorf("listing the kernel's %s: %w", what, err)
				}
				return nil
			}
		}
		return nil
	})
}

// family is the address family of a.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addrFrom converts an address of the netlink library; none is invalid.
func addrFrom(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
