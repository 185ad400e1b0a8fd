package underlay

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/testnet"
)

func TestUplinkIsMirrored(t *testing.T) {
	t.Parallel()
	b := newBed(t, testnet.Queues(2)).watch(brisk, "10.77.0.2")
	attrs := b.node.Attrs(t, b.dev)
	b.until(2*time.Second, "both ends to be up", func() (bool, any) { l := b.w.Uplinks()[0]; return l.Up, l })
	l := b.w.Uplinks()[0]
	if l.Index != attrs.Index || l.Name != b.dev || l.MAC.String() != attrs.HardwareAddr.String() || l.MTU != 1500 || l.Queues != 2 || l.Kind != "veth" {
		t.Errorf("uplink is %+v", l)
	}
	if !slices.Contains(l.Addrs, netip.MustParsePrefix("10.77.0.1/24")) || !slices.Contains(l.Addrs, netip.MustParsePrefix("fd77::1/64")) {
		t.Errorf("addresses are %v", l.Addrs)
	}

	b.events.forget()
	change(t, b.node, b.dev, func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1450) })
	b.until(2*time.Second, "the MTU", func() (bool, any) {
		return b.w.Uplinks()[0].MTU == 1450 && b.hop("10.77.0.2").MTU == 1450, b.w.Uplinks()
	})
	b.event(Changed, "")

	b.events.forget()
	b.node.AddAddr(t, b.dev, "10.77.0.21/24")
	change(t, b.node, b.dev, func(l netlink.Link) error {
		a, _ := netlink.ParseAddr("10.77.0.1/24")
		b.node.Sysctl(t, "net.ipv4.conf.all.promote_secondaries", "1")
		return netlink.AddrDel(l, a)
	})
	b.until(2*time.Second, "the address", func() (bool, any) {
		l := b.w.Uplinks()[0]
		return slices.Contains(l.Addrs, netip.MustParsePrefix("10.77.0.21/24")) &&
			!slices.Contains(l.Addrs, netip.MustParsePrefix("10.77.0.1/24")), l
	})
	b.until(2*time.Second, "the source", func() (bool, any) {
		nh, err := b.w.NextHop(netip.MustParseAddr("10.77.0.2"))
		return err == nil && nh.Src == netip.MustParseAddr("10.77.0.21"), nh
	})
	b.event(Changed, "")
}

func TestLinkFlap(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(usualPace, "10.77.0.2")
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	b.events.forget()
	b.peer.Down(t, b.pdev) // the cable
	b.event(LinkDown, b.dev)
	b.until(2*time.Second, "the loss of carrier", func() (bool, any) {
		return !b.w.Uplinks()[0].Up && !b.hop("10.77.0.2").Resolved, b.hop("10.77.0.2")
	})
	b.peer.Up(t, b.pdev)
	b.event(LinkUp, b.dev)
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())

	b.events.forget()
	b.node.Down(t, b.dev) // the kernel drops the route
	b.event(LinkDown, b.dev)
	b.until(2*time.Second, "the loss of the route", func() (bool, any) {
		_, err := b.w.NextHop(netip.MustParseAddr("10.77.0.2"))
		return err != nil && strings.Contains(err.Error(), "no route to 10.77.0.2"), err
	})
	b.node.Up(t, b.dev)
	b.event(LinkUp, b.dev)
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
}

func TestUplinkGoesAndComesBack(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(brisk, "10.77.0.2")
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	old := b.w.Uplinks()[0].Index
	b.events.forget()
	b.node.Delete(t, b.dev)
	b.event(LinkGone, b.dev)
	b.event(Changed, "")
	b.until(2*time.Second, "the uplink to be gone", func() (bool, any) { l := b.w.Uplinks()[0]; return l.Index == 0, l })
	if l := b.w.Uplinks()[0]; l.Up || l.Name != b.dev || len(l.Addrs) > 0 {
		t.Errorf("an uplink that is gone is %+v", l)
	}
	b.until(2*time.Second, "its next hop to be gone", func() (bool, any) {
		_, err := b.w.NextHop(netip.MustParseAddr("10.77.0.2"))
		return err != nil && len(b.w.Neighbours()) == 0, err
	})

	b.events.forget()
	testnet.Veth(t, b.node, name("x"), b.peer, name("y")) // takes an index
	testnet.Veth(t, b.node, b.dev, b.peer, b.pdev)
	b.node.AddAddr(t, b.dev, "10.77.0.1/24")
	b.peer.AddAddr(t, b.pdev, "10.77.0.2/24")
	b.event(LinkUp, b.dev)
	b.resolved(3*time.Second, "10.77.0.2", b.peerMAC())
	if l := b.w.Uplinks()[0]; l.Index == 0 || l.Index == old || !l.Up {
		t.Errorf("the uplink that came back is %+v, was %d", l, old)
	}
}

func TestQueuesInUseAreCounted(t *testing.T) {
	t.Parallel()
	b := newBed(t) // a queue for each processor is allocated, one is used
	bridge := name("b")
	b.node.Do(t, func() { // its driver has no channels
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, TxQLen: -1}}); err != nil {
			t.Fatal(err)
		}
	})
	w := open(t, b.node, b.dev, bridge)
	defer w.stop(w.first)
	for _, l := range w.Uplinks() {
		if l.Queues != 1 {
			t.Errorf("%s has %d queues, want 1", l.Name, l.Queues)
		}
	}
}

func TestLeavingABridgeIsNotBeingRemoved(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(brisk)
	pod, bridge := name("h"), name("b")
	testnet.Veth(t, b.node, pod, b.peer, name("i"))
	b.event(LinkUp, pod)
	change(t, b.node, pod, func(l netlink.Link) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, TxQLen: -1}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(l, br); err != nil {
			return err
		}
		if err := netlink.LinkSetNoMaster(l); err != nil {
			return err
		}
		return netlink.LinkDel(br)
	})
	b.event(LinkGone, bridge)
	if n := b.events.count(func(e Event) bool { return e.Kind == LinkGone && e.Name == pod }); n > 0 {
		t.Error("a port that left a bridge was told to be gone")
	}
	change(t, b.node, pod, func(l netlink.Link) error { return netlink.LinkSetNsFd(l, int(b.peer.Handle())) })
	b.event(LinkGone, pod) // for this namespace it is
}

func TestDefaultRouteChoosesTheUplink(t *testing.T) {
	t.Parallel()
	ns, other := testnet.NewNS(t), testnet.NewNS(t)
	devs := []string{name("a"), name("b"), name("c")}
	for i, d := range devs {
		testnet.Veth(t, ns, d, other, name("o"))
		ns.AddAddr(t, d, "10.7"+string(rune('0'+i))+".0.1/24")
		ns.AddAddr(t, d, "fd7"+string(rune('0'+i))+"::1/64")
	}
	chosen := func() (dev string, err error) {
		ns.Do(t, func() {
			var w *Watcher
			if w, err = New(slog.New(slog.DiscardHandler), nil); err == nil {
				dev = w.Uplinks()[0].Name
				err = w.stop(w.first)
			}
		})
		return dev, err
	}
	if _, err := chosen(); err == nil || !strings.Contains(err.Error(), "no default route") || !strings.Contains(err.Error(), "name the NIC") {
		t.Errorf("without a default route: %v", err)
	}
	metric := func(n int) func(*netlink.Route) { return func(r *netlink.Route) { r.Priority = n } }
	steps := []struct{ dev, dst, via, want string }{
		{devs[0], "::/0", "fd70::2", devs[0]},
		{devs[1], "0.0.0.0/0", "10.71.0.2", devs[1]}, // IPv4 goes before
		{devs[2], "0.0.0.0/0", "10.72.0.2", devs[2]}, // a lower metric
	}
	for i, s := range steps {
		addRoute(t, ns, s.dev, s.dst, s.via, metric(300-100*i))
		if got, err := chosen(); err != nil || got != s.want {
			t.Errorf("with a default route more, through %s: chose %q, %v", s.dev, got, err)
		}
	}
}

func TestErrorsTellWhatToDo(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	mgmt := name("m")
	testnet.Veth(t, b.node, mgmt, b.peer, name("q"))
	b.node.AddAddr(t, mgmt, "10.78.0.1/24")
	for dst, kind := range map[string]int{"10.79.1.0/24": unix.RTN_BLACKHOLE, "10.79.2.0/24": unix.RTN_PROHIBIT, "10.79.3.0/24": unix.RTN_UNREACHABLE, "fd79::/64": unix.RTN_BLACKHOLE} {
		addRoute(t, b.node, b.dev, dst, "", func(r *netlink.Route) { r.Type, r.LinkIndex = kind, 0 })
	}
	b.node.Do(t, func() {
		for _, uplinks := range [][]string{{"cvunosuch"}, {b.dev, "cvunosuch"}} {
			_, err := New(slog.New(slog.DiscardHandler), uplinks)
			if err == nil || !strings.Contains(err.Error(), "no device cvunosuch") || !strings.Contains(err.Error(), b.dev) || !strings.Contains(err.Error(), mgmt) {
				t.Errorf("an uplink that is missing: %v", err)
			}
		}
		if _, err := New(slog.New(slog.DiscardHandler), []string{"lo"}); err == nil || !strings.Contains(err.Error(), "no Ethernet device") {
			t.Errorf("the loopback device as uplink: %v", err)
		}
	})
	want := map[string]string{
		"10.78.0.2": "leaves through " + mgmt + ", which is no uplink (uplinks: " + b.dev + ")",
		"10.99.0.1": "no route to 10.99.0.1; add one",
		"fd99::1":   "no route to fd99::1; add one",
		"10.77.0.1": "is an address of this node itself",
		"fd77::1":   "is an address of this node itself",
		"10.79.1.1": "refuses packets",
		"10.79.2.1": "refuses packets",
		"10.79.3.1": "no route to 10.79.3.1; add one",
		"fd79::1":   "refuses packets",
	}
	dsts := make([]string, 0, len(want))
	for dst := range want {
		dsts = append(dsts, dst)
	}
	b.watch(brisk, dsts...)
	for range 2 { // asked for at once, then from the mirror
		for dst, text := range want {
			if nh, err := b.w.NextHop(netip.MustParseAddr(dst)); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("next hop of %s is %+v, error %v; want %q", dst, nh, err, text)
			}
		}
		b.event(Changed, "")
	}
	if _, err := b.w.NextHop(netip.Addr{}); err == nil {
		t.Error("no address has a next hop")
	}
}
