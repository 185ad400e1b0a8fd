package underlay

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/fib"
	"culvert/internal/packet"
	"culvert/internal/testnet"
)

func TestNextHopIsResolvedWithoutTraffic(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	broadcast, _ := requests(t, b.peer, b.pdev, "10.77.0.2")
	b.watch(usualPace, "10.77.0.2", "fd77::2")
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	b.resolved(2*time.Second, "fd77::2", b.peerMAC())
	if n := broadcast(); n != 1 {
		t.Errorf("the kernel sent %d ARP requests, want one", n)
	}
	b.event(Changed, "")
	up := b.w.Uplinks()[0]
	nh := b.hop("10.77.0.2")
	want := NextHop{
		Dev: b.dev, Ifindex: up.Index, Src: netip.MustParseAddr("10.77.0.1"), Via: netip.MustParseAddr("10.77.0.2"),
		MTU: 1500, SrcMAC: up.MAC, MAC: b.peerMAC(), Resolved: true, State: "REACHABLE", Weight: 1,
	}
	if nh != want {
		t.Errorf("next hop is\n%+v, want\n%+v", nh, want)
	}
	if src := b.hop("fd77::2").Src; src != netip.MustParseAddr("fd77::1") {
		t.Errorf("preferred source of fd77::2 is %v", src)
	}
	got := b.w.Neighbours()
	if len(got) != 2 || got[0] != (fib.Neighbour{Addr: want.Via, MAC: want.MAC, Dev: b.dev, State: "REACHABLE"}) {
		t.Errorf("neighbours are %+v", got)
	}

	b.track("fd77::2") // the other one is of no interest any more
	b.until(time.Second, "one neighbour", func() (bool, any) {
		n := b.w.Neighbours()
		return len(n) == 1 && n[0].Addr == netip.MustParseAddr("fd77::2"), n
	})
	if !b.hop("10.77.0.2").Resolved {
		t.Error("the kernel's neighbour is not seen when its address is not tracked")
	}
}

func TestNextHopThroughGateways(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	far, fdev := testnet.NewNS(t), name("f")
	testnet.Veth(t, b.peer, name("r"), far, fdev) // the router has no need to forward for this
	b.peer.AddAddr(t, b.pdev, "10.77.0.3/24")
	addRoute(t, b.node, b.dev, "10.88.0.0/24", "10.77.0.2")
	addRoute(t, b.node, b.dev, "fd88::/64", "fd77::2")
	addRoute(t, b.node, b.dev, "10.89.0.0/24", "", func(r *netlink.Route) {
		r.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("fd77::2")}
	})
	b.watch(brisk, "10.88.0.7", "10.88.0.8", "fd88::7", "10.89.0.7")
	for dst, via := range map[string]string{"10.88.0.7": "10.77.0.2", "fd88::7": "fd77::2", "10.89.0.7": "fd77::2"} {
		b.resolved(2*time.Second, dst, b.peerMAC())
		if nh := b.hop(dst); nh.Via != netip.MustParseAddr(via) {
			t.Errorf("%s goes via %v, want %s", dst, nh.Via, via)
		}
	}
	if n := b.w.Neighbours(); len(n) != 2 {
		t.Errorf("four destinations behind one router have neighbours %+v", n)
	}

	b.events.forget()
	addRoute(t, b.node, b.dev, "10.88.0.0/24", "10.77.0.3", func(r *netlink.Route) { r.MTU = 1400 })
	b.until(2*time.Second, "the new gateway", func() (bool, any) {
		nh := b.hop("10.88.0.7")
		return nh.Via == netip.MustParseAddr("10.77.0.3") && nh.MTU == 1400 && nh.Resolved, nh
	})
	b.event(Changed, "")
}

func TestStaticNeighboursAreLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	mac := packet.MAC{2, 0, 0, 0, 0, 9}
	set := func(addr string, state, flags int) {
		change(t, b.node, b.dev, func(l netlink.Link) error {
			return netlink.NeighSet(&netlink.Neigh{
				LinkIndex: l.Attrs().Index, State: state, Flags: flags, IP: net.ParseIP(addr), HardwareAddr: mac[:],
			})
		})
	}
	set("10.77.0.9", netlink.NUD_PERMANENT, 0)
	set("10.77.0.10", netlink.NUD_NOARP, 0)
	set("10.77.0.11", netlink.NUD_REACHABLE, netlink.NTF_EXT_LEARNED)
	set("fd77::9", netlink.NUD_PERMANENT, 0)
	broadcast, unicast := requests(t, b.peer, b.pdev, "10.77.0.11")
	p := brisk
	p.confirm = 100 * time.Millisecond
	b.watch(p, "10.77.0.9", "10.77.0.10", "10.77.0.11", "fd77::9")
	time.Sleep(500 * time.Millisecond)
	want := map[string]string{"10.77.0.9": "PERMANENT", "10.77.0.10": "NOARP", "10.77.0.11": "REACHABLE", "fd77::9": "PERMANENT"}
	for addr, state := range want {
		if nh := b.hop(addr); !nh.Resolved || nh.MAC != mac || nh.State != state {
			t.Errorf("%s is %+v, want %s", addr, nh, state)
		}
	}
	if broadcast()+unicast() > 0 {
		t.Error("a neighbour that a routing daemon keeps was asked for")
	}
	// Made permanent under way, with another address.
	b.resolved(time.Second, "10.77.0.9", mac)
	mac[5]++
	set("10.77.0.9", netlink.NUD_PERMANENT, 0)
	b.resolved(time.Second, "10.77.0.9", mac)
}

func TestSilentChangeOfMACIsNoticed(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(usualPace, "10.77.0.2")
	was := b.peerMAC()
	b.resolved(2*time.Second, "10.77.0.2", was)
	b.peer.Sysctl(t, "net.ipv6.conf.all.disable_ipv6", "1") // nothing is to announce it
	mac := packet.MAC{2, 0, 0, 0, 0, 7}
	change(t, b.peer, b.pdev, func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, mac[:]) })
	b.events.forget()
	start := time.Now()
	b.until(10*time.Second, "the new address", func() (bool, any) {
		nh := b.hop("10.77.0.2")
		if nh.MAC != was && nh.MAC != mac {
			t.Fatalf("neither address is kept: %+v", nh)
		}
		return nh.Resolved && nh.MAC == mac, nh
	})
	t.Logf("noticed after %v", time.Since(start))
	b.event(Changed, "")
	if n := b.events.count(func(e Event) bool { return e.Kind == Changed }); n > 3 {
		t.Errorf("%d events for one change", n)
	}
}

func TestAnnouncedChangeOfMACIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(usualPace, "10.77.0.2")
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	time.Sleep(1100 * time.Millisecond) // locktime: the kernel distrusts two answers within a second
	b.peer.Sysctl(t, "net.ipv4.conf.all.arp_notify", "1")
	mac := packet.MAC{2, 0, 0, 0, 0, 8}
	change(t, b.peer, b.pdev, func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, mac[:]) })
	b.resolved(time.Second, "10.77.0.2", mac)
}

func TestNeighbourIsConfirmedAndKept(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	broadcast, unicast := requests(t, b.peer, b.pdev, "10.77.0.2")
	b.watch(brisk, "10.77.0.2")
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	time.Sleep(2200 * time.Millisecond)
	if n := unicast(); n < 3 || n > 6 {
		t.Errorf("in 2.2 seconds the kernel asked %d times whether the neighbour is there, want about 4", n)
	}
	if n := broadcast(); n != 1 {
		t.Errorf("the kernel asked everybody %d times for a neighbour that answers", n)
	}
	events := b.events.count(func(Event) bool { return true })
	if events > 2 {
		t.Errorf("%d events though nothing changed", events)
	}

	change(t, b.node, b.dev, func(l netlink.Link) error {
		return netlink.NeighSet(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_STALE, IP: net.ParseIP("10.77.0.2"), HardwareAddr: b.peer.Attrs(t, b.pdev).HardwareAddr,
		})
	})
	b.until(time.Second, "a stale neighbour", func() (bool, any) { nh := b.hop("10.77.0.2"); return nh.State == "STALE", nh })
	b.until(time.Second, "its confirmation", func() (bool, any) { nh := b.hop("10.77.0.2"); return nh.State == "REACHABLE", nh })

	del := func(l netlink.Link) error {
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: net.ParseIP("10.77.0.2")})
	}
	change(t, b.node, b.dev, del)
	b.until(2*time.Second, "the removed neighbour to be back", func() (bool, any) {
		nh := b.hop("10.77.0.2")
		if nh.MAC != b.peerMAC() {
			t.Fatalf("the address of a removed neighbour is not kept: %+v", nh)
		}
		return nh.Resolved && broadcast() == 2, nh
	})
}

func TestSilentPeerIsAskedForNowAndThen(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	broadcast, _ := requests(t, b.peer, b.pdev, "10.77.0.99")
	p := brisk
	p.retryFirst = 500 * time.Millisecond
	b.watch(p, "10.77.0.99")
	b.until(2*time.Second, "a first request", func() (bool, any) { return broadcast() > 0, nil })
	if nh := b.hop("10.77.0.99"); nh.Resolved || nh.State != "INCOMPLETE" || !nh.MAC.IsZero() {
		t.Errorf("an unanswered next hop is %+v", nh)
	}
	b.until(5*time.Second, "a second attempt", func() (bool, any) { return broadcast() > 3, broadcast() })
	if n := b.events.count(func(e Event) bool { return e.Kind == Changed }); n > 1 {
		t.Errorf("%d events while nobody answers", n)
	}
	b.peer.AddAddr(t, b.pdev, "10.77.0.99/24")
	b.resolved(4*time.Second, "10.77.0.99", b.peerMAC())
}
