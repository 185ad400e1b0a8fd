package packet_test

import (
	"bytes"
	"fmt"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket/layers"
)

type ip4 = layers.IPv4

// timestamps is the option that Linux puts into every segment.
func timestamps() func(*layers.TCP) {
	return pkttest.TCPOption(layers.TCPOptionKindTimestamps, 0, 0, 0, 1, 0, 0, 0, 2)
}

func nop() func(*layers.TCP) { return pkttest.TCPOption(layers.TCPOptionKindNop) }

// segments cuts a frame as the dataplane does, each segment an IP packet with
// its checksum partial, and completed too if complete is set.
func segments(t testing.TB, f []byte, mss int, complete bool) [][]byte {
	t.Helper()
	info := parsed(t, f)
	var s packet.Segmenter
	if r := s.Init(f[info.L3:], info, mss); r != drop.None {
		t.Fatal(r)
	}
	want := s.Segments()
	payload := f[info.Payload : int(info.L3)+int(info.L3Len)]
	var out [][]byte
	for more := true; more; {
		seg := make([]byte, s.HeaderLen(), s.HeaderLen()+mss)
		var off, n int
		off, n, more = s.Next(seg)
		seg = append(seg, payload[off:off+n]...)
		if complete {
			s.Complete(seg)
		}
		out = append(out, seg)
	}
	if len(out) != want {
		t.Errorf("%d segments, Segments said %d", len(out), want)
	}
	return out
}

// wantSegments builds the segments that tcp_gso_segment makes, with gopacket.
func wantSegments(t testing.TB, v6 bool, flags string, payload []byte, mss int) [][]byte {
	var out [][]byte
	for i := 0; i == 0 || i*mss < len(payload); i++ {
		chunk := payload[min(i*mss, len(payload)):min((i+1)*mss, len(payload))]
		fl := flags
		if (i+1)*mss < len(payload) {
			fl = removed(fl, "FP")
		}
		if i > 0 {
			fl = removed(fl, "C")
		}
		var l3 pkttest.Layer = pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.ID(uint16(0xfffe+i)), pkttest.DF(), pkttest.TTL(63))
		if v6 {
			l3 = pkttest.IP6("fd00::2", "fd00::3", pkttest.HopLimit(63))
		}
		tcp := pkttest.TCP(1000, 80, pkttest.Seq(0xffff_ff00+uint32(i*mss)), pkttest.Flags(fl), nop(), nop(), timestamps())
		out = append(out, pkttest.IP(t, l3, tcp, pkttest.Bytes(chunk...)))
	}
	return out
}

func removed(s, letters string) string {
	return string(bytes.Map(func(r rune) rune {
		if bytes.ContainsRune([]byte(letters), r) {
			return -1
		}
		return r
	}, []byte(s)))
}

func bigFrame(t testing.TB, v6 bool, flags string, payload []byte) []byte {
	return etherFrame(wantSegments(t, v6, flags, payload, 1<<20)[0])
}

func TestSegmenterAgainstGopacket(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, flags := range []string{"A", "PA", "FPA", "CA", "CEFPAU"} {
			for _, n := range []int{0, 1, 1399, 1400, 1401, 2800, 2801, 60000} {
				for _, mss := range []int{1400, 536, 59999} {
					t.Run(fmt.Sprintf("v6=%v/%s/%d/%d", v6, flags, n, mss), func(t *testing.T) {
						payload := pkttest.Pattern(n)
						f := pkttest.SetPartial(bigFrame(t, v6, flags, payload))
						got, want := segments(t, f, mss, true), wantSegments(t, v6, flags, payload, mss)
						if len(got) != len(want) {
							t.Fatalf("%d segments, want %d", len(got), len(want))
						}
						for i := range want {
							if !bytes.Equal(got[i], want[i]) {
								t.Fatalf("segment %d is\n%swant\n%s", i, pkttest.Dump(etherFrame(got[i])), pkttest.Dump(etherFrame(want[i])))
							}
						}
						for i, seg := range segments(t, f, mss, false) {
							if w := pkttest.SetPartial(etherFrame(want[i])); !bytes.Equal(etherFrame(seg), w) {
								t.Fatalf("partial segment %d differs", i)
							}
						}
					})
				}
			}
		}
	}
}

func TestSegmenterRefusals(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	tcp := bigFrame(t, false, "A", pkttest.Pattern(3000))
	tests := []struct {
		name  string
		frame []byte
		mss   int
	}{
		{"ICMP", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.ICMP4(8, 0, 1, 1), pkttest.Payload(3000)), 1400},
		{"UDP shorter than its packet", pkttest.Corrupt(pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.UDP(1, 2), pkttest.Payload(3000)), 38, 0, 9), 1400},
		{"fragment", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Fragment(0, true)), pkttest.TCP(1, 2), pkttest.Payload(3004)), 1400},
		{"MSS 0", tcp, 0},
		{"MSS negative", tcp, -1},
	}
	for _, tt := range tests {
		var s packet.Segmenter
		if r := s.Init(tt.frame[14:], parsed(t, tt.frame), tt.mss); r != drop.CannotSegment {
			t.Errorf("%s: %s", tt.name, r)
		}
	}
	var s packet.Segmenter
	if r := s.Init(tcp[14:60], parsed(t, tcp), 1400); r != drop.CannotSegment {
		t.Errorf("headers cut short: %s", r)
	}
}

// A segmenter follows the header, not the key: addresses may have been rewritten
// since the frame was parsed, and the frame may be overwritten by a segment.
func TestSegmenterInPlace(t *testing.T) {
	payload := pkttest.Pattern(3000)
	f := bigFrame(t, false, "PA", payload)
	info := parsed(t, f)
	a := addr("192.0.2.9")
	packet.IPv4(f[14:]).SetDst(&a)
	var s packet.Segmenter
	s.Init(f[14:], info, 1400)
	for i := 0; ; i++ {
		off, n, more := s.Next(f[14:]) // over the original header
		seg := append(bytes.Clone(f[14:14+s.HeaderLen()]), payload[off:off+n]...)
		s.Complete(seg)
		pkttest.CheckPacket(t, etherFrame(seg), pkttest.Dst("192.0.2.9"), pkttest.WithPayload(payload[off:off+n]))
		if !more {
			break
		}
	}
}

// A datagram without a checksum has none in its segments either, and one whose
// checksum comes out as 0 gets 0xffff.
func TestSegmenterUDPChecksum(t *testing.T) {
	for name, l3 := range map[string]pkttest.Layer{"v4": pkttest.IP4("10.1.0.2", "10.1.1.3"), "v6": pkttest.IP6("fd00::2", "fd00::3")} {
		f := pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), l3, pkttest.UDP(1, 2), pkttest.Payload(3000))
		for _, complete := range []bool{false, true} {
			for i, seg := range segments(t, pkttest.ZeroL4Checksum(bytes.Clone(f)), 1400, complete) {
				if e := etherFrame(seg); !parsed(t, e).Has(packet.NoChecksum) {
					t.Errorf("%s: segment %d has a checksum\n%s", name, i, pkttest.Dump(e))
				}
			}
		}
		// Two bytes of the first segment that make its sum 0xffff.
		first := etherFrame(segments(t, f, 1400, true)[0])
		info := parsed(t, first)
		check := packet.UDP(first[info.L4:]).Check()
		payload := f[info.Payload:]
		old := uint16(payload[0])<<8 | uint16(payload[1])
		word := packet.Fold(uint32(old) + uint32(check))
		payload[0], payload[1] = byte(word>>8), byte(word)
		seg := etherFrame(segments(t, f, 1400, true)[0])
		if got := packet.UDP(seg[info.L4:]).Check(); got != 0xffff || pkttest.CheckSums(seg) != "" {
			t.Errorf("%s: checksum %#x, want 0xffff; %s", name, got, pkttest.CheckSums(seg))
		}
	}
}
