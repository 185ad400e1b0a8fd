package dataplane

import (
	"encoding/binary"

	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/internal/packet"
)

// The outer UDP checksum of tunnels over IPv6. It covers the inner packet, whose own
// checksum may be partial, to be completed by whoever takes the frame last. Then the
// outer one is made, and checked, as it will be right afterwards: what the checksum
// covers sums up to the inverse of the partial one's seed. That is Linux's local
// checksum offload (Documentation/networking/checksum-offloads.rst, lco_csum), and
// it costs a look at the headers alone.

// sumInner is the sum of the IP packet whose first byte is n bytes into the frame,
// where info has it at info.L3: what an outer checksum is made of.
func (w *worker) sumInner(f *frame.Frame, info *packet.Info, n uint32) uint16 {
	b := w.pool.Bytes(f.Addr, f.Len)
	if info.Flags&packet.Partial != 0 {
		if offset, ok := packet.ChecksumOffset(info.Proto); ok {
			l4 := n + uint32(info.L4-info.L3)
			return sumPartial(b[n:], l4-n, offset)
		}
	}
	return w.sumChunks(f, b[n:])
}

// sumPartial is the sum that a packet will have when its transport checksum, which
// is partial, is complete.
func sumPartial(b []byte, l4 uint32, offset int) uint16 {
	seed := binary.BigEndian.Uint16(b[int(l4)+offset:])
	return uint16(packet.Sum(b[:l4], uint32(^seed)))
}

// sumChunks is the sum of a frame whose first chunk's bytes that count are head.
func (w *worker) sumChunks(f *frame.Frame, head []byte) uint16 {
	w.sum.Reset(0)
	w.sum.Add(head)
	for i := range f.Rest {
		w.sum.Add(w.pool.Bytes(f.Rest[i].Addr, f.Rest[i].Len))
	}
	return uint16(w.sum.Sum())
}

// outerSumOK reports whether Linux takes the outer UDP checksum of a tunnel packet
// over IPv6. The frame begins with the inner Ethernet header, info is what is parsed
// of it, and the outer headers are in front. None at all is refused (RFC 8200 8.1,
// udp6_csum_init of net/ipv6/ip6_checksum.c; VXLAN devices do not set no_check6_rx
// unless told to), and so is a wrong one. A veth between two nodes leaves it partial.
func (w *worker) outerSumOK(f *frame.Frame, info *packet.Info, outer *encap.Outer) bool {
	udp := uint32(outer.Payload) - packet.UDPLen
	back := uint32(outer.InnerOffset) - udp
	b := w.pool.Bytes(f.Addr-uint64(back), f.Len+back)
	check := binary.BigEndian.Uint16(b[6:])
	if check == 0 {
		return false
	}
	if f.SegSize != 0 {
		return true // merged by the kernel, which has checked each
	}
	pseudo := packet.PseudoSum6(&outer.Src, &outer.Dst, packet.ProtoUDP, outer.End-udp)
	if packet.Fold(pseudo) == check {
		return true
	}
	if offset, ok := packet.ChecksumOffset(info.Proto); ok && info.Flags&packet.Partial != 0 {
		if packet.Fold(pseudo+uint32(sumPartial(b, back+uint32(info.L4), offset))) == 0xffff {
			return true
		}
	}
	return packet.Fold(pseudo+uint32(w.sumChunks(f, b))) == 0xffff
}
