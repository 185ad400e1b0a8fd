package underlay

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/packet"
	"culvert/internal/testnet"
)

// brisk is for tests that are not about the pace itself.
var brisk = pace{confirm: 500 * time.Millisecond, retryFirst: 200 * time.Millisecond, retryMost: 3 * time.Second}

// bed is a node whose uplink dev leads to pdev of peer.
type bed struct {
	t          *testing.T
	node, peer *testnet.NS
	dev, pdev  string
	w          *Watcher
	events     *recorder
	sub        *sub // the one that New made
	stop       func()
}

// newBed makes the namespaces: node has .1, peer .2 of 10.77.0.0/24 and
// fd77::/64. Nothing is watched yet.
func newBed(t *testing.T, opts ...testnet.VethOption) *bed {
	t.Helper()
	b := &bed{t: t, node: testnet.NewNS(t), peer: testnet.NewNS(t), dev: name("n"), pdev: name("p")}
	for _, ns := range []*testnet.NS{b.node, b.peer} {
		// The kernel asks for IPv6 neighbours from its link-local address, which
		// is not to wait for duplicate address detection.
		ns.Sysctl(t, "net.ipv6.conf.default.accept_dad", "0")
	}
	testnet.Veth(t, b.node, b.dev, b.peer, b.pdev, opts...)
	b.node.AddAddr(t, b.dev, "10.77.0.1/24")
	b.node.AddAddr(t, b.dev, "fd77::1/64")
	b.peer.AddAddr(t, b.pdev, "10.77.0.2/24")
	b.peer.AddAddr(t, b.pdev, "fd77::2/64")
	return b
}

// watch starts a watcher of the bed's uplink that ends with the test.
func (b *bed) watch(p pace, track ...string) *bed {
	b.t.Helper()
	b.w = open(b.t, b.node, b.dev)
	b.track(track...)
	b.run(p)
	return b
}

func (b *bed) run(p pace) {
	ctx, cancel := context.WithCancel(context.Background())
	b.sub = b.w.first
	done := make(chan error, 1)
	go func() { done <- b.w.run(ctx, p) }()
	b.events = record(ctx, b.w)
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run returned %v", err)
		}
		b.events.done.Wait()
	})
	b.t.Cleanup(b.stop)
}

func open(t *testing.T, ns *testnet.NS, uplinks ...string) (w *Watcher) {
	t.Helper()
	ns.Do(t, func() {
		var err error
		if w, err = New(slog.New(slog.DiscardHandler), uplinks); err != nil {
			t.Fatalf("New: %v", err)
		}
	})
	return w
}

func (b *bed) track(dsts ...string) {
	all := make([]netip.Addr, len(dsts))
	for i, d := range dsts {
		all[i] = netip.MustParseAddr(d)
	}
	b.w.Track(all)
}

// hop is NextHop of a destination that has one.
func (b *bed) hop(dst string) NextHop {
	b.t.Helper()
	nh, err := b.w.NextHop(netip.MustParseAddr(dst))
	if err != nil {
		b.t.Fatalf("next hop of %s: %v", dst, err)
	}
	return nh
}

// until waits for ok, which says what it sees.
func (b *bed) until(limit time.Duration, what string, ok func() (bool, any)) {
	b.t.Helper()
	var last any
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		good, seen := ok()
		if last = seen; good {
			return
		}
	}
	b.t.Fatalf("waited %v for %s; at last: %+v", limit, what, last)
}

// resolved waits until a destination is reached by mac.
func (b *bed) resolved(limit time.Duration, dst string, mac packet.MAC) {
	b.t.Helper()
	b.until(limit, fmt.Sprintf("%s at %s", dst, mac), func() (bool, any) {
		nh, err := b.w.NextHop(netip.MustParseAddr(dst))
		return err == nil && nh.Resolved && nh.MAC == mac, fmt.Sprintf("%+v, %v", nh, err)
	})
}

func (b *bed) peerMAC() packet.MAC { return packet.MAC(b.peer.Attrs(b.t, b.pdev).HardwareAddr) }

func name(infix string) string { return fmt.Sprintf("cvu%s%06x", infix, rand.Uint32N(1<<24)) }

// recorder consumes a watcher's events.
type recorder struct {
	mu   sync.Mutex
	all  []Event
	done sync.WaitGroup
}

func record(ctx context.Context, w *Watcher) *recorder {
	r := &recorder{}
	r.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-w.Events():
				r.mu.Lock()
				r.all = append(r.all, e)
				r.mu.Unlock()
			}
		}
	})
	return r
}

func (r *recorder) count(match func(Event) bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.all {
		if match(e) {
			n++
		}
	}
	return n
}

// forget empties the record.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = nil
}

func (b *bed) event(kind EventKind, dev string) {
	b.t.Helper()
	b.until(3*time.Second, fmt.Sprintf("the event %v of %q", kind, dev), func() (bool, any) {
		return b.events.count(func(e Event) bool { return e.Kind == kind && e.Name == dev }) > 0, b.events
	})
}

// change runs netlink requests inside a namespace; they have to succeed.
func change(t testing.TB, ns *testnet.NS, dev string, f func(l netlink.Link) error) {
	t.Helper()
	ns.Do(t, func() {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			t.Fatalf("finding %s: %v", dev, err)
		}
		if err := f(l); err != nil {
			t.Fatalf("changing %s: %v", dev, err)
		}
	})
}

// addRoute adds a route; via may be empty.
func addRoute(t testing.TB, ns *testnet.NS, dev, dst, via string, edit ...func(*netlink.Route)) {
	t.Helper()
	change(t, ns, dev, func(l netlink.Link) error {
		_, prefix, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: prefix, Gw: net.ParseIP(via)}
		for _, e := range edit {
			e(r)
		}
		return netlink.RouteReplace(r)
	})
}

// requests counts the ARP requests for addr that arrive at a device from now
// on; only those to everybody with broadcast set, only those to it alone
// without.
func requests(t *testing.T, ns *testnet.NS, dev, addr string) (broadcast, unicast func() int) {
	t.Helper()
	var fd int
	ns.Do(t, func() {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			t.Fatal(err)
		}
		const arp = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, arp)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: l.Index}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { unix.Close(fd) })
	want := netip.MustParseAddr(addr).As4()
	var all, one int
	read := func() {
		for buf := make([]byte, 128); ; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return
			}
			if n < 42 || buf[21] != 1 || [4]byte(buf[38:42]) != want {
				continue
			}
			if packet.MAC(buf[:6]) == packet.Broadcast {
				all++
			} else {
				one++
			}
		}
	}
	return func() int { read(); return all }, func() int { read(); return one }
}
