package pkttest

import "encoding/binary"

// Sum16 is the one's complement sum of b, word by word, as RFC 1071 1 defines
// it: the model that faster code is held against.
func Sum16(b []byte, initial uint32) uint16 {
	sum := uint64(initial)
	for i := 0; i < len(b); i += 2 {
		word := uint64(b[i]) << 8
		if i+1 < len(b) {
			word |= uint64(b[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// where is what the naive parser finds in a valid frame.
type where struct {
	l3, l4, end int
	proto       uint8
	check       int // offset of the transport checksum, 0 if there is none
	pseudo      uint32
	udp         bool
}

// locate finds the headers of a frame with at most one VLAN tag and no IPv6
// extension header. ok is false if it is not IP.
func locate(f []byte) (w where, ok bool) {
	w.l3 = 14
	et := binary.BigEndian.Uint16(f[12:])
	if et == 0x8100 {
		w.l3, et = 18, binary.BigEndian.Uint16(f[16:])
	}
	var addrs []byte
	switch p := f[w.l3:]; et {
	case 0x0800:
		w.l4 = w.l3 + int(p[0]&15)*4
		w.end = w.l3 + int(binary.BigEndian.Uint16(p[2:]))
		w.proto = p[9]
		addrs = p[12:20]
	case 0x86dd:
		w.l4 = w.l3 + 40
		w.end = w.l4 + int(binary.BigEndian.Uint16(p[4:]))
		w.proto = p[6]
		addrs = p[8:40]
	default:
		return w, false
	}
	w.pseudo = uint32(Sum16(addrs, uint32(w.proto)+uint32(w.end-w.l4)))
	switch w.proto {
	case 6:
		w.check = w.l4 + 16
	case 17:
		w.check, w.udp = w.l4+6, true
	case 1:
		w.check, w.pseudo = w.l4+2, 0
	case 58:
		w.check = w.l4 + 2
	}
	return w, true
}
