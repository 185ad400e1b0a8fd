package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// uplink is the name of every node's NIC.
const uplink = "eth0"

// buildUnderlay makes the nodes' and pods' namespaces and joins the nodes: two
// by a veth pair, the wire; more by a bridge. Offloads stay as they are by
// default, as on a machine that nobody has tuned.
func (l *Lab) buildUnderlay(ctx context.Context) error {
	for _, n := range l.Nodes {
		if err := newNetns(n.Netns, true); err != nil {
			return err
		}
		for _, p := range n.Pods {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := newNetns(p.Netns, false); err != nil {
				return err
			}
		}
	}
	switch {
	case l.NICs != nil:
		for i, n := range l.Nodes {
			if err := takeNIC(n.Netns, l.NICs[i], l.MTU); err != nil {
				return fmt.Errorf("uplink of %s: %w", n.Name, err)
			}
		}
	case l.Bridge != "":
		if err := l.buildBridge(); err != nil {
			return fmt.Errorf("underlay bridge: %w", err)
		}
	case len(l.Nodes) == 2:
		if err := joinVeth(l.Nodes[0].Netns, uplink, l.Nodes[1].Netns, uplink, l.MTU); err != nil {
			return fmt.Errorf("wire between the nodes: %w", err)
		}
	default: // one node: a wire that ends in nothing
		if err := joinVeth(l.Nodes[0].Netns, uplink, l.Nodes[0].Netns, "eth0-far", l.MTU); err != nil {
			return fmt.Errorf("uplink of the node: %w", err)
		}
	}
	for _, n := range l.Nodes {
		if err := configure(n.Netns, uplink, netip.PrefixFrom(n.Addr, l.underlay().Bits())); err != nil {
			return err
		}
	}
	return nil
}

// gatewayOf is the default gateway of nodes in a network. Nobody has that
// address; but nodes have a default route, and Linux answers a pod's ARP for
// 169.254.1.1 (proxy ARP) only when it has a route there.
func gatewayOf(network netip.Prefix) []byte { return nth(network.Masked().Addr(), 254).AsSlice() }

// buildBridge makes the bridge's namespace and a port for every node.
func (l *Lab) buildBridge() error {
	if err := newNetns(l.Bridge, false); err != nil {
		return err
	}
	err := enter(l.Bridge, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "br0", l.MTU
		br := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	})
	if err != nil {
		return err
	}
	for _, n := range l.Nodes {
		if err := joinVeth(n.Netns, uplink, l.Bridge, n.Name, l.MTU); err != nil {
			return err
		}
		err := enter(l.Bridge, func() error {
			port, err := netlink.LinkByName(n.Name)
			if err != nil {
				return err
			}
			br, err := netlink.LinkByName("br0")
			if err != nil {
				return err
			}
			return netlink.LinkSetMaster(port, br)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// joinVeth makes a veth pair between two namespaces, both ends up.
func joinVeth(aNetns, aName, bNetns, bName string, mtu int) error {
	err := withNetnsFd(bNetns, func(b netlink.NsFd) error {
		return enter(aNetns, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = aName, mtu
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerMTU = bName, uint32(mtu)
			if aNetns != bNetns {
				veth.PeerNamespace = b
			}
			if err := netlink.LinkAdd(veth); err != nil {
				return fmt.Errorf("veth %s – %s: %w", aName, bName, err)
			}
			return setUp(aName)
		})
	})
	if err != nil {
		return err
	}
	return enter(bNetns, func() error { return setUp(bName) })
}

// setUp brings a device of the thread's namespace up.
func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}

// configure gives a node's NIC its address and the default route.
func configure(netnsName, dev string, addr netip.Prefix) error {
	return enter(netnsName, func() error {
		link, err := netlink.LinkByName(dev)
		if err == nil {
			err = netlink.AddrAdd(link, address(addr))
		}
		if err == nil {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gatewayOf(addr)}
			if addr.Addr().Is6() { // of IPv4 there is no gateway, but a route
				route.Gw, route.Scope, route.Dst = nil, netlink.SCOPE_LINK, anywhere4
			}
			err = netlink.RouteAdd(route)
		}
		if err == nil && addr.Addr().Is6() {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gatewayOf(addr)})
		}
		if err != nil {
			return fmt.Errorf("address %s on %s of %s: %w", addr, dev, netnsName, err)
		}
		return nil
	})
}

// anywhere4 is the IPv4 default route's destination.
var anywhere4 = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}

// address is an address of a device, an IPv6 one without duplicate address
// detection: usable at once.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// host is an address alone: /32 or /128.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func hostNet(a netip.Addr) *net.IPNet { return ipNet(host(a)) }
