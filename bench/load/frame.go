package load

import (
	"encoding/binary"
	"net"
)

// Lengths of headers.
const (
	lenEthernet = 14
	lenIPv4     = 20
	lenUDP      = 8
	lenVXLAN    = 8
)

// Numbers of IPv4 (RFC 790, RFC 2003).
const (
	protoIPIP = 4
	protoUDP  = 17
)

// payload is what every datagram begins with; the rest of it is zero.
const payload = "culvert bench"

// putEthernet writes the header of an IPv4 packet's frame.
func putEthernet(b []byte, src, dst net.HardwareAddr) {
	copy(b, dst)
	copy(b[6:], src)
	b[12], b[13] = 0x08, 0x00
}

// putIPv4 writes what the headers of all packets have in common: neither
// lengths, nor addresses, nor the checksum.
func putIPv4(b []byte, proto byte) {
	b[0] = 0x45
	b[8], b[9] = 64, proto
}

// putVXLAN writes a UDP header without source port, length and checksum, and a
// VXLAN header (RFC 7348, section 5).
func putVXLAN(b []byte, port uint16, vni uint32) {
	binary.BigEndian.PutUint16(b[2:], port)
	b[lenUDP] = 0x08 // the VNI is valid
	binary.BigEndian.PutUint32(b[lenUDP+4:], vni<<8)
}

// Sum adds b, as big-endian 16-bit words, to a checksum's sum (RFC 1071).
func Sum(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// Fold reduces a sum to 16 bits.
func Fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
