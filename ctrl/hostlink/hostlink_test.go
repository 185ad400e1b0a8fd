package hostlink

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"culvert/internal/testnet"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func addrs(all ...string) (out []netip.Addr) {
	for _, s := range all {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// described is what the device has, a line for each address and route; the thread is in
// its namespace.
func described(t *testing.T) string {
	t.Helper()
	link, err := netlink.LinkByName(Name)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{fmt.Sprintf("mtu %d", link.Attrs().MTU)}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range have {
		lines = append(lines, "address "+prefixOf(a.IPNet).String())
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Protocol == protocol || r.Protocol == 99 {
				src, _ := netip.AddrFromSlice(r.Src)
				lines = append(lines, fmt.Sprintf("route %s src %s proto %d", prefixOf(r.Dst), src.Unmap(), r.Protocol))
			}
		}
	}
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}

func rules(t *testing.T) (n int) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	list, err := conn.GetRules(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}, &nftables.Chain{Name: "postrouting"})
	if err != nil {
		return 0
	}
	return len(list)
}

// The device gets what it is to have, keeps what is another's, and loses what is not
// wanted any more; the next process finds it as it is; Remove leaves nothing.
func TestDevice(t *testing.T) {
	ns := testnet.NewNS(t)
	ns.Do(t, func() {
		open := func() *Link {
			l, err := Open(slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		sync := func(l *Link, w Want, want string) {
			t.Helper()
			l.Set(w)
			if err := l.sync(); err != nil {
				t.Fatal(err)
			}
			if got := described(t); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		}
		l := open()
		first := Want{MTU: 1450, Addrs: addrs("10.244.1.0", "fd00:1::"), Networks: prefixes("10.244.1.0/24", "10.244.2.0/24", "fd00:1::/64"), Pods: prefixes("10.244.1.0/24", "fd00:1::/64")}
		const asFirst = "mtu 1450\naddress 10.244.1.0/32\naddress fd00:1::/128\nroute 10.244.1.0/24 src 10.244.1.0 proto 197\n" +
			"route 10.244.2.0/24 src 10.244.1.0 proto 197\nroute fd00:1::/64 src fd00:1:: proto 197"
		sync(l, first, asFirst)
		sync(l, first, asFirst)
		if n := rules(t); n != 2 {
			t.Errorf("%d rules of nftables, want one for each prefix of pods", n)
		}
		for name, want := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
			"net/ipv4/conf/culvert0/rp_filter": "0", "net/ipv4/conf/culvert0/accept_local": "1"} {
			if text, err := os.ReadFile("/proc/sys/" + name); err != nil || strings.TrimSpace(string(text)) != want {
				t.Errorf("sysctl %s is %s, want %s: %v", name, text, want, err)
			}
		}

		// Somebody else's route on the device stays; an address that is not the node's goes.
		link, err := netlink.LinkByName(Name)
		if err != nil {
			t.Fatal(err)
		}
		other := ipNet(netip.MustParsePrefix("10.9.0.0/16"))
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: other, Protocol: 99, Scope: netlink.SCOPE_LINK}); err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.7/32"))}); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetDown(link); err != nil { // takes the routes along
			t.Fatal(err)
		}
		second := Want{MTU: 1400, Addrs: addrs("10.244.7.0"), Networks: prefixes("10.244.7.0/24", "10.244.2.0/24"), Pods: prefixes("10.244.7.0/24")}
		const asSecond = "mtu 1400\naddress 10.244.7.0/32\nroute 10.244.2.0/24 src 10.244.7.0 proto 197\nroute 10.244.7.0/24 src 10.244.7.0 proto 197"
		sync(l, second, asSecond)
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: other, Protocol: 99, Scope: netlink.SCOPE_LINK}); err != nil {
			t.Fatal(err)
		}
		index := l.index
		l.Close()
		l = open() // the next process
		defer l.Close()
		if l.index != index {
			t.Error("the device of before was not taken")
		}
		sync(l, second, asSecond+"\nroute 10.9.0.0/16 src invalid IP proto 99")
		if n := rules(t); n != 1 {
			t.Errorf("%d rules of nftables, want 1", n)
		}

		if there, err := Exists(); err != nil || !there {
			t.Errorf("it is said not to exist: %v", err)
		}
		if removed, err := Remove(); err != nil || !removed {
			t.Errorf("removing: %t, %v", removed, err)
		}
		if there, err := Exists(); err != nil || there || rules(t) != 0 {
			t.Errorf("something is left: %v", err)
		}
		if removed, err := Remove(); err != nil || removed {
			t.Errorf("removing nothing: %t, %v", removed, err)
		}
		if err := l.sync(); err != nil {
			t.Errorf("a device that somebody has deleted is the next one's business: %v", err)
		}
	})
}

// A device of that name that is no TAP is left alone.
func TestForeignDevice(t *testing.T) {
	testnet.NewNS(t).Do(t, func() {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: Name}}); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(slog.New(slog.DiscardHandler)); err == nil {
			l.Close()
			t.Error("a bridge was taken for the node's own way to pods")
		}
		if removed, err := Remove(); removed || err != nil {
			t.Errorf("removed: %t, %v", removed, err)
		}
	})
}
