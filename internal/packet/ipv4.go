package packet

import (
	"encoding/binary"
	"math/bits"
)

// IPv4 is a view of an IPv4 header, at least 20 bytes (RFC 791 3.1).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |Type of Service|          Total Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Identification        |Flags|      Fragment Offset    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Time to Live |    Protocol   |         Header Checksum       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       Source Address                          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Destination Address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Options                    |    Padding    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv4 []byte

const (
	ip4VersionIHL = 0
	ip4TOS        = 1
	ip4TotalLen   = 2
	ip4ID         = 4
	ip4Frag       = 6
	ip4TTL        = 8
	ip4Proto      = 9
	ip4Check      = 10
	ip4Src        = 12
	ip4Dst        = 16
)

// Bits of the 16 bits that hold flags and fragment offset.
const (
	IPv4DF         = 0x4000
	IPv4MF         = 0x2000
	IPv4OffsetMask = 0x1fff // units of 8 bytes
)

// Version is the IP version.
func (h IPv4) Version() uint8 { return h[ip4VersionIHL] >> 4 }

// HeaderLen is the header's length in bytes.
func (h IPv4) HeaderLen() int { return int(h[ip4VersionIHL]&15) * 4 }

// TOS is DSCP and ECN.
func (h IPv4) TOS() uint8 { return h[ip4TOS] }

// TotalLen is the packet's length in bytes, header included.
func (h IPv4) TotalLen() int { return int(binary.BigEndian.Uint16(h[ip4TotalLen:])) }

// ID is the identification.
func (h IPv4) ID() uint16 { return binary.BigEndian.Uint16(h[ip4ID:]) }

// Frag is flags and fragment offset as they stand.
func (h IPv4) Frag() uint16 { return binary.BigEndian.Uint16(h[ip4Frag:]) }

// TTL is the time to live.
func (h IPv4) TTL() uint8 { return h[ip4TTL] }

// Proto is the protocol of the payload.
func (h IPv4) Proto() uint8 { return h[ip4Proto] }

// Check is the header checksum.
func (h IPv4) Check() uint16 { return binary.BigEndian.Uint16(h[ip4Check:]) }

// Src is the source address.
func (h IPv4) Src() Addr { return AddrFrom4(binary.BigEndian.Uint32(h[ip4Src:])) }

// Dst is the destination address.
func (h IPv4) Dst() Addr { return AddrFrom4(binary.BigEndian.Uint32(h[ip4Dst:])) }

// SetTotalLen writes the packet's length; the checksum is not updated.
func (h IPv4) SetTotalLen(n int) { binary.BigEndian.PutUint16(h[ip4TotalLen:], uint16(n)) }

// SetID writes the identification; the checksum is not updated.
func (h IPv4) SetID(id uint16) { binary.BigEndian.PutUint16(h[ip4ID:], id) }

// SetFrag writes flags and fragment offset; the checksum is not updated.
func (h IPv4) SetFrag(f uint16) { binary.BigEndian.PutUint16(h[ip4Frag:], f) }

// SetTTL writes the time to live; the checksum is not updated.
func (h IPv4) SetTTL(ttl uint8) { h[ip4TTL] = ttl }

// SetSrc writes an IPv4 source address; the checksum is not updated.
func (h IPv4) SetSrc(a *Addr) { copy(h[ip4Src:ip4Src+4], a[12:]) }

// SetDst writes an IPv4 destination address; the checksum is not updated.
func (h IPv4) SetDst(a *Addr) { copy(h[ip4Dst:ip4Dst+4], a[12:]) }

// UpdateTOS writes DSCP and ECN and updates the checksum.
func (h IPv4) UpdateTOS(tos uint8) {
	old := binary.BigEndian.Uint16(h)
	h[ip4TOS] = tos
	binary.BigEndian.PutUint16(h[ip4Check:], UpdateSum(h.Check(), old, binary.BigEndian.Uint16(h)))
}

// SetCheck computes and writes the checksum of a header of HeaderLen bytes.
func (h IPv4) SetCheck() {
	binary.BigEndian.PutUint16(h[ip4Check:], 0)
	binary.BigEndian.PutUint16(h[ip4Check:], Checksum(h[:h.HeaderLen()], 0))
}

// CheckOK20 reports whether the checksum of a header without options is right:
// a valid header sums to all ones, in either byte order (RFC 1071 1).
func CheckOK20(h *[IPv4Len]byte) bool {
	s, c := bits.Add64(binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:]), 0)
	s, c = bits.Add64(s, uint64(binary.LittleEndian.Uint32(h[16:])), c)
	// The version is not 0, so the sum is not.
	return congruent0(s + c)
}

// CheckOK reports whether the header checksum is right. h must hold HeaderLen
// bytes, which must be 20 or more.
func (h IPv4) CheckOK() bool {
	if h[ip4VersionIHL]&15 == IPv4Len/4 {
		return CheckOK20((*[IPv4Len]byte)(h))
	}
	return Sum(h[:h.HeaderLen()], 0) == 0xffff
}
