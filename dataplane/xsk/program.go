package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mode is how an XDP program runs on a device.
type Mode string

// The modes. Native runs in the driver, before the kernel makes an skb of a
// frame; generic runs on the skb.
const (
	ModeAuto    Mode = "auto"
	ModeNative  Mode = "native"
	ModeGeneric Mode = "generic"
)

// DefaultPodMode is what ModeAuto means on a pod's veth. A native program on
// the host's end takes segmentation offload from the pod's end
// (drivers/net/veth.c, veth_xdp_set), so that every TCP packet is MTU-sized,
// and costs an extra copy for every packet that a pod's stack made
// (veth_convert_skb_to_xdp_buff). Generic lets GSO packets of 64 KB through as
// chains. docs/performance.md has the measurements.
const DefaultPodMode = ModeGeneric

// Endpoint is a UDP destination whose datagrams an uplink's program takes, or with
// port 0 an IPv4 address whose IPIP packets it takes.
type Endpoint struct {
	Addr netip.Addr
	Port uint16
}

// Attachment is a steering program on a device, with its map from receive
// queue to socket. The kernel removes both when the process ends. Its methods
// are safe from any goroutine.
type Attachment struct {
	name string
	mode Mode
	link link.Link

	mu        sync.Mutex
	sockets   *ebpf.Map
	endpoints *ebpf.Map // nil on a pod
	ends      []Endpoint
	prefixes  *Prefixes // nil on a pod
	own       *Own      // likewise
}

// AttachUplink puts the program that takes only datagrams to ends, and leaves
// everything else to the kernel, on a NIC of the calling thread's network
// namespace. ModeAuto is native with generic as the fallback; on a veth, whose
// peer would lose its segmentation offload, it is generic.
func AttachUplink(ifindex int, name string, mode Mode, ends []Endpoint) (*Attachment, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("xsk: finding uplink %s (index %d): %w", name, ifindex, err)
	}
	order := []Mode{ModeNative, ModeGeneric}
	if l.Type() == "veth" {
		order = []Mode{ModeGeneric, ModeNative}
	}
	a, err := attach(l, name, mode, order, steerProgSteerUplink)
	if err != nil {
		return nil, err
	}
	if err := a.SetEndpoints(ends); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// AttachPod puts the program that takes every frame on the host's end of a
// pod's veth. Frames that find no socket are dropped. ModeAuto is
// DefaultPodMode, with the other mode as the fallback.
func AttachPod(ifindex int, name string, mode Mode) (*Attachment, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("xsk: finding pod device %s (index %d): %w", name, ifindex, err)
	}
	order := []Mode{ModeGeneric, ModeNative}
	if DefaultPodMode == ModeNative {
		slices.Reverse(order)
	}
	return attach(l, name, mode, order, steerProgSteerPod)
}

// attach loads the program and attaches it in the given mode, or for ModeAuto
// in the first of order that works.
func attach(l netlink.Link, name string, mode Mode, order []Mode, program string) (*Attachment, error) {
	switch mode {
	case "", ModeAuto:
	case ModeNative, ModeGeneric:
		order = []Mode{mode}
	default:
		return nil, fmt.Errorf("xsk: attaching to %s: mode %q: must be auto, native or generic", name, mode)
	}
	coll, err := load(program, max(1, l.Attrs().NumRxQueues))
	if err != nil {
		return nil, fmt.Errorf("xsk: loading %s for %s: %w: Culvert needs Linux 6.6 or later and CAP_BPF with CAP_NET_ADMIN",
			program, name, err)
	}
	defer coll.Close() // what the attachment keeps is detached from it
	for i, m := range order {
		var at link.Link
		at, err = link.AttachXDP(link.XDPOptions{
			Program:   coll.Programs[program],
			Interface: l.Attrs().Index,
			Flags:     map[Mode]link.XDPAttachFlags{ModeNative: link.XDPDriverMode, ModeGeneric: link.XDPGenericMode}[m],
		})
		if err == nil {
			a := &Attachment{name: name, mode: m, link: at, sockets: coll.DetachMap(steerMapSockets)}
			if program == steerProgSteerUplink {
				a.prefixes, a.own = NewPrefixes(coll), NewOwn(coll)
				a.endpoints = coll.DetachMap(steerMapEndpoints)
				coll.DetachMap(steerMapPrefixes)
				coll.DetachMap(steerMapOwnPorts)
			}
			return a, nil
		}
		err = fmt.Errorf("%s mode: %w", m, err)
		if i+1 < len(order) && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)) {
			break // another program is there: the other mode would clash as well
		}
	}
	return nil, fmt.Errorf("xsk: attaching to %s: %w%s", name, err, attachAdvice(err))
}

// load loads one program with a socket map for the given number of queues.
func load(program string, queues int) (*ebpf.Collection, error) {
	spec, err := loadSteer()
	if err != nil {
		return nil, err
	}
	for other := range spec.Programs {
		if other != program {
			delete(spec.Programs, other)
		}
	}
	sockets := spec.Maps[steerMapSockets]
	sockets.MaxEntries = uint32(queues)
	sockets.Key, sockets.Value = nil, nil // the kernel refuses BTF on it, after a grace period
	if program != steerProgSteerUplink {
		delete(spec.Maps, steerMapEndpoints)
		delete(spec.Maps, steerMapPrefixes)
		delete(spec.Maps, steerMapOwnPorts)
	}
	return ebpf.NewCollection(spec)
}

func attachAdvice(err error) string {
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return ": another XDP program is on the device: see 'bpftool net' and remove it, or give Culvert another device"
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENOSPC):
		return ": the MTU or number of queues of the device or its peer is too large for native mode: set the mode to generic"
	case errors.Is(err, unix.EPERM):
		return ": grant CAP_BPF and CAP_NET_ADMIN, or run as root"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return ": the driver has no native XDP or refuses it as the device is configured: set the mode to generic"
	}
	return ""
}

// Mode is native or generic: what was attached.
func (a *Attachment) Mode() Mode { return a.mode }

// SetSocket makes s receive what arrives on a queue, or with nil nobody. The
// kernel forgets a socket by itself when it is closed.
func (a *Attachment) SetSocket(queue int, s *Socket) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	if s != nil {
		err = a.sockets.Put(uint32(queue), uint32(s.fd))
	} else if err = a.sockets.Delete(uint32(queue)); errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("xsk: steering queue %d of %s: %w: the device has %d queues",
			queue, a.name, err, a.sockets.MaxEntries())
	}
	return nil
}

// SetEndpoints changes what an uplink's program takes. New endpoints are added
// before old ones are removed: one that is in both sets is never missing.
func (a *Attachment) SetEndpoints(ends []Endpoint) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endpoints == nil {
		return fmt.Errorf("xsk: %s: a pod's program takes everything and has no endpoints", a.name)
	}
	for _, e := range ends {
		if err := a.endpoints.Put(endpointKey(e), uint8(1)); err != nil {
			return fmt.Errorf("xsk: steering %s port %d on %s: %w: at most %d endpoints fit",
				e.Addr, e.Port, a.name, err, a.endpoints.MaxEntries())
		}
		if !slices.Contains(a.ends, e) {
			a.ends = append(a.ends, e)
		}
	}
	kept := a.ends[:0]
	for _, e := range a.ends {
		if slices.Contains(ends, e) {
			kept = append(kept, e)
		} else if err := a.endpoints.Delete(endpointKey(e)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("xsk: no longer steering %s port %d on %s: %w", e.Addr, e.Port, a.name, err)
		}
	}
	a.ends = kept
	return nil
}

// SetPrefixes makes an uplink's program take what is for addresses in them, too,
// whatever it is.
func (a *Attachment) SetPrefixes(prefixes []netip.Prefix) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.prefixes == nil {
		return fmt.Errorf("xsk: %s: a pod's program takes everything and has no prefixes", a.name)
	}
	return a.prefixes.Set(prefixes)
}

// SetOwnPorts makes an uplink's program take what is for those ports of the node's own
// addresses, too.
func (a *Attachment) SetOwnPorts(own OwnPorts) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own == nil {
		return fmt.Errorf("xsk: %s: a pod's program takes everything and has no ports", a.name)
	}
	return a.own.Set(own)
}

// endpointKey is struct target of bpf/tunnel.h.
func endpointKey(e Endpoint) steerTarget {
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], e.Port)
	return steerTarget{Addr: e.Addr.As16(), Port: binary.NativeEndian.Uint16(port[:])}
}

// Close detaches the program. The sockets stay open and receive nothing more.
// Closing twice is harmless.
func (a *Attachment) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link == nil {
		return nil
	}
	errs := []error{a.link.Close(), a.sockets.Close()}
	a.link = nil
	if a.endpoints != nil {
		errs = append(errs, a.endpoints.Close(), a.prefixes.set.Close(), a.own.ports.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("xsk: detaching from %s: %w", a.name, err)
	}
	return nil
}
