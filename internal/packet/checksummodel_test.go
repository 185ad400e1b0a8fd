package packet_test

import (
	"encoding/binary"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// longest is the longest transport packet of the test in bytes: some more than
// sumNative's blocks take in a few rounds, odd ends of all kinds.
const longest = 1100

// Checksums of TCP, UDP, ICMPv6 and SCTP as they are completed in packets of every
// length at every alignment, against sums made word by word and a CRC made bit by
// bit. The jumbo lengths are those of an underlay of 9000 bytes.
func TestChecksumsAgainstNaive(t *testing.T) {
	lengths := []int{8872, 8901, 8922, 8930, 8931, 8950}
	for n := range longest {
		lengths = append(lengths, n)
	}
	const pseudo = 40 // two IPv6 addresses, then length and protocol as RFC 8200 8.1 lays them out
	data := random(11, pseudo+9000+8)
	src, dst := packet.Addr(data[:16]), packet.Addr(data[16:32])
	for name, proto := range map[string]uint8{"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "icmpv6": packet.ProtoICMPv6} {
		header, offset := 8, 6
		switch proto {
		case packet.ProtoTCP:
			header, offset = 20, 16
		case packet.ProtoICMPv6:
			offset = 2
		}
		if at, ok := packet.ChecksumOffset(proto); !ok || at != offset {
			t.Fatalf("%s: checksum at %d, %v, want %d", name, at, ok, offset)
		}
		for _, n := range lengths {
			if n < header {
				continue
			}
			for align := range 8 {
				b := append([]byte(nil), data[:pseudo+align+n]...)
				l4 := b[pseudo+align:]
				binary.BigEndian.PutUint16(l4[offset:], 0)
				model := append(append([]byte(nil), data[:32]...), 0, 0, byte(n>>8), byte(n), 0, 0, 0, proto)
				want := ^pkttest.Sum16(append(model, l4...), 0)
				if want == 0 {
					want = 0xffff
				}
				binary.BigEndian.PutUint16(l4[offset:], packet.Fold(packet.PseudoSum6(&src, &dst, proto, uint32(n))))
				packet.CompleteChecksum(b, pseudo+align, offset)
				if got := binary.BigEndian.Uint16(l4[offset:]); got != want {
					t.Fatalf("%s of %d bytes at alignment %d: %#x, want %#x", name, n, align, got, want)
				}
			}
		}
	}
}

// naiveCRC32c is RFC 9260 appendix A without a table: the reflected polynomial, one
// bit at a time.
func naiveCRC32c(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78&-(crc&1)
		}
	}
	return ^crc
}

func TestCRC32cAgainstNaive(t *testing.T) {
	if got := naiveCRC32c([]byte("123456789")); got != 0xe3069283 { // the check value of CRC-32/ISCSI
		t.Fatalf("the model itself is wrong: %#x", got)
	}
	data := random(12, 9000+8)
	for n := packet.SCTPLen; n < longest; n++ {
		for align := range 8 {
			b := append([]byte(nil), data[:align+n]...)[align:]
			binary.LittleEndian.PutUint32(b[8:], 0)
			want := naiveCRC32c(b)
			packet.CompleteSCTP(b)
			if got := packet.SCTP(b).Check(); got != want {
				t.Fatalf("%d bytes at alignment %d: %#x, want %#x", n, align, got, want)
			}
			if got := packet.CRC32c(packet.CRC32c(0, b[:n/3]), b[n/3:]); got != packet.CRC32c(0, b) {
				t.Fatalf("%d bytes in two parts: %#x", n, got)
			}
		}
	}
}
