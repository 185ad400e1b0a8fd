package packet_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// random returns bytes that are the same in every run.
func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// The fast sum against the model, over all lengths and alignments.
func TestSumAgainstNaive(t *testing.T) {
	buf := random(1, 2048+8)
	ones := make([]byte, len(buf))
	for i := range ones {
		ones[i] = 0xff
	}
	zero := make([]byte, len(buf))
	for _, data := range [][]byte{buf, ones, zero} {
		for n := 0; n <= 2048; n++ {
			for align := range 8 {
				b := data[align : align+n : align+n]
				initial := uint32(n) * 0x9e37
				if got, want := packet.Sum(b, initial), uint32(pkttest.Sum16(b, initial)); got != want {
					t.Fatalf("Sum of %d bytes at alignment %d from %#x: %#x, want %#x", n, align, initial, got, want)
				}
			}
		}
	}
}

func TestSumInitialCarries(t *testing.T) {
	b := random(2, 33)
	for _, initial := range []uint32{0, 1, 0xffff, 0x10000, 0x1ffff, 0xffff_0000, 0xffff_ffff} {
		if got, want := packet.Sum(b, initial), uint32(pkttest.Sum16(b, initial)); got != want {
			t.Errorf("from %#x: %#x, want %#x", initial, got, want)
		}
		if got, want := packet.Checksum(b, initial), ^pkttest.Sum16(b, initial); got != want {
			t.Errorf("checksum from %#x: %#x, want %#x", initial, got, want)
		}
		if got, want := packet.Fold(initial), pkttest.Sum16(nil, initial); got != want {
			t.Errorf("Fold(%#x) = %#x, want %#x", initial, got, want)
		}
	}
}

// Chunks of any lengths sum as if they were contiguous.
func TestSummer(t *testing.T) {
	b := random(3, 777)
	r := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		var s packet.Summer
		s.Reset(0xabcd)
		for rest := b; len(rest) > 0; {
			n := min(len(rest), r.IntN(60))
			s.Add(rest[:n])
			rest = rest[n:]
		}
		if got, want := s.Sum(), uint32(pkttest.Sum16(b, 0xabcd)); got != want {
			t.Fatalf("sum of chunks %#x, want %#x", got, want)
		}
	}
}

func TestPseudoSums(t *testing.T) {
	b := random(4, 40)
	src, dst := packet.Addr(b[:16]), packet.Addr(b[16:32])
	for _, n := range []uint32{0, 8, 1480, 0xffff, 0x1_0000} {
		want := pkttest.Sum16(b[:32], 17+n>>16+n&0xffff)
		if got := packet.Fold(packet.PseudoSum6(&src, &dst, 17, n)); got != want {
			t.Errorf("PseudoSum6, length %d: %#x, want %#x", n, got, want)
		}
		want = pkttest.Sum16(b[:8], 17+n>>16+n&0xffff)
		if got := packet.Fold(packet.PseudoSum4(binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), 17, n)); got != want {
			t.Errorf("PseudoSum4, length %d: %#x, want %#x", n, got, want)
		}
	}
}

// A header whose words change keeps a right checksum (RFC 1624).
func TestUpdates(t *testing.T) {
	for seed := range uint64(20000) {
		h := packet.IPv4(random(seed, packet.IPv4Len))
		h[0] = 0x45
		h.SetTTL(max(h.TTL(), 1))
		if seed%5 == 0 { // around the places where carries happen
			binary.BigEndian.PutUint16(h[4:], 0)
			binary.BigEndian.PutUint16(h[4:], packet.Checksum(h[:10], packet.Sum(h[12:], uint32(seed&0x300))))
		}
		h.SetCheck()
		if !h.CheckOK() {
			t.Fatalf("SetCheck of % x is wrong", h)
		}
		ttl := h.TTL()
		packet.DecrementTTL4(h)
		if h.TTL() != ttl-1 || pkttest.Sum16(h, 0) != 0xffff {
			t.Fatalf("DecrementTTL4: % x", h)
		}
		h.UpdateTOS(uint8(seed))
		if h.TOS() != uint8(seed) || pkttest.Sum16(h, 0) != 0xffff {
			t.Fatalf("UpdateTOS: % x", h)
		}
		h[17] ^= 1
		if h.CheckOK() {
			t.Fatalf("CheckOK accepts % x", h)
		}
	}
}

// The check of 20 bytes against the model, all 65536 checksums.
func TestCheckOK20(t *testing.T) {
	h := [packet.IPv4Len]byte(random(9, packet.IPv4Len))
	h[0] = 0x45
	valid := 0
	for c := range 0x10000 {
		binary.BigEndian.PutUint16(h[10:], uint16(c))
		got, want := packet.CheckOK20(&h), pkttest.Sum16(h[:], 0) == 0xffff
		if got != want {
			t.Fatalf("checksum %#x: %v, want %v", c, got, want)
		}
		if got {
			valid++
		}
	}
	if valid != 1 {
		t.Errorf("%d checksums are valid, want 1", valid)
	}
}

func TestCompleteChecksum(t *testing.T) {
	for name, l4 := range map[string]pkttest.Layer{"tcp": pkttest.TCP(1, 2, pkttest.MSS(1400)), "udp": pkttest.UDP(1, 2)} {
		for name3, l3 := range map[string]pkttest.Layer{"v4": pkttest.IP4("10.0.0.1", "10.0.0.2"), "v6": pkttest.IP6("fd00::1", "fd00::2")} {
			for n := range 65 {
				f := pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), l3, l4, pkttest.Payload(n))
				want := append([]byte(nil), f...)
				pkttest.SetPartial(f)
				var info packet.Info
				if r := packet.Parse(f, len(f), &info); r != 0 || !info.Has(packet.Partial) {
					t.Fatalf("%s %s: %v, flags %#x", name3, name, r, info.Flags)
				}
				off, ok := packet.ChecksumOffset(info.Proto)
				if !ok {
					t.Fatal("no checksum offset")
				}
				packet.CompleteChecksum(f, int(info.L4), off)
				if string(f) != string(want) {
					t.Fatalf("%s %s with %d bytes: completed checksum differs from gopacket's", name3, name, n)
				}
			}
		}
	}
}

// A checksum that comes out as 0 is sent as 0xffff.
func TestCompleteChecksumZero(t *testing.T) {
	b := []byte{0xff, 0xff, 0, 0, 0, 0, 0, 0}
	packet.CompleteChecksum(b, 0, 6)
	if got := binary.BigEndian.Uint16(b[6:]); got != 0xffff {
		t.Errorf("got %#x, want 0xffff", got)
	}
}

func TestCompleteSCTP(t *testing.T) {
	f := pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.0.0.1", "10.0.0.2"), pkttest.SCTP(7, 8), pkttest.Payload(101))
	want := append([]byte(nil), f...)
	pkttest.Corrupt(f, 14+20+8, 0, 0, 0, 0)
	var info packet.Info
	if r := packet.Parse(f, len(f), &info); r != 0 || !info.Has(packet.EmptyCRC) {
		t.Fatalf("%v, flags %#x", r, info.Flags)
	}
	packet.CompleteSCTP(f[info.L4:])
	if string(f) != string(want) {
		t.Error("CRC32c differs from gopacket's")
	}
	if r := packet.Parse(f, len(f), &info); r != 0 || info.Has(packet.EmptyCRC) {
		t.Errorf("completed: %v, flags %#x", r, info.Flags)
	}
}
