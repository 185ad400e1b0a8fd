package packet

import "encoding/binary"

// Piece is where a fragment belongs.
type Piece struct {
	// ID is the identification that all fragments of a datagram share: 16 bits
	// of IPv4, 32 of IPv6.
	ID uint32
	// Offset and Len are the fragment's place in the datagram's payload, in
	// bytes: that of the IPv4 header, or of the IPv6 fragment header. Their sum
	// is at most 65535.
	Offset, Len uint32
	// More is set on every fragment but the last.
	More bool
}

// PieceOf reads where the fragment belongs that starts at b, from the Ethernet
// header on. info is Parse's of these bytes, with the flag Fragment.
func PieceOf(b []byte, info *Info) Piece {
	if info.Flags&V4 != 0 {
		h := IPv4(b[info.L3:])
		frag := h.Frag()
		return Piece{
			ID: uint32(h.ID()), Offset: uint32(frag&IPv4OffsetMask) * 8, More: frag&IPv4MF != 0,
			Len: info.L3Len - uint32(h.HeaderLen()),
		}
	}
	at := fragmentHeader(b, info)
	h := (*[fragmentLen]byte)(b[at:])
	frag := binary.BigEndian.Uint16(h[2:])
	return Piece{
		ID: binary.BigEndian.Uint32(h[4:]), Offset: uint32(frag &^ 7), More: frag&1 != 0,
		Len: uint32(info.L3) + info.L3Len - uint32(at+fragmentLen),
	}
}

// fragmentLen is the length of an IPv6 fragment header (RFC 8200 4.5).
const fragmentLen = 8

// fragmentHeader is the offset of an IPv6 packet's fragment header. Parse has walked
// the extension headers up to it and checked their lengths.
func fragmentHeader(b []byte, info *Info) int {
	at := int(info.L3) + IPv6Len
	next := b[int(info.L3)+ip6NextHeader]
	for next != ProtoFragment {
		n := (int(b[at+1]) + 1) * 8
		if next == ProtoAH {
			n = (int(b[at+1]) + 2) * 4
		}
		next = b[at]
		at += n
	}
	return at
}
