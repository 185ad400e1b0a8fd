package intake

import (
	"errors"
	"fmt"
	"net"
	"time"

	"culvert/dataplane/xsk"
	"culvert/internal/ethtool"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Segments from a NIC without native XDP have been through the kernel's GRO when the
// program sees them. GRO merges those inside VXLAN only if the kernel knows the UDP
// port to be a tunnel's: udp4_gro_lookup_skb of net/ipv4/udp_offload.c looks for a
// socket with a gro_receive of its own, and only a tunnel device of the kernel
// opens such a one. What GRO has not merged costs a program run, two copies and
// a turn in the pipeline for each segment.

// tunnelPorts are UDP ports that the kernel merges within: a VXLAN device for each,
// whose socket is in the host's network namespace and whose other end is in the
// intake's, where nothing that it delivers is taken up. They end with the
// namespace, and so with the process. A tunnel device of somebody else shares the
// socket, whichever came first.
type tunnelPorts struct {
	host, space namespace
	open        map[tunnelPort]error // why the kernel does not merge in it, if it does not
}

// tunnelPort is one of them, of one family.
type tunnelPort struct {
	port uint16
	v6   bool
}

func tunnelPortOf(e xsk.Endpoint) tunnelPort { return tunnelPort{port: e.Port, v6: e.Addr.Is6()} }

// device is its name.
func (p tunnelPort) device() string {
	if p.v6 {
		return fmt.Sprintf("vxlan6-%d", p.port)
	}
	return fmt.Sprintf("vxlan%d", p.port)
}

func newTunnelPorts(space namespace) (*tunnelPorts, error) {
	host, err := unix.Open(threadNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the thread's network namespace: %w", err)
	}
	return &tunnelPorts{host: namespace(host), space: space, open: make(map[tunnelPort]error)}, nil
}

func (t *tunnelPorts) close() error { return t.host.close() }

// set makes those ports the ones that are open.
func (t *tunnelPorts) set(ports map[tunnelPort]bool) {
	for p := range t.open {
		if !ports[p] {
			_ = t.space.do(func() error { return removeLink(p.device()) }) // it is of no harm
			delete(t.open, p)
		}
	}
	for p := range ports {
		if err, tried := t.open[p]; !tried || err != nil {
			t.open[p] = t.add(p)
		}
	}
}

// idleVNI is the VNI that the devices would receive: the last one. A device that
// takes all of them could share its socket with no other (vxlan_find_sock in
// drivers/net/vxlan/vxlan_core.c).
const idleVNI = 1<<24 - 1

// predecessor is for how many hundredths of a second another process's device of the
// same port is waited for.
const predecessor = 30

// add opens a port. One that somebody else's tunnel device has open already, in a way
// that cannot be shared, is as good.
func (t *tunnelPorts) add(p tunnelPort) error {
	l := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: p.device(), TxQLen: -1, Namespace: netlink.NsFd(t.space)},
		VxlanId:   idleVNI, Port: int(p.port),
	}
	if p.v6 {
		l.SrcAddr = net.IPv6zero // of any address, but of that family
	}
	err := t.host.do(func() error { return netlink.LinkAdd(l) })
	for range predecessor { // a process that was killed just now: its devices are on their way out
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		err = t.host.do(func() error { return netlink.LinkAdd(l) })
	}
	if err == nil {
		err = t.space.do(func() error { return t.bringUp(l.Name) })
	}
	if err != nil && !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("opening UDP port %d as VXLAN's: %w", p.port, err)
	}
	return nil
}

// bringUp opens the device's socket, or removes the device.
func (t *tunnelPorts) bringUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	silence(name)
	if err := netlink.LinkSetUp(l); err != nil {
		return errors.Join(err, netlink.LinkDel(l))
	}
	return nil
}

// removeLink removes a device of the calling thread's network namespace.
func removeLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil // it never came up
	}
	return netlink.LinkDel(l)
}

// Merging reports whether the kernel's GRO merges what arrives at an uplink, or why
// it does not.
func (a *Attachment) Merging() error {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	errs := []error{a.gro}
	for _, e := range a.ends {
		errs = append(errs, a.in.tunnels.open[tunnelPortOf(e)])
	}
	return errors.Join(errs...)
}

// openTunnels opens the ports of all uplinks' endpoints, with in.mu held.
func (in *Intake) openTunnels() {
	ports := make(map[tunnelPort]bool)
	for a := range in.taken {
		for _, e := range a.ends {
			if e.Port != 0 { // for IPIP no socket has to be open (net/ipv4/af_inet.c, ipip_gro_receive)
				ports[tunnelPortOf(e)] = true
			}
		}
	}
	in.tunnels.set(ports)
}

// startGRO switches the GRO of a veth on: it is off unless somebody wants it,
// since nothing that the kernel does with a veth needs it. Of other devices it is on
// by default, and whoever has switched it off had a reason.
func (a *Attachment) startGRO() {
	on, err := ethtool.Feature(a.name, ethtool.GRO)
	switch {
	case err != nil:
		a.gro = fmt.Errorf("asking %s for its generic-receive-offload: %w", a.name, err)
	case on:
	case !isVeth(a.ifindex):
		a.gro = fmt.Errorf("generic-receive-offload of %s is off: ethtool -K %s gro on", a.name, a.name)
	default:
		if err := ethtool.Set(a.name, true, ethtool.GRO); err != nil {
			a.gro = fmt.Errorf("switching generic-receive-offload of %s on: %w", a.name, err)
			return
		}
		a.groWas = func() error { return ethtool.Set(a.name, false, ethtool.GRO) }
	}
}

func isVeth(ifindex int) bool {
	l, err := netlink.LinkByIndex(ifindex)
	return err == nil && l.Type() == "veth"
}

// stopGRO brings back what startGRO has changed. A device that is gone has no GRO.
func (a *Attachment) stopGRO() error {
	if a.groWas == nil {
		return nil
	}
	restore := a.groWas
	a.groWas = nil
	if err := a.in.tunnels.host.do(restore); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("switching generic-receive-offload of %s off: %w", a.name, err)
	}
	return nil
}

// StopMerging gives the uplinks' settings back that the merging needs, and closes the
// ports that it has opened, while frames go on to be taken: the first half of Leave.
func (in *Intake) StopMerging() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	var errs []error
	for a := range in.taken {
		errs = append(errs, a.stopGRO())
	}
	in.tunnels.set(nil)
	return errors.Join(errs...)
}
