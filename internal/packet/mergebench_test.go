package packet_test

import (
	"fmt"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// BenchmarkMerge makes groups of 40: a Start, 39 Adds and a Finish.
func BenchmarkMerge(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.String(), func(b *testing.B) {
			var frames [][]byte
			var infos []packet.Info
			for _, s := range kind.flow(40, 1400) {
				f := s.frame(b)
				frames = append(frames, f)
				infos = append(infos, *parsed(b, f))
			}
			first, hdr := frames[0][14:], make([]byte, 120)
			copy(hdr, first)
			var m packet.Merge
			for b.Loop() {
				copy(first[:60], hdr)
				if !m.Start(first, &infos[0]) {
					b.Fatal("no start")
				}
				for i := 1; i < len(frames); i++ {
					if !m.Add(first, frames[i][14:], &infos[i]) {
						b.Fatal("not added")
					}
				}
				m.Finish(first)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/segment")
		})
	}
}

func BenchmarkVerifyTransport(b *testing.B) {
	for _, n := range []int{100, 1400, 9000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := pkttest.Frame(b, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.TCP(1, 2), pkttest.Payload(n))
			info := parsed(b, f)
			b.SetBytes(int64(n))
			for b.Loop() {
				if !packet.VerifyTransport(f[14:], info) {
					b.Fatal("wrong")
				}
			}
		})
	}
}
