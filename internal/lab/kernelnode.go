package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/ctrl/podlink"
)

// buildKernelNodes sets up the nodes that run no culvertd: the kernel's VXLAN or
// routes, and pods as the project in question attaches them.
func (l *Lab) buildKernelNodes(context.Context) error {
	for _, n := range l.Nodes {
		if n.Kind == Culvert {
			continue
		}
		reach := l.buildTunnel
		if l.Encap == "none" {
			reach = l.addRoutes
		}
		if err := enter(n.Netns, func() error { return reach(n) }); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		add := l.addFlannelPod
		if n.Kind == Calico {
			add = l.addCalicoPod
		}
		for _, p := range n.Pods {
			if err := add(n, p); err != nil {
				return fmt.Errorf("pod %s: %w", p.Name, err)
			}
		}
	}
	return nil
}

// buildTunnel makes the VXLAN device and what Flannel (pkg/backend/vxlan) and
// Calico (felix/dataplane/linux/vxlan_mgr.go) program for every peer alike: a
// permanent neighbour, a permanent FDB entry, an onlink route.
func (l *Lab) buildTunnel(n *Node) error {
	nic, err := netlink.LinkByName(uplink)
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(n.VTEPMAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = fmt.Sprint("flannel.", l.VNI), mac, l.PodMTU()
	if n.Kind == Calico {
		attrs.Name = "vxlan.calico"
	}
	vxlan := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(l.VNI), VtepDevIndex: nic.Attrs().Index,
		SrcAddr: n.Addr.AsSlice(), Port: int(l.Port), Learning: false}
	if err := netlink.LinkAdd(vxlan); err != nil {
		return fmt.Errorf("VXLAN device: %w", err)
	}
	if err := setUp(attrs.Name); err != nil {
		return err
	}
	for _, c := range n.PodCIDRs {
		if err := netlink.AddrAdd(vxlan, address(host(c.Addr()))); err != nil {
			return fmt.Errorf("tunnel address: %w", err)
		}
	}
	for _, peer := range l.Nodes {
		if peer == n {
			continue
		}
		if err := addPeer(vxlan.Attrs().Index, peer); err != nil {
			return fmt.Errorf("peer %s: %w", peer.Name, err)
		}
	}
	return nil
}

// addRoutes routes the other nodes' pods to the nodes: Flannel's host-gw (backend/hostgw)
// and Calico without an encapsulation (noencap_mgr.go).
func (l *Lab) addRoutes(n *Node) error {
	nic, err := netlink.LinkByName(uplink)
	if err != nil {
		return err
	}
	for _, peer := range l.Nodes {
		if peer == n {
			continue
		}
		for _, c := range peer.PodCIDRs {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: nic.Attrs().Index, Dst: ipNet(c), Gw: peer.Addr.AsSlice()}); err != nil {
				return fmt.Errorf("route to %s: %w", peer.Name, err)
			}
		}
	}
	return nil
}

func addPeer(dev int, peer *Node) error {
	mac, err := net.ParseMAC(peer.VTEPMAC)
	if err != nil {
		return err
	}
	if err := netlink.NeighAppend(&netlink.Neigh{LinkIndex: dev, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE,
		Flags: netlink.NTF_SELF, IP: peer.Addr.AsSlice(), HardwareAddr: mac}); err != nil {
		return fmt.Errorf("FDB: %w", err)
	}
	for _, c := range peer.PodCIDRs {
		tunnelAddr := c.Addr().AsSlice()
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: dev, State: netlink.NUD_PERMANENT, IP: tunnelAddr, HardwareAddr: mac}); err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: dev, Dst: ipNet(c), Gw: tunnelAddr, Flags: int(netlink.FLAG_ONLINK)}); err != nil {
			return fmt.Errorf("route: %w", err)
		}
	}
	return nil
}

// addFlannelPod attaches a pod as Flannel's delegate, the bridge plugin, does:
// a veth into the bridge cni0, which is the pods' gateway.
func (l *Lab) addFlannelPod(n *Node, p *Pod) error {
	hostName := "veth-" + p.Name
	if err := joinVeth(n.Netns, hostName, p.Netns, "eth0", l.PodMTU()); err != nil {
		return err
	}
	err := enter(n.Netns, func() error {
		br, err := netlink.LinkByName("cni0")
		if err != nil {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = "cni0", l.PodMTU()
			br = &netlink.Bridge{LinkAttrs: attrs}
			if err := netlink.LinkAdd(br); err != nil {
				return fmt.Errorf("bridge: %w", err)
			}
			for _, c := range n.PodCIDRs {
				if err := netlink.AddrAdd(br, address(netip.PrefixFrom(c.Addr().Next(), c.Bits()))); err != nil {
					return fmt.Errorf("gateway address: %w", err)
				}
			}
			if err := netlink.LinkSetUp(br); err != nil {
				return err
			}
		}
		port, err := netlink.LinkByName(hostName)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(port, br)
	})
	if err != nil {
		return err
	}
	return enter(p.Netns, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for i, c := range n.PodCIDRs {
			if err := netlink.AddrAdd(eth0, address(netip.PrefixFrom(p.Addrs[i], c.Bits()))); err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: c.Addr().Next().AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// addCalicoPod attaches a pod as Calico's plugin does: a routed veth whose
// host end answers ARP for 169.254.1.1 and has the link-local address that is
// the gateway of IPv6.
func (l *Lab) addCalicoPod(n *Node, p *Pod) error {
	hostName := podlink.HostName("cali", Namespace, p.Name, "")
	if err := joinVeth(n.Netns, hostName, p.Netns, "eth0", l.PodMTU()); err != nil {
		return err
	}
	err := enter(n.Netns, func() error {
		link, err := netlink.LinkByName(hostName)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetHardwareAddr(link, podlink.HostMAC); err != nil {
			return err
		}
		for sysctl, value := range map[string]string{
			"conf/" + hostName + "/proxy_arp": "1", "conf/" + hostName + "/forwarding": "1",
			"conf/" + hostName + "/route_localnet": "1", "neigh/" + hostName + "/proxy_delay": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+sysctl, []byte(value), 0); err != nil {
				return err
			}
		}
		if err := netlink.AddrReplace(link, address(netip.PrefixFrom(podlink.Gateway6, 64))); err != nil {
			return err
		}
		for _, a := range p.Addrs {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: hostNet(a), Scope: netlink.SCOPE_LINK}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return enter(p.Netns, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		index := eth0.Attrs().Index
		for _, a := range p.Addrs {
			if err := netlink.AddrAdd(eth0, address(host(a))); err != nil {
				return err
			}
			gateway := podlink.Gateway6
			if a.Is4() {
				gateway = podlink.Gateway4
				if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: hostNet(gateway), Scope: netlink.SCOPE_LINK}); err != nil {
					return err
				}
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	})
}
