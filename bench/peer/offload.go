package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"culvert/bench/testbed"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:generate go tool -modfile=../../tools/go.mod bpf2go -go-package peer -target bpfel -cflags "-O2 -g -Wall -Werror -Wno-unused-variable" offload bpf/offload.bpf.c

// Offload is the least that a forwarder inside the kernel can be: tcx programs
// that look a flow up, rewrite the frame where it is and redirect it. Nothing of
// it is Culvert's: it shows how much of a packet's time is that of leaving the
// kernel and coming back. It serves one pod and one peer.
type Offload struct{}

// Name implements Device.
func (Offload) Name() string { return "tcx-offload" }

// Check implements Device.
func (Offload) Check(o Options) error {
	if o = o.full(); o.Pods > 1 || o.Peers > 1 || o.Encap != VXLAN {
		return errors.New("it knows one pod, one peer and VXLAN")
	}
	return nil
}

// Start implements Device.
func (d Offload) Start(ctx context.Context, o Options) (*Instance, error) {
	return start(ctx, d, o, func(i *Instance) error {
		for _, step := range []func() error{
			func() error { return i.Bed.AddUnderlay(testbed.Uplink) },
			func() error { return i.Bed.ConnectPods(testbed.PodMTU) },
			func() error { return i.Bed.Node.Do(func() error { return attachOffload(i) }) },
		} {
			if err := step(); err != nil {
				return fmt.Errorf("tcx programs: %w", err)
			}
		}
		i.Note = "tcx programs, one hash lookup a packet"
		return nil
	})
}

// attachOffload loads the programs and puts them on the devices of the calling
// thread's namespace.
func attachOffload(i *Instance) error {
	uplink, err := ifindex(testbed.Uplink)
	if err != nil {
		return err
	}
	pod, err := ifindex(testbed.HostDevice)
	if err != nil {
		return err
	}
	spec, err := loadOffload()
	if err != nil {
		return err
	}
	header := offloadHeader()
	sum := uint32(0)
	for n := 14; n < 34; n += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[n:]))
	}
	var macs [12]byte
	copy(macs[:], i.Bed.Pods[0].MAC)
	copy(macs[6:], testbed.GatewayMAC)
	for name, value := range map[string]any{
		"uplink": uint32(uplink), "pod": uint32(pod), "outer": header, "outer_sum": sum, "macs": macs,
		"port": uint16(testbed.Port>>8 | testbed.Port&0xff<<8),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	defer coll.Close()
	for name, at := range map[string]int{"push": pod, "pop": uplink} {
		l, err := link.AttachTCX(link.TCXOptions{Interface: at, Program: coll.Programs[name], Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return fmt.Errorf("attaching %s: %w", name, err)
		}
		i.onClose(l.Close)
	}
	return nil
}

// offloadHeader is what the pod's frames get in front, without lengths, source
// port and checksum.
func offloadHeader() (b [64]byte) {
	copy(b[:], testbed.WireMAC)
	copy(b[6:], testbed.UplinkMAC)
	b[12] = 0x08
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	copy(ip[12:], testbed.NodeAddr.AsSlice())
	copy(ip[16:], testbed.PeerAddr.AsSlice())
	binary.BigEndian.PutUint16(b[36:], testbed.Port)
	b[42] = 0x08 // the VNI is valid (RFC 7348, section 5)
	binary.BigEndian.PutUint32(b[46:], testbed.VNI<<8)
	copy(b[50:], testbed.PeerVTEP)
	copy(b[56:], testbed.NodeVTEP)
	b[62] = 0x08
	return b
}
