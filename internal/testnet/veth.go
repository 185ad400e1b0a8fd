package testnet

import (
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// VethOption changes a pair before it is made.
type VethOption func(*netlink.Veth)

// MTU sets the MTU of both ends.
func MTU(mtu int) VethOption {
	return func(v *netlink.Veth) { v.MTU, v.PeerMTU = mtu, uint32(mtu) }
}

// Queues gives both ends n receive and n transmit queues.
func Queues(n int) VethOption {
	return func(v *netlink.Veth) {
		v.NumTxQueues, v.NumRxQueues = n, n
		v.PeerNumTxQueues, v.PeerNumRxQueues = uint32(n), uint32(n)
	}
}

// Veth makes a veth pair with the end aName in a and the end bName in b, both
// up. IPv6 is left alone except that duplicate address detection is off, so
// that addresses are usable at once. The pair ends with either namespace.
func Veth(t testing.TB, a *NS, aName string, b *NS, bName string, opts ...VethOption) {
	t.Helper()
	a.Do(t, func() {
		v := netlink.NewVeth(netlink.LinkAttrs{Name: aName, TxQLen: -1})
		v.PeerName, v.PeerNamespace = bName, netlink.NsFd(b.handle)
		for _, opt := range opts {
			opt(v)
		}
		if err := netlink.LinkAdd(v); err != nil {
			t.Fatalf("making the veth pair %s, %s: %v", aName, bName, err)
		}
	})
	t.Cleanup(func() {
		a.Do(t, func() {
			if l, err := netlink.LinkByName(aName); err == nil {
				_ = netlink.LinkDel(l)
			}
		})
	})
	a.Up(t, aName)
	b.Up(t, bName)
}

// Sysctl sets a network sysctl of the namespace, such as
// "net.ipv6.conf.default.disable_ipv6".
func (ns *NS) Sysctl(t testing.TB, key, value string) {
	t.Helper()
	ns.Do(t, func() {
		path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			t.Fatalf("setting %s: %v", key, err)
		}
	})
}

// Up brings a device up.
func (ns *NS) Up(t testing.TB, name string) {
	t.Helper()
	ns.Do(t, func() {
		if err := up(name); err != nil {
			t.Fatal(err)
		}
	})
}

// Down brings a device down.
func (ns *NS) Down(t testing.TB, name string) {
	t.Helper()
	ns.Do(t, func() {
		if err := netlink.LinkSetDown(ns.link(t, name)); err != nil {
			t.Fatalf("bringing %s down: %v", name, err)
		}
	})
}

// Delete removes a device.
func (ns *NS) Delete(t testing.TB, name string) {
	t.Helper()
	ns.Do(t, func() {
		if err := netlink.LinkDel(ns.link(t, name)); err != nil {
			t.Fatalf("removing %s: %v", name, err)
		}
	})
}

// AddAddr adds an address in CIDR notation to a device.
func (ns *NS) AddAddr(t testing.TB, name, cidr string) {
	t.Helper()
	ns.Do(t, func() {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		const noDAD = 0x02 // IFA_F_NODAD
		addr.Flags |= noDAD
		if err := netlink.AddrAdd(ns.link(t, name), addr); err != nil {
			t.Fatalf("adding %s to %s: %v", cidr, name, err)
		}
	})
}

// Attrs are a device's attributes now.
func (ns *NS) Attrs(t testing.TB, name string) (attrs netlink.LinkAttrs) {
	t.Helper()
	ns.Do(t, func() { attrs = *ns.link(t, name).Attrs() })
	return attrs
}

// link finds a device of the namespace that the caller's thread is in.
func (ns *NS) link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("finding %s: %v", name, err)
	}
	return l
}
