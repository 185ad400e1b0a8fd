package outer

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"culvert/internal/packet"
)

// The filters keep everything away from us that the node's other traffic is made of:
// what they refuse is not copied to our sockets' buffers and does not wake us. What
// they take is looked at again.

// field is a big-endian value of a packet that a filter compares.
type field struct {
	// mode is unix.BPF_ABS, or BPF_IND: off is behind the IPv4 header then.
	mode uint16
	size uint16 // unix.BPF_B, BPF_H or BPF_W
	off  uint32
	want uint32
}

// filter is the classic BPF program that takes packets all of whose fields are as
// wanted.
func filter(fields ...field) []unix.SockFilter {
	prog := []unix.SockFilter{{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH}} // X: the length of the IPv4 header
	for i, f := range fields {
		left := 2*(len(fields)-i-1) + 1 // instructions to refuse, over take
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_LD | f.mode | f.size, K: f.off},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(left), K: f.want})
	}
	return append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18}, // take: all of it
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})             // refuse
}

// errors4 takes ICMP messages that quote a packet from l.Addr. A raw IPv4 socket has
// packets from the IP header on.
func (l *Local) errors4() []unix.SockFilter {
	return filter(field{unix.BPF_IND, unix.BPF_W, packet.ICMPLen + 12, binary.BigEndian.Uint32(l.Addr.AsSlice())})
}

// errors6 takes ICMPv6 messages that quote UDP from l.Addr. A raw IPv6 socket has
// packets from behind the IPv6 header on.
func (l *Local) errors6() []unix.SockFilter {
	fields := []field{{unix.BPF_ABS, unix.BPF_B, packet.ICMPLen + 6, packet.ProtoUDP}}
	a := l.Addr.As16()
	for i := range uint32(4) {
		fields = append(fields, field{unix.BPF_ABS, unix.BPF_W, packet.ICMPLen + 8 + 4*i, binary.BigEndian.Uint32(a[4*i:])})
	}
	return filter(fields...)
}

// datagrams4 takes datagrams to VXLAN's port.
func (l *Local) datagrams4() []unix.SockFilter {
	return filter(field{unix.BPF_IND, unix.BPF_H, 2, uint32(l.Port)})
}

// datagrams6 is datagrams4 over IPv6.
func (l *Local) datagrams6() []unix.SockFilter {
	return filter(field{unix.BPF_ABS, unix.BPF_H, 2, uint32(l.Port)})
}
