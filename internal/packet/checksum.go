package packet

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum, RFC 1071. A "sum" below is the one's complement sum of
// big-endian 16-bit words, not yet inverted, in a uint32 whose upper half holds
// carries; a "checksum" is the folded sum inverted, as header fields hold it.
//
// The sum does not depend on byte order but for one swap of the result (RFC 1071
// 2.B), nor on the width of the additions as long as no carry is lost: so bytes
// are added eight at a time in the machine's own order.

// Fold brings a sum to 16 bits. It yields 0 for 0 only.
func Fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// fold64 brings a 64-bit one's complement sum to 16 bits.
func fold64(s uint64) uint16 {
	s = s>>32 + s&0xffff_ffff
	s = s>>32 + s&0xffff_ffff
	return Fold(uint32(s))
}

// congruent0 reports whether a non-zero 64-bit sum folds to 0xffff, the one's
// complement's other zero: whether 65535 divides it. For an odd divisor d that
// is the case exactly if s times d's inverse modulo 2^64 is at most (2^64-1)/d
// (Hacker's Delight 10-17). One multiplication beats four dependent additions.
func congruent0(s uint64) bool {
	const inverse, limit = 0xfffe_fffe_fffe_ffff, 0x0001_0001_0001_0001
	return s*inverse <= limit
}

// Sum adds the bytes of b to an initial sum and returns the result folded to 16
// bits. An odd last byte counts as the upper half of a word: only the last of
// several pieces may have an odd length (see Summer).
func Sum(b []byte, initial uint32) uint32 {
	s := uint32(bits.ReverseBytes16(fold64(sumNative(b))))
	return uint32(Fold(s + uint32(Fold(initial))))
}

// Checksum is the checksum of b and an initial sum: Sum inverted.
func Checksum(b []byte, initial uint32) uint16 { return ^uint16(Sum(b, initial)) }

// sumNative is the sum of b in little-endian words.
func sumNative(b []byte) uint64 {
	var s, c uint64
	if len(b) >= 128 {
		s, b = sumBlocks(b)
	}
	for len(b) >= 32 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		s, _ = bits.Add64(s, 0, c)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s += c
		b = b[8:]
	}
	// At most 7 bytes are left: they fit in one word.
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
		tail += tailWord(b) // words of one parity: just add
	} else {
		tail = tailWord(b)
	}
	s, c = bits.Add64(s, tail, 0)
	return s + c
}

// sumBlocks is the sum of the blocks of 64 bytes at the start of b, and what is
// left of b. The halves of a block are two chains of add-with-carry, each with
// its carry in the flags, that do not wait for each other. Longer ones run out
// of registers.
func sumBlocks(b []byte) (sum uint64, rest []byte) {
	var s, u, c uint64
	for len(b) >= 64 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		s, _ = bits.Add64(s, 0, c)
		u, c = bits.Add64(u, binary.LittleEndian.Uint64(b[32:]), 0)
		u, c = bits.Add64(u, binary.LittleEndian.Uint64(b[40:]), c)
		u, c = bits.Add64(u, binary.LittleEndian.Uint64(b[48:]), c)
		u, c = bits.Add64(u, binary.LittleEndian.Uint64(b[56:]), c)
		u, _ = bits.Add64(u, 0, c)
		b = b[64:]
	}
	s, c = bits.Add64(s, u, 0)
	return s + c, b
}

// tailWord is the sum of at most 3 bytes.
func tailWord(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 3:
		return uint64(binary.LittleEndian.Uint16(b)) + uint64(b[2])
	}
	return 0
}

// Summer sums bytes that lie in several chunks of any length. The zero value is
// an empty sum; set it with Reset to start from another.
type Summer struct {
	sum uint32
	odd bool
}

// Reset starts again from initial.
func (s *Summer) Reset(initial uint32) { *s = Summer{sum: initial} }

// Add appends the bytes of b.
func (s *Summer) Add(b []byte) {
	part := uint16(Sum(b, 0))
	if s.odd {
		// b starts in the lower half of a word (RFC 1071 2.B).
		part = bits.ReverseBytes16(part)
	}
	s.sum = uint32(Fold(s.sum)) + uint32(part)
	s.odd = s.odd != (len(b)&1 == 1)
}

// Sum is the folded sum so far.
func (s *Summer) Sum() uint32 { return uint32(Fold(s.sum)) }

// PseudoSum4 is the sum of the pseudo-header of TCP and UDP over IPv4 (RFC 9293
// 3.1, RFC 768): addresses as big-endian values, length of header and data.
func PseudoSum4(src, dst uint32, proto uint8, length uint32) uint32 {
	return src>>16 + src&0xffff + dst>>16 + dst&0xffff + uint32(proto) + length>>16 + length&0xffff
}

// PseudoSum6 is the sum of the pseudo-header over IPv6 (RFC 8200 8.1).
func PseudoSum6(src, dst *Addr, proto uint8, length uint32) uint32 {
	s, c := bits.Add64(binary.LittleEndian.Uint64(src[:8]), binary.LittleEndian.Uint64(src[8:]), 0)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(dst[:8]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(dst[8:]), c)
	s, c = bits.Add64(s, 0, c)
	s += c // s is 0 then
	return uint32(bits.ReverseBytes16(fold64(s))) + uint32(proto) + length>>16 + length&0xffff
}

// UpdateSum is the checksum after one 16-bit word that it covers changed from
// old to new: equation 3 of RFC 1624.
func UpdateSum(check, old, new uint16) uint16 {
	return ^Fold(uint32(^check) + uint32(^old) + uint32(new))
}

// DecrementTTL4 takes 1 off the TTL, which must not be 0, and updates the header
// checksum as ip_decrease_ttl of include/net/ip.h does.
func DecrementTTL4(h IPv4) {
	h[8]--
	c := uint32(binary.BigEndian.Uint16(h[10:])) + 0x0100
	if c >= 0xffff {
		c++
	}
	binary.BigEndian.PutUint16(h[10:], uint16(c))
}

// CompleteChecksum completes a partial checksum over one contiguous packet: b
// ends where the packet ends (padding cut off), start is the offset of the
// transport header in b, offset that of the checksum field in the header. A
// result of 0 is stored as 0xffff, as skb_checksum_help (net/core/dev.c) does
// for every protocol: 0 means no checksum in UDP, and in TCP both are right.
func CompleteChecksum(b []byte, start, offset int) {
	StoreChecksum(b[start+offset:], Sum(b[start:], 0))
}

// StoreChecksum writes the checksum of a whole sum, the field's partial value
// included, to the first two bytes of field, with CompleteChecksum's rule for 0.
// It serves packets in several chunks, whose sum a Summer made.
func StoreChecksum(field []byte, sum uint32) {
	c := ^Fold(sum)
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(field, c)
}
