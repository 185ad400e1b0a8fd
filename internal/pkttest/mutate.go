package pkttest

import "encoding/binary"

// The functions below change a frame in place or return a longer or shorter copy.
// They take valid frames from the Ethernet header on.

// SetPartial leaves the TCP or UDP checksum as Linux leaves it to a device: the
// folded pseudo-header sum, not inverted. It returns f.
func SetPartial(f []byte) []byte {
	w, ok := locate(f)
	if !ok || w.proto != 6 && w.proto != 17 {
		panic("pkttest.SetPartial: neither TCP nor UDP")
	}
	binary.BigEndian.PutUint16(f[w.check:], Sum16(nil, w.pseudo))
	return f
}

// ZeroL4Checksum writes 0 to the transport checksum: none, in UDP. It returns f.
func ZeroL4Checksum(f []byte) []byte {
	w, _ := locate(f)
	binary.BigEndian.PutUint16(f[w.check:], 0)
	return f
}

// Corrupt writes bytes at an offset. It returns f.
func Corrupt(f []byte, offset int, b ...byte) []byte {
	copy(f[offset:offset+len(b)], b)
	return f
}

// FixIP4 recomputes the IPv4 header checksum, after Corrupt. It returns f.
func FixIP4(f []byte) []byte {
	p := f[14:]
	if binary.BigEndian.Uint16(f[12:]) == 0x8100 {
		p = f[18:]
	}
	n := min(max(int(p[0]&15)*4, 12), len(p))
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^Sum16(p[:n], 0))
	return f
}

// Pad appends n zero bytes, as Ethernet does behind short packets.
func Pad(f []byte, n int) []byte { return append(f[:len(f):len(f)], make([]byte, n)...) }

// Join concatenates parts, such as a header and a packet, to a new frame.
func Join(parts ...[]byte) []byte {
	var f []byte
	for _, p := range parts {
		f = append(f, p...)
	}
	return f
}
