package packet_test

import (
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// What runs per packet allocates nothing.
func TestAllocs(t *testing.T) {
	frames := benchFrames(t)
	var info packet.Info
	for name, f := range frames {
		if n := testing.AllocsPerRun(100, func() { packet.Parse(f, len(f), &info) }); n != 0 {
			t.Errorf("Parse of %s: %v allocations", name, n)
		}
	}
	tcp := frames["tcp4-partial"]
	info = *parsed(t, tcp)
	dst, ip, src := make([]byte, 1600), tcp[14:], info.Key.Dst
	echo := pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.ICMP4(8, 0, 1, 1))
	echoInfo := *parsed(t, echo)
	var s packet.Segmenter
	var f packet.Fragmenter
	var sum uint64
	udp := *parsed(t, frames["udp4-64"])
	udp.Flags &^= packet.DF
	udpIP := frames["udp4-64"][14:]
	var scratch packet.Summer
	var m packet.Merge
	flow := kinds[0].flow(2, 1400)
	first, second := flow[0].frame(t)[14:], flow[1].frame(t)[14:]
	seg := *parsed(t, etherFrame(first))
	for name, fn := range map[string]func(){
		"Hash":            func() { sum += info.Key.Hash() },
		"Reverse":         func() { k := info.Key.Reverse(); sum += uint64(k.SrcPort) },
		"Sum":             func() { sum += uint64(packet.Sum(tcp, 0)) },
		"Summer":          func() { scratch.Add(tcp) },
		"BuildICMPError4": func() { packet.BuildICMPError4(dst, ip, &info, src, 11, 0, 0) },
		"Segmenter":       func() { s.Init(ip, &info, 500); s.Next(dst) },
		"Segmenter UDP":   func() { s.Init(udpIP, &udp, 5); s.Next(dst) },
		"Merge":           func() { m.Start(first, &seg); m.Add(first, second, &seg); m.Finish(dst) },
		"VerifyTransport": func() { packet.VerifyTransport(first, &seg) },
		"Fragmenter":      func() { f.Init(ip, &udp, 500); f.Next(dst) },
		"EchoReply4":      func() { echo[34] = 8; packet.EchoReply4(echo, &echoInfo) },
		"CompleteSCTP":    func() { packet.CompleteSCTP(dst) },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
