// Package pkttest is the packet test kit: frames in, assertions out.
//
// A frame is built from layers, outermost first, and Frame fills in what links
// them: EtherTypes, protocol numbers, lengths, checksums.
//
//	f := pkttest.Frame(t,
//		pkttest.Eth(podMAC, gwMAC),
//		pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.TTL(3), pkttest.DF()),
//		pkttest.TCP(4711, 80, pkttest.Flags("SA"), pkttest.MSS(1410)),
//		pkttest.Payload(100))
//
// The functions of mutate.go then break it (Corrupt, SetPartial, Pad, ...), and
// those of check.go say what must be true of a frame that came out:
//
//	inner := pkttest.CheckVXLAN(t, f, pkttest.OuterSrc("192.0.2.1"), pkttest.VNI(1))
//	pkttest.CheckPacket(t, inner, pkttest.Src("10.1.0.2"), pkttest.WithTTL(2))
//
// gopacket and the naive checksum of naive.go are the oracle: nothing here uses
// the project's own codecs. Test code only; it allocates as it likes.
package pkttest
