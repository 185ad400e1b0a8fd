package xdpgen

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Lengths of headers, and where a VXLAN frame's inner Ethernet header begins.
const (
	lenEthernet = 14
	lenIPv4     = 20
	lenUDP      = 8
	lenVXLAN    = 8
	lenTunnel   = lenEthernet + lenIPv4 + lenUDP + lenVXLAN
)

// MinFrame and MaxFrame are the lengths of frames before a tunnel's headers,
// without the frame check sequence.
const (
	MinFrame = 64
	MaxFrame = 1514
)

// Flow is what all frames of a generator have in common: UDP over IPv4.
type Flow struct {
	SrcMAC, DstMAC net.HardwareAddr
	Src, Dst       netip.Addr
	// Len is the frame's length from MinFrame to MaxFrame.
	Len int
}

// Tunnel is the VXLAN tunnel around a flow.
type Tunnel struct {
	SrcMAC, DstMAC net.HardwareAddr
	Src, Dst       netip.Addr
	Port           uint16
	VNI            uint32
}

// template is a frame without what varies from one frame to the next: the
// ports of the flow, its checksum, and the tunnel's source port.
type template struct {
	frame []byte
	udp   int    // offset of the flow's UDP header
	sum   uint32 // of what its checksum covers except the ports
}

// newTemplate builds the frame of a flow, inside tunnel if that is not nil.
func newTemplate(f Flow, tunnel *Tunnel) (template, error) {
	if f.Len < MinFrame || f.Len > MaxFrame {
		return template{}, fmt.Errorf("frame length %d: must be %d to %d", f.Len, MinFrame, MaxFrame)
	}
	n := 0
	if tunnel != nil {
		n = lenTunnel
	}
	frame := make([]byte, n+f.Len)
	if tunnel != nil {
		if err := putHeaders(frame, tunnel.SrcMAC, tunnel.DstMAC, tunnel.Src, tunnel.Dst); err != nil {
			return template{}, err
		}
		udp := frame[lenEthernet+lenIPv4:]
		binary.BigEndian.PutUint16(udp[2:], tunnel.Port)
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
		udp[lenUDP] = 0x08 // the VNI is valid
		binary.BigEndian.PutUint32(udp[lenUDP+4:], tunnel.VNI<<8)
	}
	inner := frame[n:]
	if err := putHeaders(inner, f.SrcMAC, f.DstMAC, f.Src, f.Dst); err != nil {
		return template{}, err
	}
	ip, udp := inner[lenEthernet:], inner[lenEthernet+lenIPv4:]
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[lenUDP:], "culvert bench")
	sum := add(0, udp)
	sum = add(sum, ip[12:20]) + 17 + uint32(len(udp))
	return template{frame: frame, udp: n + lenEthernet + lenIPv4, sum: fold(sum)}, nil
}

// putHeaders writes an Ethernet header and an IPv4 header of a UDP datagram
// that fills b.
func putHeaders(b []byte, srcMAC, dstMAC net.HardwareAddr, src, dst netip.Addr) error {
	if len(srcMAC) != 6 || len(dstMAC) != 6 || !src.Is4() || !dst.Is4() {
		return fmt.Errorf("frame from %s %s to %s %s: needs two MAC and two IPv4 addresses", srcMAC, src, dstMAC, dst)
	}
	copy(b, dstMAC)
	copy(b[6:], srcMAC)
	b[12], b[13] = 0x08, 0x00
	ip := b[lenEthernet:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8], ip[9] = 64, 17
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^uint16(fold(add(0, ip[:lenIPv4]))))
	return nil
}

// add adds b, as big-endian 16-bit words, to a checksum's sum (RFC 1071).
func add(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// fold reduces a sum to 16 bits.
func fold(sum uint32) uint32 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}
