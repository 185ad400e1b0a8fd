package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/testnet"
)

// twoUplinks is a bed with a second uplink to the same peer, 10.78.0.0/24 and
// fd78::/64.
func twoUplinks(t *testing.T) (b *bed, dev2, pdev2 string) {
	t.Helper()
	b = newBed(t)
	b.peer.Sysctl(t, "net.ipv6.conf.all.keep_addr_on_down", "1")
	dev2, pdev2 = name("m"), name("q")
	testnet.Veth(t, b.node, dev2, b.peer, pdev2)
	b.node.AddAddr(t, dev2, "10.78.0.1/24")
	b.node.AddAddr(t, dev2, "fd78::1/64")
	b.peer.AddAddr(t, pdev2, "10.78.0.2/24")
	b.peer.AddAddr(t, pdev2, "fd78::2/64")
	return b, dev2, pdev2
}

// addMultipath is 'ip route replace DST nexthop via A dev D weight W nexthop …'.
func addMultipath(t *testing.T, ns *testnet.NS, dst string, hops ...string) {
	t.Helper()
	ns.Do(t, func() {
		_, prefix, err := net.ParseCIDR(dst)
		if err != nil {
			t.Fatal(err)
		}
		r := netlink.Route{Dst: prefix}
		for _, h := range hops {
			var via, dev string
			var weight int
			if _, err := fmt.Sscan(h, &via, &dev, &weight); err != nil {
				t.Fatal(err)
			}
			l, err := netlink.LinkByName(dev)
			if err != nil {
				t.Fatal(err)
			}
			n := &netlink.NexthopInfo{LinkIndex: l.Attrs().Index, Hops: weight - 1}
			if gw := netip.MustParseAddr(via); gw.Is6() && !strings.Contains(dst, ":") {
				n.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: gw.AsSlice()}
			} else {
				n.Gw = gw.AsSlice()
			}
			r.MultiPath = append(r.MultiPath, n)
		}
		if err := netlink.RouteReplace(&r); err != nil {
			t.Fatalf("adding the route to %s over %v: %v", dst, hops, err)
		}
	})
}

// ways waits until dst is reached over exactly these, each "VIA DEV WEIGHT", all
// of them resolved, by the peer's devices.
func (b *bed) ways(dst string, want ...string) {
	b.t.Helper()
	b.until(3*time.Second, fmt.Sprintf("%s over %v", dst, want), func() (bool, any) {
		all, err := b.w.NextHops(netip.MustParseAddr(dst))
		if err != nil {
			return false, err
		}
		good := len(all) == len(want)
		var got []string
		for _, nh := range all {
			got = append(got, fmt.Sprintf("%s %s %d", nh.Via, nh.Dev, nh.Weight))
			good = good && nh.Resolved && len(got) <= len(want) && got[len(got)-1] == want[len(got)-1]
		}
		return good, fmt.Sprintf("%v %+v", got, all)
	})
}

func TestMultipathRoute(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ dst, prefix, via1, via2 string }{
		{"10.88.0.7", "10.88.0.0/24", "10.77.0.2", "10.78.0.2"},
		{"fd88::7", "fd88::/64", "fd77::2", "fd78::2"},
		{"10.89.0.7", "10.89.0.0/24", "fd77::2", "fd78::2"},
	} {
		t.Run(f.prefix+" via "+f.via1, func(t *testing.T) {
			t.Parallel()
			b, dev2, pdev2 := twoUplinks(t)
			one, two := fmt.Sprintf("%s %s 3", f.via1, b.dev), fmt.Sprintf("%s %s 1", f.via2, dev2)
			addMultipath(t, b.node, f.prefix, two, one)
			b.w = open(t, b.node, b.dev, dev2)
			b.track(f.dst)
			b.run(brisk)
			b.ways(f.dst, one, two)
			if nh := b.hop(f.dst); nh.Dev != b.dev || nh.SrcMAC == b.w.Uplinks()[1].MAC {
				t.Errorf("the first next hop is %+v", nh)
			}
			b.events.forget()
			b.peer.Down(t, pdev2) // the cable of the second uplink
			b.event(Changed, "")
			b.ways(f.dst, one)
			b.peer.Up(t, pdev2)
			b.ways(f.dst, one, two)
			b.events.forget()
			addMultipath(t, b.node, f.prefix, one, two[:len(two)-1]+"200") // another weight
			b.event(Changed, "")
			b.ways(f.dst, one, two[:len(two)-1]+"200")
		})
	}
}

// The kernel takes next hops of a device that is set down out of use itself; an
// uplink that Culvert does not have is as good as down.
func TestMultipathLosesNextHops(t *testing.T) {
	t.Parallel()
	b, dev2, _ := twoUplinks(t)
	one, two := fmt.Sprintf("10.77.0.2 %s 1", b.dev), fmt.Sprintf("10.78.0.2 %s 1", dev2)
	addMultipath(t, b.node, "10.88.0.0/24", one, two)
	b.w = open(t, b.node, b.dev, dev2)
	b.track("10.88.0.7")
	b.run(brisk)
	b.ways("10.88.0.7", one, two)
	b.node.Down(t, b.dev)
	b.ways("10.88.0.7", two)
	b.node.Up(t, b.dev)
	b.ways("10.88.0.7", one, two)

	only := open(t, b.node, dev2)
	t.Cleanup(func() {
		if err := only.stop(only.first); err != nil {
			t.Error(err)
		}
	})
	all, err := only.NextHops(netip.MustParseAddr("10.88.0.7"))
	if err != nil || len(all) != 1 || all[0].Dev != dev2 {
		t.Errorf("with one uplink: %+v, %v", all, err)
	}
}
