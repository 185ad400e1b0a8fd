package underlay

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"culvert/internal/packet"
)

// device is what the mirror keeps of any device of the namespace.
type device struct {
	name     string
	up       bool
	ethernet bool
	mac      packet.MAC
	mtu      int
	kind     string
	queues   int // allocated; those in use can be fewer
}

// deviceFrom takes from l what the mirror keeps.
func deviceFrom(l netlink.Link) device {
	a := l.Attrs()
	d := device{
		name: a.Name, mtu: a.MTU, queues: a.NumRxQueues,
		up:       a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0,
		ethernet: a.EncapType == "ether" && len(a.HardwareAddr) == len(packet.MAC{}),
	}
	if d.ethernet {
		d.mac = packet.MAC(a.HardwareAddr)
	}
	if kind := l.Type(); kind != "device" { // the library's word for hardware
		d.kind = kind
	}
	return d
}

// links lists all devices of the namespace.
func (k *kernel) links() (map[int]device, error) {
	var all map[int]device
	err := k.dump("network devices", func(h *netlink.Handle) error {
		list, err := h.LinkList()
		all = make(map[int]device, len(list))
		for _, l := range list {
			all[l.Attrs().Index] = deviceFrom(l)
		}
		return err
	})
	return all, err
}

// addrs lists the usable addresses by device.
func (k *kernel) addrs() (map[int][]netip.Prefix, error) {
	var all map[int][]netip.Prefix
	err := k.dump("addresses", func(h *netlink.Handle) error {
		list, err := h.AddrList(nil, netlink.FAMILY_ALL)
		all = map[int][]netip.Prefix{}
		for _, a := range list {
			tentative := a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0
			if tentative || a.Flags&unix.IFA_F_DADFAILED != 0 || a.IPNet == nil {
				continue
			}
			bits, _ := a.Mask.Size()
			all[a.LinkIndex] = append(all[a.LinkIndex], netip.PrefixFrom(addrFrom(a.IP), bits))
		}
		return err
	})
	return all, err
}

// findDevice is the index of the device of that name.
func findDevice(devices map[int]device, name string) (int, bool) {
	for index, d := range devices {
		if d.name == name {
			return index, true
		}
	}
	return 0, false
}

// deviceNames are the devices that an operator can choose from.
func (w *Watcher) deviceNames() (names []string) {
	for d := range maps.Values(w.devices) {
		if d.ethernet {
			names = append(names, d.name)
		}
	}
	if len(names) == 0 {
		return []string{"no Ethernet device"}
	}
	slices.Sort(names)
	return names
}

// defaultUplink is the device of the default route.
func (w *Watcher) defaultUplink() (string, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		best, found := netlink.Route{}, false
		err := w.kernel.dump("routes", func(h *netlink.Handle) error {
			return h.RouteListFilteredIter(family, &netlink.Route{}, 0, func(r netlink.Route) bool {
				if bits := 0; r.Dst != nil {
					if bits, _ = r.Dst.Mask.Size(); bits != 0 {
						return true
					}
				}
				if r.LinkIndex == 0 && len(r.MultiPath) > 0 {
					r.LinkIndex = r.MultiPath[0].LinkIndex
				}
				_, known := w.devices[r.LinkIndex]
				if r.Type == unix.RTN_UNICAST && known && (!found || r.Priority < best.Priority) {
					best, found = r, true
				}
				return true
			})
		})
		if err != nil && (!errors.Is(err, unix.EAFNOSUPPORT) || family == unix.AF_INET) {
			return "", err
		}
		if found {
			return w.devices[best.LinkIndex].name, nil
		}
	}
	return "", fmt.Errorf("this node has no default route to take the uplink from; name the NIC that reaches the other nodes, such as [%s]",
		w.deviceNames()[0])
}

// readUplinks is the state of the uplinks by the devices of the mirror and the
// kernel's addresses. Queues are asked anew with queues set, and for devices
// that are not those they were.
func (w *Watcher) readUplinks(queues bool) ([]Link, error) {
	addrs, err := w.kernel.addrs()
	if err != nil {
		return nil, err
	}
	all := make([]Link, len(w.names))
	for i, name := range w.names {
		index, ok := findDevice(w.devices, name)
		if !ok {
			all[i] = Link{Name: name}
			continue
		}
		d := w.devices[index]
		l := Link{Index: index, Name: name, MAC: d.mac, MTU: d.mtu, Up: d.up, Addrs: addrs[index], Kind: d.kind}
		if before := w.uplinks; !queues && i < len(before) && before[i].Index == index && before[i].Up == l.Up {
			l.Queues = before[i].Queues
		} else {
			l.Queues = w.kernel.queues(index, d)
		}
		all[i] = l
	}
	return all, nil
}

// queues is the number of receive queues that a device uses. Drivers without
// channels to set are not known to ethtool; then sysfs says it, where it shows
// this namespace, and else the number of queues that were allocated.
func (k *kernel) queues(index int, d device) int {
	if n, err := k.channels(index); err == nil && n > 0 {
		return n
	}
	dir := filepath.Join("/sys/class/net", d.name)
	read := func(file string) string {
		text, _ := os.ReadFile(filepath.Join(dir, file))
		return strings.TrimSpace(string(text))
	}
	if read("ifindex") == strconv.Itoa(index) && read("address") == d.mac.String() {
		if found, err := filepath.Glob(filepath.Join(dir, "queues", "rx-*")); err == nil && len(found) > 0 {
			return len(found)
		}
	}
	return max(d.queues, 1)
}

// channels asks ethtool's netlink family for the channels that receive.
func (k *kernel) channels(index int) (n int, err error) {
	var ethtool *netlink.GenlFamily
	err = k.do(func(h *netlink.Handle) (err error) {
		ethtool, err = h.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
		return err
	})
	if err != nil {
		return 0, err
	}
	header := nl.NewRtAttr(unix.ETHTOOL_A_CHANNELS_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(index)))
	answers, err := k.request(unix.NETLINK_GENERIC, int(ethtool.ID), 0, ethtool.ID,
		&nl.Genlmsg{Command: unix.ETHTOOL_MSG_CHANNELS_GET, Version: unix.ETHTOOL_GENL_VERSION}, header)
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.ETHTOOL_A_CHANNELS_RX_COUNT, unix.ETHTOOL_A_CHANNELS_COMBINED_COUNT:
				n += int(nl.NativeEndian().Uint32(a.Value))
			}
		}
	}
	return n, nil
}
