package podlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Create makes the link that spec describes, all of it up, the pod's end
// configured. It fails with ErrInterfaceExists when the pod has an interface
// of that name, with ErrHostNameTaken when the node has, with a *NetnsError
// for a bad namespace; on any failure nothing of the link is left.
func Create(spec Spec) (Link, error) {
	if err := spec.validate(); err != nil {
		return Link{}, err
	}
	ns, err := OpenNetns(spec.Netns)
	if err != nil {
		return Link{}, err
	}
	defer ns.Close()
	if spec.MAC == nil {
		spec.MAC = randomMAC()
	}
	if spec.Kind == TAP {
		return createTAP(ns, &spec)
	}
	return createVeth(ns, &spec)
}

// createVeth is Create of a veth pair.
func createVeth(ns *Netns, spec *Spec) (link Link, err error) {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Link{}, fmt.Errorf("netlink: %w", err)
	}
	defer host.Close()
	if err := addPair(host, ns, spec); err != nil {
		return Link{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Remove(spec.Ref))
		}
	}()
	link.MAC = spec.MAC
	if link.Ifindex, err = setUpHost(host, spec); err != nil {
		return Link{}, err
	}
	err = ns.Do(func() error {
		link.PodIfindex, err = setUpPod(spec)
		return err
	})
	if err != nil {
		return Link{}, err
	}
	return link, nil
}

// addPair creates both ends in one step, the pod's one in its namespace and
// under its final name, so that no half-made link is ever seen.
func addPair(host *netlink.Handle, ns *Netns, spec *Spec) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = spec.HostName
	attrs.HardwareAddr = HostMAC
	attrs.MTU = hostMTU
	attrs.NumTxQueues, attrs.NumRxQueues = spec.Queues, spec.Queues
	veth := netlink.NewVeth(attrs)
	veth.PeerName = spec.IfName
	veth.PeerNamespace = netlink.NsFd(ns.FD())
	veth.PeerHardwareAddr = spec.MAC
	veth.PeerMTU = uint32(spec.MTU)
	veth.PeerNumTxQueues, veth.PeerNumRxQueues = uint32(spec.Queues), uint32(spec.Queues)

	err := host.LinkAdd(veth)
	if !errors.Is(err, unix.EEXIST) {
		if err != nil {
			return fmt.Errorf("creating veth %s: %w", spec.HostName, err)
		}
		return nil
	}
	if _, herr := host.LinkByName(spec.HostName); herr == nil {
		return fmt.Errorf("%s: %w", spec.HostName, ErrHostNameTaken)
	}
	return fmt.Errorf("%s: %w", spec.IfName, ErrInterfaceExists)
}

// setUpHost silences the host end, then brings it up.
func setUpHost(host *netlink.Handle, spec *Spec) (ifindex int, err error) {
	link, err := host.LinkByName(spec.HostName)
	if err != nil {
		return 0, fmt.Errorf("host interface %s: %w", spec.HostName, err)
	}
	if err := setSysctls(spec.HostName, hostSysctls); err != nil {
		return 0, err
	}
	if spec.Alias != "" {
		if err := host.LinkSetAlias(link, shorten(spec.Alias, 200)); err != nil {
			return 0, fmt.Errorf("alias of %s: %w", spec.HostName, err)
		}
	}
	if err := host.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("bringing %s up: %w", spec.HostName, err)
	}
	return link.Attrs().Index, nil
}

// setUpPod configures the pod's end. The thread is in the pod's namespace.
func setUpPod(spec *Spec) (ifindex int, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("netlink in the pod: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(spec.IfName)
	if err != nil {
		return 0, fmt.Errorf("%s in the pod: %w", spec.IfName, err)
	}
	if spec.Kind != TAP { // which carries them all
		if err := disableLossyFeatures(spec.IfName); err != nil {
			return 0, err
		}
	}
	if spec.has6() {
		if err := setSysctls(spec.IfName, podSysctls6); err != nil {
			return 0, fmt.Errorf("in the pod: %w", err)
		}
	}
	for _, a := range spec.Addrs {
		if err := h.AddrAdd(link, hostAddress(a)); err != nil {
			return 0, fmt.Errorf("address %s on %s in the pod: %w", a, spec.IfName, err)
		}
	}
	// A pod that talks to its own address does it over lo.
	if lo, err := h.LinkByName("lo"); err == nil {
		if err := h.LinkSetUp(lo); err != nil {
			return 0, fmt.Errorf("bringing lo up in the pod: %w", err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("bringing %s up in the pod: %w", spec.IfName, err)
	}
	index := link.Attrs().Index
	for _, r := range podRoutes(spec, index) {
		if err := h.RouteAdd(&r); err != nil {
			return 0, fmt.Errorf("route %s in the pod: %w", r, err)
		}
	}
	return index, nil
}

// podRoutes are the routes of a pod's end, in the order in which they hold.
func podRoutes(spec *Spec, ifindex int) []netlink.Route {
	var routes []netlink.Route
	if spec.has4() {
		routes = append(routes,
			netlink.Route{LinkIndex: ifindex, Dst: hostNet(Gateway4), Scope: netlink.SCOPE_LINK},
			netlink.Route{LinkIndex: ifindex, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gw: Gateway4.AsSlice()})
	}
	if spec.has6() {
		routes = append(routes,
			netlink.Route{LinkIndex: ifindex, Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, Gw: Gateway6.AsSlice()})
	}
	return routes
}

// hostAddress is a as /32 or /128, usable at once.
func hostAddress(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: hostNet(a)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func shorten(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
