package underlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
)

// described is what Routes says, a line for each.
func described(w *Watcher) string {
	var lines []string
	for _, r := range w.Routes() {
		line := r.Dst.String()
		if r.Own {
			line += " own"
		}
		for _, h := range r.Hops {
			line += fmt.Sprintf(" via %s mtu %d resolved %t", h.Via, h.MTU, h.Resolved)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// What leads to a gateway of an uplink is told with that; what is on the link, on
// another device, refused or the node's own is the kernel's; and what is of one link
// only, or leads to pods, is not told.
func TestRoutesOfTheKernel(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other, pods := name("o"), name("c")
	testnet.Veth(t, b.node, other, b.peer, name("p"))
	b.node.AddAddr(t, other, "10.78.0.1/24")
	testnet.Veth(t, b.node, pods, b.peer, name("d"))
	b.node.AddAddr(t, pods, "10.244.1.0/32")
	b.node.AddAddr(t, other, "169.254.20.10/32") // as node-local DNS has it
	addRoute(t, b.node, pods, "10.244.2.0/24", "")
	addRoute(t, b.node, b.dev, "0.0.0.0/0", "10.77.0.2")
	addRoute(t, b.node, b.dev, "::/0", "fd77::2")
	addRoute(t, b.node, b.dev, "10.90.0.0/16", "10.77.0.9", func(r *netlink.Route) { r.Priority = 7 })
	addRoute(t, b.node, b.dev, "10.90.0.0/16", "10.77.0.2", func(r *netlink.Route) { r.Priority, r.MTU = 5, 1400 })
	addRoute(t, b.node, other, "10.91.0.0/16", "10.78.0.2")
	addRoute(t, b.node, b.dev, "10.92.0.0/16", "", func(r *netlink.Route) { r.Type, r.LinkIndex = unix.RTN_UNREACHABLE, 0 })
	w := open(t, b.node, b.dev)
	w.Overlook(pods)
	b.w = w
	b.run(brisk)
	const want = `0.0.0.0/0 via 10.77.0.2 mtu 1500 resolved true
10.77.0.0/24
10.77.0.1/32 own
10.78.0.0/24
10.78.0.1/32 own
10.90.0.0/16 via 10.77.0.2 mtu 1400 resolved true
10.91.0.0/16
10.92.0.0/16
169.254.20.10/32 own
::/0 via fd77::2 mtu 1500 resolved true
fd77::/64
fd77::1/128 own`
	b.until(5*time.Second, "the routes", func() (bool, any) { got := described(w); return got == want, got })
	if all := w.Routes(); !slices.IsSortedFunc(all, func(a, b Route) int { return a.Dst.Addr().Compare(b.Dst.Addr()) }) {
		t.Errorf("not in order: %v", all)
	}
	b.events.forget()
	addRoute(t, b.node, b.dev, "10.93.0.0/16", "10.77.0.2")
	b.event(Changed, "")
	b.until(2*time.Second, "the new route", func() (bool, any) {
		got := described(w)
		return strings.Contains(got, "10.93.0.0/16 via 10.77.0.2 mtu 1500 resolved true"), got
	})
}

// A table of the Internet does not push the node's own addresses out.
func TestWidestRoutes(t *testing.T) {
	var all []outside
	for i := range 9 {
		all = append(all, outside{dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i), 0, 0, 0}), 24-i)})
	}
	all = append(all, outside{dst: netip.MustParsePrefix("172.17.0.1/32"), own: true}, outside{dst: netip.MustParsePrefix("0.0.0.0/0")})
	var got []string
	for _, o := range widest(all, 4) {
		got = append(got, o.dst.String())
	}
	if want := "0.0.0.0/0 27.0.0.0/17 28.0.0.0/16 172.17.0.1/32"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}
