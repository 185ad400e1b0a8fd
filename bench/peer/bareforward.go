package peer

import (
	"encoding/binary"

	"culvert/bench/testbed"
	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"
	"culvert/encap"
	"culvert/internal/packet"

	"github.com/vishvananda/netlink"
)

// bareForwarder moves frames between the pod's and the uplink's socket.
type bareForwarder struct {
	pool     *frame.Pool
	template encap.Template
	id       uint16
	burst    frame.Burst
}

func newBareForwarder(pool *frame.Pool) (*bareForwarder, error) {
	t, err := encap.VXLAN(encap.VXLANParams{
		SrcMAC: packet.MAC(testbed.UplinkMAC), DstMAC: packet.MAC(testbed.WireMAC),
		Src: packet.AddrFrom(testbed.NodeAddr), Dst: packet.AddrFrom(testbed.PeerAddr),
		DstPort: testbed.Port, VNI: testbed.VNI,
		InnerSrc: packet.MAC(testbed.NodeVTEP), InnerDst: packet.MAC(testbed.PeerVTEP),
	})
	if err != nil {
		return nil, err
	}
	return &bareForwarder{pool: pool, template: t}, nil
}

// pass takes a burst, changes each frame in place, and sends it. A frame that
// change does not want, or that finds no room, is freed.
func (f *bareForwarder) pass(from, to *xsk.Socket, change func(*frame.Frame) bool) {
	f.burst.Reset()
	if from.Recv(&f.burst) == 0 {
		return
	}
	all := f.burst.Frames[:f.burst.N]
	kept := 0
	for n := range all {
		if !change(&all[n]) {
			f.pool.FreeFrame(&all[n])
			continue
		}
		all[kept] = all[n]
		kept++
	}
	for n := to.Send(all[:kept]); n < kept; n++ {
		f.pool.FreeFrame(&all[n])
	}
}

// encap puts a pod's UDP packet into the tunnel.
func (f *bareForwarder) encap(fr *frame.Frame) bool {
	b := f.pool.Bytes(fr.Addr, fr.Len)
	if len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != packet.EtherTypeIPv4 || b[14] != 0x45 {
		return false
	}
	ip := packet.IPv4(b[packet.EthernetLen:])
	packet.DecrementTTL4(ip)
	f.id++
	in := encap.Inner{
		Len: int(binary.BigEndian.Uint16(ip[2:])), ID: f.id, TOS: ip[1], TTL: ip[8],
		SrcPort: encap.SourcePort(uint64(binary.BigEndian.Uint32(ip[20:])) * 0x9e3779b97f4a7c15),
	}
	grow := uint32(f.template.Len) - packet.EthernetLen
	fr.Addr -= uint64(grow)
	fr.Len += grow
	fr.Total += grow
	f.template.Push(f.pool.Bytes(fr.Addr, uint32(f.template.Len)), &in)
	return true
}

// decap takes a packet for the pod out of the tunnel.
func (f *bareForwarder) decap(fr *frame.Frame) bool {
	const shrink = encap.OverheadVXLAN4
	b := f.pool.Bytes(fr.Addr, fr.Len)
	if len(b) < shrink+42 || b[shrink+14] != 0x45 {
		return false
	}
	fr.Addr += shrink
	fr.Len -= shrink
	fr.Total -= shrink
	copy(b[shrink:], testbed.PodMAC)
	copy(b[shrink+6:], testbed.GatewayMAC)
	packet.DecrementTTL4(packet.IPv4(b[shrink+packet.EthernetLen:]))
	return true
}

// ifindex finds a device of the calling thread's namespace.
func ifindex(name string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}
