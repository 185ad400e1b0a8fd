package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Attachment is a device whose frames are taken. With the process the kernel ends an
// uplink's; a pod's program goes on, and drops. Its methods are safe from any goroutine.
type Attachment struct {
	in      *Intake
	ifindex int
	name    string
	uplink  bool
	index   uint16
	off     func() error // takes the program off, nil once detached
	refused uint64       // frames, as it was read last
	ends    []xsk.Endpoint
	gro     error        // why the device does not merge what it receives, if it does not
	groWas  func() error // brings its setting back, nil if it is as it was
}

// AttachPod takes every frame that arrives at the host's end of a pod's veth, as
// port index. Frames from another source address than mac are tagged as not
// genuine. The device is one of the calling thread's network namespace.
func (in *Intake) AttachPod(ifindex int, name string, index uint16, mac [6]byte) (*Attachment, error) {
	return in.attach(&Attachment{in: in, ifindex: ifindex, name: name, index: index},
		intakeProgTakePod, intakePort{Mac: mac, Index: index})
}

// AttachUplink takes the datagrams to ends that arrive at a NIC, as port index, and
// leaves everything else to the kernel, and makes the kernel merge what it can of
// them; Merging says whether it does. VLAN tags do not arrive: the kernel keeps
// them beside a frame. The device is one of the calling thread's network
// namespace.
func (in *Intake) AttachUplink(ifindex int, name string, index uint16, ends []xsk.Endpoint) (*Attachment, error) {
	a, err := in.attach(&Attachment{in: in, ifindex: ifindex, name: name, index: index, uplink: true},
		intakeProgTakeUplink, intakePort{Index: index, AnyMac: 1})
	if err != nil {
		return nil, err
	}
	a.startGRO()
	if err := a.SetEndpoints(ends); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// attach notes the port, then attaches the program, which drops a pod's frames
// without a port. It goes in front of other programs: one of those could pass a
// frame on to the host.
func (in *Intake) attach(a *Attachment, program string, port intakePort) (*Attachment, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil, fmt.Errorf("intake: attaching %s: the intake is closed", a.name)
	}
	if err := a.clearShares(); err != nil {
		return nil, fmt.Errorf("intake: attaching %s as port %d: %w: at most %d ports fit", a.name, a.index, err, maxPorts)
	}
	ports := in.coll.Maps[intakeMapPorts]
	err := ports.Update(uint32(a.ifindex), port, ebpf.UpdateNoExist)
	switch {
	case errors.Is(err, ebpf.ErrKeyExist):
		return nil, fmt.Errorf("intake: attaching %s (index %d): it is attached already", a.name, a.ifindex)
	case err != nil:
		return nil, fmt.Errorf("intake: attaching %s: %w: at most %d ports fit", a.name, err, ports.MaxEntries())
	}
	if a.uplink {
		a.off, err = in.tie(program, a.ifindex)
	} else {
		a.off, err = stand(a.ifindex, in.coll.Programs[program])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("intake: attaching to %s: %w%s", a.name, err, advice(err)),
			ports.Delete(uint32(a.ifindex)))
	}
	in.taken[a] = struct{}{}
	return a, nil
}

// tie attaches a program that ends with the process, and returns what ends it sooner.
func (in *Intake) tie(program string, ifindex int) (off func() error, err error) {
	l, err := link.AttachTCX(link.TCXOptions{
		Program: in.coll.Programs[program], Interface: ifindex, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
	if err != nil {
		return nil, err
	}
	return l.Close, nil
}

func advice(err error) string {
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return ": tcx needs Linux 6.6 or later"
	case errors.Is(err, unix.ENODEV):
		return ": the device does not exist in this network namespace"
	case errors.Is(err, unix.EPERM):
		return ": grant CAP_BPF and CAP_NET_ADMIN, or run as root"
	}
	return ""
}

// SetEndpoints changes what is taken from an uplink. New endpoints are added before
// old ones are removed: one that is in both sets is never missing.
func (a *Attachment) SetEndpoints(ends []xsk.Endpoint) error {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	if !a.uplink || a.off == nil {
		return fmt.Errorf("intake: setting the endpoints of %s: it is no attached uplink", a.name)
	}
	err := a.setEndpoints(ends)
	a.in.openTunnels()
	return err
}

// SetPrefixes makes the programs of all uplinks take what is for addresses in them,
// too, whatever it is.
func (a *Attachment) SetPrefixes(prefixes []netip.Prefix) error {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	if !a.uplink || a.off == nil {
		return fmt.Errorf("intake: setting the prefixes of %s: it is no attached uplink", a.name)
	}
	return a.in.prefixes.Set(prefixes)
}

// SetOwnPorts makes the programs of all uplinks take what is for those ports of the
// node's own addresses, too.
func (a *Attachment) SetOwnPorts(own xsk.OwnPorts) error {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	if !a.uplink || a.off == nil {
		return fmt.Errorf("intake: setting the node's ports of %s: it is no attached uplink", a.name)
	}
	return a.in.own.Set(own)
}

// setEndpoints is SetEndpoints with a.in.mu held.
func (a *Attachment) setEndpoints(ends []xsk.Endpoint) error {
	m := a.in.coll.Maps[intakeMapEndpoints]
	for _, e := range ends {
		if err := m.Put(a.key(e), uint8(1)); err != nil {
			return fmt.Errorf("intake: steering %s port %d on %s: %w: at most %d endpoints fit",
				e.Addr, e.Port, a.name, err, m.MaxEntries())
		}
		if !slices.Contains(a.ends, e) {
			a.ends = append(a.ends, e)
		}
	}
	kept := a.ends[:0]
	for _, e := range a.ends {
		if slices.Contains(ends, e) {
			kept = append(kept, e)
		} else if err := m.Delete(a.key(e)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("intake: no longer steering %s port %d on %s: %w", e.Addr, e.Port, a.name, err)
		}
	}
	a.ends = kept
	return nil
}

// key is struct endpoint of bpf/intake.bpf.c.
func (a *Attachment) key(e xsk.Endpoint) intakeEndpoint {
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], e.Port)
	key := intakeEndpoint{Ifindex: uint32(a.ifindex)}
	key.To.Addr, key.To.Port = e.Addr.As16(), binary.NativeEndian.Uint16(port[:])
	return key
}

// clearShares forgets what a port that had the index before has had of the queues.
// a.in.mu is held.
func (a *Attachment) clearShares() error {
	for q := range a.in.queues {
		if err := a.in.coll.Maps[intakeMapShares].Put(a.shareKey(q), intakeShare{}); err != nil {
			return err
		}
	}
	return nil
}

// readRefused is called with a.in.mu held.
func (a *Attachment) readRefused() {
	sum := uint64(0)
	for q := range a.in.queues {
		var s intakeShare
		if err := a.in.coll.Maps[intakeMapShares].Lookup(a.shareKey(q), &s); err != nil {
			return
		}
		sum += s.Refused
	}
	a.refused = sum
}

func (a *Attachment) shareKey(queue int) uint32 {
	return uint32(int(a.index)*len(a.in.queues) + queue)
}

// Stats adds to s the frames of the device's that were dropped because it had its
// share of the queues. After Close they stay as they were.
func (a *Attachment) Stats(s *frame.DeviceStats) {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	if !a.in.closed && a.off != nil {
		a.readRefused()
	}
	s.RxShare += a.refused
}

// Close ends the taking of frames. It is called in the network namespace of the device.
// Frames that were taken may still arrive. Closing twice, or after the Intake, is
// harmless.
func (a *Attachment) Close() error {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	if a.in.closed {
		return nil
	}
	return a.detach()
}

// detach is Close with a.in.mu held. A device that is gone is detached already.
func (a *Attachment) detach() error {
	if a.off == nil {
		return nil
	}
	errs := []error{a.off()}
	a.readRefused()
	a.off = nil
	delete(a.in.taken, a)
	err := a.in.coll.Maps[intakeMapPorts].Delete(uint32(a.ifindex))
	if !errors.Is(err, ebpf.ErrKeyNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, a.setEndpoints(nil), a.stopGRO())
	if a.uplink {
		a.in.openTunnels()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("intake: detaching from %s: %w", a.name, err)
	}
	return nil
}
