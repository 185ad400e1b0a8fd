package packet_test

import (
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// Every bit of a packet counts, in one piece and in chunks.
func TestVerifyTransport(t *testing.T) {
	for _, kind := range kinds {
		for _, size := range []int{0, 1, 2, 63, 64, 101, 1400} {
			f := kind.flow(1, size)[0].frame(t)
			info := parsed(t, f)
			if !packet.VerifyTransport(f[14:], info) || !verifyChunks(f, info, 7) {
				t.Fatalf("%v of %d bytes: right checksum refused", kind, size)
			}
			for i := int(info.L4); i < len(f); i++ {
				if info.Proto == packet.ProtoUDP && (i-int(info.L4))/2 == 2 {
					continue // the datagram's length
				}
				f[i] ^= 0x10
				if packet.VerifyTransport(f[14:], info) || verifyChunks(f, info, 1+i%50) {
					t.Fatalf("%v of %d bytes: accepted with byte %d wrong", kind, size, i)
				}
				f[i] ^= 0x10
			}
			if packet.VerifyTransport(f[14:len(f)-1], info) {
				t.Errorf("%v of %d bytes: accepted though cut short", kind, size)
			}
		}
	}
}

// verifyChunks verifies as the comment of PseudoSum says, chunks of n bytes.
func verifyChunks(f []byte, info *packet.Info, n int) bool {
	var s packet.Summer
	pseudo, left := packet.PseudoSum(f[info.L3:], info)
	s.Reset(pseudo)
	for b := f[info.L4 : int(info.L4)+left]; len(b) > 0; b = b[min(n, len(b)):] {
		s.Add(b[:min(n, len(b))])
	}
	return s.Sum() == 0xffff
}

// What has no checksum, or one over less than the packet.
func TestVerifyTransportKinds(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	v4, v6 := pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.IP6("fd00::2", "fd00::3")
	udp, data := pkttest.UDP(1, 2), pkttest.Payload(100)
	short := kinds[2].flow(1, 100)[0]
	short.udpLen = 50
	for _, tt := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"no checksum over IPv4", pkttest.ZeroL4Checksum(pkttest.Frame(t, eth, v4, udp, data)), true},
		{"no checksum over IPv6", pkttest.ZeroL4Checksum(pkttest.Frame(t, eth, v6, udp, data)), false},
		{"datagram shorter than its packet", short.frame(t), true},
		{"padded", pkttest.Pad(pkttest.Frame(t, eth, v4, udp), 18), true},
		{"partial", pkttest.SetPartial(pkttest.Frame(t, eth, v4, udp, data)), false},
		{"ICMP", pkttest.Frame(t, eth, v4, pkttest.ICMP4(8, 0, 1, 1), data), false},
		{"fragment", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Fragment(0, true)), udp, pkttest.Payload(104)), false},
	} {
		if got := packet.VerifyTransport(tt.frame[14:], parsed(t, tt.frame)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
