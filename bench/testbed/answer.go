package testbed

import (
	"fmt"
	"net/netip"

	"culvert/internal/ethtool"

	"github.com/vishvananda/netlink"
)

// answerDevice is the name of Flannel's VXLAN device with VNI 1.
const answerDevice = "flannel.1"

// Answer makes the namespace behind the wire the first peer, for real: a kernel
// node as flanneld sets it up (flannel pkg/backend/vxlan: nolearning; for the
// other node a permanent neighbour, a permanent FDB entry and an on-link route),
// with PeerPod as an address of its own, so that programs in Bed.Wire can speak
// to the first pod. The device under test notices nothing: it knows this peer.
// The other peers stay silent, and so does the first for tunnels but VXLAN.
func (b *Bed) Answer() error {
	if err := b.answer(); err != nil {
		return fmt.Errorf("testbed: making %s answer: %w", PeerPod, err)
	}
	return nil
}

func (b *Bed) answer() error {
	w := b.Wire
	if err := w.AddAddr(WireDevice, netip.PrefixFrom(PeerAddr, UnderlayBits)); err != nil {
		return err
	}
	if err := w.AddNeighbour(WireDevice, NodeAddr, UplinkMAC); err != nil {
		return err
	}
	err := w.Do(func() error {
		lower, err := netlink.LinkByName(WireDevice)
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: answerDevice, HardwareAddr: PeerVTEP, MTU: PodMTU, TxQLen: -1},
			VxlanId:   VNI, VtepDevIndex: lower.Attrs().Index, SrcAddr: PeerAddr.AsSlice(), Port: Port,
		})
	})
	if err != nil {
		return fmt.Errorf("adding %s: %w", answerDevice, err)
	}
	for _, step := range []func() error{
		func() error { return w.AddAddr(answerDevice, netip.PrefixFrom(PeerPod, 32)) },
		func() error { return w.Up(answerDevice) },
		func() error { return w.AddNeighbour(answerDevice, PodCIDR.Addr(), NodeVTEP) },
		func() error { return w.AddFDB(answerDevice, NodeVTEP, NodeAddr) },
		func() error { return w.AddRoute(answerDevice, PodCIDR, PodCIDR.Addr()) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// SumChecksums makes the kernel finish the checksums of what it sends by a
// device, for a receiver that takes frames as they are: a veth otherwise passes
// them on for a NIC to finish. Segmentation offload goes with it.
func (s *Space) SumChecksums(device string) error {
	return s.Do(func() error { return ethtool.Set(device, false, "tx-checksum-ip-generic") })
}
