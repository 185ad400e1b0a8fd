package xsk

import (
	"encoding/binary"
	"math/bits"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// settleChecksum sees to it that a frame with a partial checksum leaves with a
// complete one. It returns the descriptor options to send it with.
func (s *Socket) settleChecksum(f *frame.Frame) uint32 {
	field := uint32(f.CsumStart) + uint32(f.CsumOffset)
	if field+2 > f.Len {
		// Not in the first chunk: no frame that the pipeline marks is so, and
		// the kernel would refuse it. It leaves as it is.
		return 0
	}
	if s.csumOffload {
		s.putMetadata(f)
		return unix.XDP_TX_METADATA
	}
	completeChecksum(s.pool, f)
	return 0
}

// putMetadata writes struct xsk_tx_metadata below the frame
// (include/uapi/linux/if_xdp.h):
//
//	 0  u64 flags
//	 8  u16 request.csum_start   from the frame's first byte
//	10  u16 request.csum_offset  from csum_start
//	16  u64 request.launch_time
func (s *Socket) putMetadata(f *frame.Frame) {
	m := s.pool.Bytes(f.Addr-frame.TxMetadataLen, frame.TxMetadataLen)
	binary.NativeEndian.PutUint64(m[0:8], unix.XDP_TXMD_FLAGS_CHECKSUM)
	binary.NativeEndian.PutUint16(m[8:10], f.CsumStart)
	binary.NativeEndian.PutUint16(m[10:12], f.CsumOffset)
	binary.NativeEndian.PutUint64(m[16:24], 0)
}

// udpChecksumOffset is where UDP has its checksum; TCP's is at 16.
const udpChecksumOffset = 6

// completeChecksum sums the frame from CsumStart to its end, over all chunks,
// and stores the result. The field holds the folded pseudo-header sum, which
// so becomes part of the sum. A UDP result of 0 is sent as 0xffff, for 0 means
// that there is none (RFC 768).
func completeChecksum(p *frame.Pool, f *frame.Frame) {
	first := p.Bytes(f.Addr, f.Len)
	total := sum16(first[f.CsumStart:])
	odd := (f.Len-uint32(f.CsumStart))&1 != 0
	for i := range f.Rest {
		part := sum16(p.Bytes(f.Rest[i].Addr, f.Rest[i].Len))
		if odd { // the chunk begins in the middle of a 16-bit word
			part = part>>8 | part<<8
		}
		total = fold16(uint64(total) + uint64(part))
		odd = odd != (f.Rest[i].Len&1 != 0)
	}
	check := ^total
	if check == 0 && f.CsumOffset == udpChecksumOffset {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(first[int(f.CsumStart)+int(f.CsumOffset):], check)
}

// sum16 is the ones' complement sum of b's big-endian 16-bit words, an odd last
// byte padded with zero (RFC 1071). It adds 64 bits at a time: the sum of words
// is the same in every word size.
func sum16(b []byte) uint16 {
	var sum, carry uint64
	for ; len(b) >= 32; b = b[32:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[0:8]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[8:16]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[16:24]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[24:32]), carry)
	}
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), carry)
	}
	sum, carry = bits.Add64(sum, carry, 0)
	return fold16(sum>>32 + sum&0xffffffff + carry)
}

// fold16 folds a sum to 16 bits with end-around carry.
func fold16(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
