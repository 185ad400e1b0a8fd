package podlink

import (
	"bytes"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check compares what stands with what Create made for spec, and describes
// the first difference. More addresses, routes or settings than ours are
// fine: plugins later in a chain may add them, and so is a smaller MTU, of which the
// tuning plugin's result does not tell. A nil spec.MAC is not compared.
func Check(spec Spec) error {
	ns, err := OpenNetns(spec.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if spec.Kind == TAP {
		return ns.Do(func() error { return checkPod(&spec, nil) })
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer host.Close()
	link, err := host.LinkByName(spec.HostName)
	if isGone(err) {
		return fmt.Errorf("host interface %s is missing", spec.HostName)
	}
	if err != nil {
		return fmt.Errorf("host interface %s: %w", spec.HostName, err)
	}
	if err := checkLink(link, "veth", "host interface", HostMAC); err != nil {
		return err
	}
	return ns.Do(func() error { return checkPod(&spec, link.Attrs()) })
}

// checkLink verifies what all ends have in common.
func checkLink(link netlink.Link, kind, what string, mac net.HardwareAddr) error {
	a := link.Attrs()
	switch {
	case link.Type() != kind:
		return fmt.Errorf("%s %s is a %s, not a %s", what, a.Name, link.Type(), kind)
	case a.Flags&net.FlagUp == 0:
		return fmt.Errorf("%s %s is down", what, a.Name)
	case mac != nil && !bytes.Equal(a.HardwareAddr, mac):
		return fmt.Errorf("%s %s has MAC %s, not %s", what, a.Name, a.HardwareAddr, mac)
	}
	return nil
}

// checkPod verifies the pod's end; host is the other one, nil for a TAP. The
// thread is in the pod's namespace.
func checkPod(spec *Spec, host *netlink.LinkAttrs) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the pod: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(spec.IfName)
	if isGone(err) {
		return fmt.Errorf("pod interface %s is missing", spec.IfName)
	}
	if err != nil {
		return fmt.Errorf("pod interface %s: %w", spec.IfName, err)
	}
	a, kind := link.Attrs(), "veth"
	if host == nil {
		kind = tapType
	} else if a.ParentIndex != host.Index || host.ParentIndex != a.Index {
		return fmt.Errorf("pod interface %s is not the other end of %s", spec.IfName, spec.HostName)
	}
	if err := checkLink(link, kind, "pod interface", spec.MAC); err != nil {
		return err
	}
	if host == nil && !isOurs(link, &spec.Ref) {
		return fmt.Errorf("pod interface %s is not the TAP that was made for this pod", spec.IfName)
	}
	if a.MTU > spec.MTU {
		return fmt.Errorf("pod interface %s has MTU %d, more than %d", spec.IfName, a.MTU, spec.MTU)
	}
	if err := checkAddrs(h, link, spec); err != nil {
		return err
	}
	return checkRoutes(h, link, spec)
}

func checkAddrs(h *netlink.Handle, link netlink.Link, spec *Spec) error {
	have, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s in the pod: %w", spec.IfName, err)
	}
	for _, want := range spec.Addrs {
		found := false
		for _, a := range have {
			found = found || a.IP.Equal(want.AsSlice())
		}
		if !found {
			return fmt.Errorf("pod interface %s does not have address %s", spec.IfName, want)
		}
	}
	return nil
}

func checkRoutes(h *netlink.Handle, link netlink.Link, spec *Spec) error {
	have, err := h.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("routes of %s in the pod: %w", spec.IfName, err)
	}
	for _, want := range podRoutes(spec, link.Attrs().Index) {
		found := false
		for _, r := range have {
			found = found || sameRoute(&r, &want)
		}
		if !found {
			return fmt.Errorf("the pod lacks the route %s dev %s", describeRoute(&want), spec.IfName)
		}
	}
	return nil
}

// sameRoute compares destination and gateway: the rest is another plugin's to tune.
func sameRoute(a, b *netlink.Route) bool {
	return describeRoute(a) == describeRoute(b)
}

func describeRoute(r *netlink.Route) string {
	dst := "default"
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 {
			dst = r.Dst.String()
		}
	}
	if r.Gw == nil {
		return dst
	}
	return dst + " via " + r.Gw.String()
}
