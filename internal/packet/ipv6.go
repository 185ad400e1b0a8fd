package packet

import "encoding/binary"

// IPv6 is a view of an IPv6 header, at least 40 bytes (RFC 8200 3).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic Class |           Flow Label                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                     Source Address (16 bytes)                 +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                  Destination Address (16 bytes)               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv6 []byte

const (
	ip6Flow       = 0
	ip6PayloadLen = 4
	ip6NextHeader = 6
	ip6HopLimit   = 7
	ip6Src        = 8
	ip6Dst        = 24
)

// Version is the IP version.
func (h IPv6) Version() uint8 { return h[ip6Flow] >> 4 }

// TrafficClass is DSCP and ECN.
func (h IPv6) TrafficClass() uint8 { return uint8(binary.BigEndian.Uint16(h[ip6Flow:]) >> 4) }

// PayloadLen is the number of bytes behind the header, extensions included.
func (h IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(h[ip6PayloadLen:])) }

// NextHeader is the protocol of the first extension header or of the payload.
func (h IPv6) NextHeader() uint8 { return h[ip6NextHeader] }

// HopLimit is the hop limit.
func (h IPv6) HopLimit() uint8 { return h[ip6HopLimit] }

// Src is the source address.
func (h IPv6) Src() Addr { return Addr(h[ip6Src : ip6Src+16]) }

// Dst is the destination address.
func (h IPv6) Dst() Addr { return Addr(h[ip6Dst : ip6Dst+16]) }

// SetTrafficClass writes DSCP and ECN.
func (h IPv6) SetTrafficClass(tc uint8) {
	v := binary.BigEndian.Uint16(h[ip6Flow:])
	binary.BigEndian.PutUint16(h[ip6Flow:], v&0xf00f|uint16(tc)<<4)
}

// SetPayloadLen writes the number of bytes behind the header.
func (h IPv6) SetPayloadLen(n int) { binary.BigEndian.PutUint16(h[ip6PayloadLen:], uint16(n)) }

// SetHopLimit writes the hop limit.
func (h IPv6) SetHopLimit(n uint8) { h[ip6HopLimit] = n }

// SetSrc writes the source address.
func (h IPv6) SetSrc(a *Addr) { copy(h[ip6Src:ip6Src+16], a[:]) }

// SetDst writes the destination address.
func (h IPv6) SetDst(a *Addr) { copy(h[ip6Dst:ip6Dst+16], a[:]) }
