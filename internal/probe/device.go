package probe

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"culvert/dataplane/xsk"
	"culvert/internal/ethtool"
)

// NIC is what the kernel says of a device.
type NIC struct {
	Driver string // empty where it has no name
	// Queues are in use, of MaxQueues; 0 where the driver knows no channels.
	Queues, MaxQueues int
	// NativeXDP and ZeroCopy are known since Linux 6.3.
	NativeXDP, ZeroCopy, XDPKnown bool
	// Program is the ID of an XDP program on the device, 0 without one.
	Program uint32
}

// Look describes a device of the caller's network namespace.
func Look(name string) (n NIC, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return n, fmt.Errorf("device %s: %w", name, err)
	}
	if x := l.Attrs().Xdp; x != nil && x.Attached {
		n.Program = x.ProgId
	}
	n.Driver, _ = ethtool.Driver(name)
	if c, err := ethtool.GetChannels(name); err == nil {
		n.Queues, n.MaxQueues = c.Combined, c.MaxCombined
	}
	n.NativeXDP, n.ZeroCopy, n.XDPKnown = xsk.DriverXDP(l.Attrs().Index)
	return n, nil
}

// Device is one that may be another network agent's.
type Device struct {
	Name string
	Kind string // vxlan, bridge, veth, ...
	// VNI and Port are a VXLAN device's.
	VNI, Port int
	Up        bool
}

// Devices lists those of the caller's network namespace.
func Devices() (all []Device, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing devices: %w", err)
	}
	for _, l := range links {
		d := Device{Name: l.Attrs().Name, Kind: l.Type(), Up: l.Attrs().OperState != netlink.OperDown}
		if v, ok := l.(*netlink.Vxlan); ok {
			d.VNI, d.Port = v.VxlanId, v.Port
		}
		all = append(all, d)
	}
	return all, nil
}
