package packet

import "encoding/binary"

// Ethernet is a view of an Ethernet II header, at least 14 bytes.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination Address                      |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |        Source Address         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           EtherType           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// An 802.1Q tag puts four bytes in front of the EtherType: 0x8100 and the tag.
type Ethernet []byte

const (
	ethDst  = 0
	ethSrc  = 6
	ethType = 12
)

// Dst is the destination address.
func (h Ethernet) Dst() MAC { return MAC(h[ethDst : ethDst+6]) }

// Src is the source address.
func (h Ethernet) Src() MAC { return MAC(h[ethSrc : ethSrc+6]) }

// EtherType is the 16 bits behind the addresses: of the tag, where there is one.
func (h Ethernet) EtherType() uint16 { return binary.BigEndian.Uint16(h[ethType:]) }

// SetDst writes the destination address.
func (h Ethernet) SetDst(m MAC) { copy(h[ethDst:ethDst+6], m[:]) }

// SetSrc writes the source address.
func (h Ethernet) SetSrc(m MAC) { copy(h[ethSrc:ethSrc+6], m[:]) }

// SetEtherType writes the 16 bits behind the addresses.
func (h Ethernet) SetEtherType(t uint16) { binary.BigEndian.PutUint16(h[ethType:], t) }

// swap exchanges the two addresses.
func (h Ethernet) swap() {
	d, s := h.Dst(), h.Src()
	h.SetDst(s)
	h.SetSrc(d)
}
