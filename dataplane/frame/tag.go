package frame

import "encoding/binary"

// Tag is what a steering program writes in place of a frame's source MAC when
// the frames of many ports arrive by one device: byte 0 is tagMark, byte 1 flags,
// bytes 2 and 3 the port's index, 4 and 5 a stamp, little-endian.
type Tag struct {
	// Port is the index of the port that the frame came by.
	Port uint16
	// Stamp orders small and big frames, which arrive on two ways.
	Stamp uint16
	// Genuine: the source MAC was the one that the port's far side may use.
	Genuine bool
	// VLAN: the kernel kept a VLAN tag beside the frame, which is lost.
	VLAN bool
}

const (
	tagMark    = 0x02
	tagGenuine = 1
	tagVLAN    = 2
	tagAt      = 6 // the source MAC's offset in an Ethernet header
)

// ReadTag reads the tag of the frame at b, which holds an Ethernet header. ok is
// false for a frame that no steering program tagged.
func ReadTag(b []byte) (t Tag, ok bool) {
	v := binary.LittleEndian.Uint64(b[tagAt:])
	t = Tag{Port: uint16(v >> 16), Stamp: uint16(v >> 32), Genuine: v>>8&tagGenuine != 0, VLAN: v>>8&tagVLAN != 0}
	return t, v&0xff == tagMark
}

// WriteTag is the steering program's part, for tests.
func WriteTag(b []byte, t Tag) {
	b[tagAt], b[tagAt+1] = tagMark, 0
	if t.Genuine {
		b[tagAt+1] = tagGenuine
	}
	if t.VLAN {
		b[tagAt+1] |= tagVLAN
	}
	binary.LittleEndian.PutUint16(b[tagAt+2:], t.Port)
	binary.LittleEndian.PutUint16(b[tagAt+4:], t.Stamp)
}
