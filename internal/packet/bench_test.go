package packet_test

import (
	"fmt"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

const (
	podMAC = "0a:58:0a:01:00:02"
	gwMAC  = "ee:ee:ee:ee:ee:ee"
)

// benchFrames is the matrix of frames that Parse is measured with.
func benchFrames(t testing.TB) map[string][]byte {
	eth := func() pkttest.Layer { return pkttest.Eth(podMAC, gwMAC) }
	v4 := func() pkttest.Layer { return pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.DF()) }
	v6 := func() pkttest.Layer { return pkttest.IP6("fd00::2", "fd00::3") }
	return map[string][]byte{
		"udp4-64":      pkttest.Frame(t, eth(), v4(), pkttest.UDP(4711, 53), pkttest.Payload(22)),
		"tcp4-1514":    pkttest.Frame(t, eth(), v4(), pkttest.TCP(4711, 80), pkttest.Payload(1460)),
		"tcp4-partial": pkttest.SetPartial(pkttest.Frame(t, eth(), v4(), pkttest.TCP(4711, 80), pkttest.Payload(1460))),
		"icmp4-98":     pkttest.Frame(t, eth(), v4(), pkttest.ICMP4(8, 0, 7, 1), pkttest.Payload(56)),
		"udp6-84":      pkttest.Frame(t, eth(), v6(), pkttest.UDP(4711, 53), pkttest.Payload(22)),
		"tcp6-1514":    pkttest.Frame(t, eth(), v6(), pkttest.TCP(4711, 80), pkttest.Payload(1440)),
	}
}

func BenchmarkParse(b *testing.B) {
	for name, f := range benchFrames(b) {
		b.Run(name, func(b *testing.B) {
			var info packet.Info
			for b.Loop() {
				if r := packet.Parse(f, len(f), &info); r != 0 {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkKeyHash(b *testing.B) {
	var info packet.Info
	f := benchFrames(b)["udp4-64"]
	packet.Parse(f, len(f), &info)
	var sum uint64
	for b.Loop() {
		sum += info.Key.Hash()
	}
	_ = sum
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 512, 1500, 9000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := pkttest.Pattern(n)
			b.SetBytes(int64(n))
			var sum uint32
			for b.Loop() {
				sum += packet.Sum(buf, 0)
			}
			_ = sum
		})
	}
}

func BenchmarkSegmenter(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.String(), func(b *testing.B) {
			f := kind.flow(1, 64000)[0].frame(b)
			var info packet.Info
			packet.Parse(f, len(f), &info)
			var s packet.Segmenter
			var dst [128]byte
			more := false
			for b.Loop() { // per segment
				if !more {
					s.Init(f[info.L3:], &info, 1400)
				}
				_, _, more = s.Next(dst[:])
			}
		})
	}
}

func BenchmarkICMPError4(b *testing.B) {
	var info packet.Info
	f := benchFrames(b)["tcp4-1514"]
	packet.Parse(f, len(f), &info)
	src, dst := info.Key.Dst, make([]byte, 600)
	for b.Loop() {
		if packet.BuildICMPError4(dst, f[14:], &info, src, packet.ICMPUnreachable, packet.ICMPFragNeeded, 1450) == 0 {
			b.Fatal("no error built")
		}
	}
}
