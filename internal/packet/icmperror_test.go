package packet_test

import (
	"bytes"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// parsed parses a frame that must be valid.
func parsed(t testing.TB, f []byte) *packet.Info {
	t.Helper()
	info := new(packet.Info)
	if r := packet.Parse(f, len(f), info); r != drop.None {
		t.Fatalf("%s\n%s", r, pkttest.Dump(f))
	}
	return info
}

// etherFrame puts an Ethernet header in front of an IP packet.
func etherFrame(ip []byte) []byte {
	et := []byte{8, 0}
	if ip[0]>>4 == 6 {
		et = []byte{0x86, 0xdd}
	}
	return pkttest.Join(make([]byte, 12), et, ip)
}

func TestBuildICMPError4(t *testing.T) {
	orig := func(payload int, o ...pkttest.Layer) []byte {
		return pkttest.Frame(t, append([]pkttest.Layer{pkttest.Eth(podMAC, gwMAC),
			pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.TOS(0x2b), pkttest.ID(77), pkttest.DF()), pkttest.UDP(5, 6)}, append(o, pkttest.Payload(payload))...)...)
	}
	tests := []struct {
		name      string
		frame     []byte
		typ, code uint8
		mtu       uint16
		length    int
	}{
		{"frag needed, long", orig(1400), 3, 4, 1450, 576},
		{"frag needed, just 576", orig(576 - 56), 3, 4, 1450, 576},
		{"frag needed, 575", orig(575 - 56), 3, 4, 1450, 575},
		{"time exceeded, short", orig(3), 11, 0, 0, 28 + 31},
		{"host unreachable, padded frame", pkttest.Pad(orig(0), 18), 3, 1, 0, 28 + 28},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info := parsed(t, tt.frame)
			dst := bytes.Repeat([]byte{0xee}, 700)
			n := packet.BuildICMPError4(dst, tt.frame[14:], info, addr("10.1.0.1"), tt.typ, tt.code, tt.mtu)
			if n != tt.length {
				t.Fatalf("length %d, want %d", n, tt.length)
			}
			f := etherFrame(dst[:n])
			pkttest.CheckPacket(t, f, pkttest.Src("10.1.0.1"), pkttest.Dst("10.1.0.2"), pkttest.WithTTL(64),
				pkttest.WithTOS(0xca), pkttest.WithDF(false), pkttest.WithID(77), pkttest.WithICMP(tt.typ, tt.code),
				pkttest.WithFragment(0, false))
			if !bytes.Equal(dst[28:n], tt.frame[14:14+n-28]) {
				t.Error("the quote differs from the packet")
			}
			if mtu := packet.ICMPv4(dst[20:]).Seq(); mtu != tt.mtu {
				t.Errorf("MTU %d, want %d", mtu, tt.mtu)
			}
			if !bytes.Equal(dst[n:], bytes.Repeat([]byte{0xee}, 700-n)) {
				t.Error("bytes behind the message were written")
			}
			if e := parsed(t, f); !e.Has(packet.ICMPError) || packet.BuildICMPError4(dst, f[14:], e, addr("10.1.0.1"), 11, 0, 0) != 0 {
				t.Error("the error is answered by an error")
			}
		})
	}
}

func TestBuildICMPError4Refusals(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	udp := pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.UDP(5, 6), pkttest.Payload(100))
	frag := func(off int) []byte {
		return pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.Fragment(off, true), pkttest.Proto(17)), pkttest.Payload(64))
	}
	dst := make([]byte, 600)
	build := func(f []byte) int {
		var info packet.Info
		packet.Parse(f, len(f), &info)
		return packet.BuildICMPError4(dst, f[14:], &info, addr("10.1.0.1"), 11, 0, 0)
	}
	tests := []struct {
		name  string
		frame []byte
		sent  bool
	}{
		{"UDP", udp, true},
		{"echo request", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.ICMP4(8, 0, 1, 1)), true},
		{"first fragment", frag(0), true},
		{"other fragment", frag(64), false},
		{"ICMP error", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.ICMP4(11, 0, 0, 0), pkttest.Payload(28)), false},
		{"ICMP redirect", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.ICMP4(5, 0, 0, 0), pkttest.Payload(28)), false},
		{"multicast", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "224.0.0.5"), pkttest.UDP(5, 6)), false},
		{"broadcast", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "255.255.255.255"), pkttest.UDP(5, 6)), false},
		{"from 0.0.0.0", pkttest.Frame(t, eth, pkttest.IP4("0.0.0.0", "10.1.1.3"), pkttest.UDP(5, 6)), false},
		{"from 127.0.0.1", pkttest.Frame(t, eth, pkttest.IP4("127.0.0.1", "10.1.1.3"), pkttest.UDP(5, 6)), false},
		{"IPv6", pkttest.Frame(t, eth, pkttest.IP6("fd00::1", "fd00::2"), pkttest.UDP(5, 6)), false},
		{"ARP", pkttest.Frame(t, eth, pkttest.ARPRequest(podMAC, "10.1.0.2", "10.1.1.3")), false},
	}
	for _, tt := range tests {
		if n := build(tt.frame); (n != 0) != tt.sent {
			t.Errorf("%s: %d bytes", tt.name, n)
		}
	}
	// Room: all lengths of the buffer. Below 28 + 28 bytes nothing is said.
	info := parsed(t, udp)
	for room := range 200 {
		n := packet.BuildICMPError4(make([]byte, room), udp[14:], info, addr("10.1.0.1"), 11, 0, 0)
		if want := min(room, 28+128); n != want && !(room < 56 && n == 0) {
			t.Errorf("with room for %d bytes: %d", room, n)
		}
	}
}

func TestBuildICMPError6(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	udp := func(n int) []byte {
		return pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fd00::3"), pkttest.UDP(5, 6), pkttest.Payload(n))
	}
	frag := func(proto uint8) []byte {
		return pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fd00::3"), pkttest.Ext(44, proto, 0, 0, 8, 0, 0, 0, 1), pkttest.Payload(8))
	}
	ns := pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "ff02::1:ff00:1", pkttest.HopLimit(255)), pkttest.ICMP6(135, 0), pkttest.Payload(20))
	tests := []struct {
		name      string
		frame     []byte
		typ, code uint8
		word      uint32
		length    int
	}{
		{"too big, long", udp(1400), 2, 0, 1430, 1280},
		{"time exceeded, short", udp(3), 3, 0, 0, 48 + 51},
		{"about an echo request", pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fd00::3"), pkttest.ICMP6(128, 0), pkttest.Payload(4)), 3, 0, 0, 48 + 48},
		{"about an error", pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fd00::3"), pkttest.ICMP6(1, 0), pkttest.Payload(48)), 3, 0, 0, 0},
		{"about a redirect", pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fd00::3"), pkttest.ICMP6(137, 0), pkttest.Payload(48)), 3, 0, 0, 0},
		{"about a fragment", frag(17), 3, 0, 0, 48 + 56},
		{"about a fragment that may be an error's", frag(58), 3, 0, 0, 0},
		{"about a packet to a group", ns, 3, 0, 0, 0},
		{"too big about a packet to a group", ns, 2, 0, 1280, 48 + 64},
		{"about IPv4", pkttest.Frame(t, eth, pkttest.IP4("10.0.0.1", "10.0.0.2"), pkttest.UDP(1, 2)), 3, 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info := parsed(t, tt.frame)
			dst := make([]byte, 1500)
			n := packet.BuildICMPError6(dst, tt.frame[14:], info, addr("fd00::1"), tt.typ, tt.code, tt.word)
			if n != tt.length {
				t.Fatalf("length %d, want %d", n, tt.length)
			}
			if n == 0 {
				return
			}
			f := etherFrame(dst[:n])
			pkttest.CheckPacket(t, f, pkttest.Src("fd00::1"), pkttest.Dst("fd00::2"), pkttest.WithTTL(64), pkttest.WithTOS(0), pkttest.WithICMP(tt.typ, tt.code))
			if !bytes.Equal(dst[48:n], tt.frame[14:14+n-48]) {
				t.Error("the quote differs from the packet")
			}
			if w := packet.ICMPv6(dst[40:]).MTU(); w != tt.word {
				t.Errorf("MTU %d, want %d", w, tt.word)
			}
		})
	}
	info := parsed(t, udp(100))
	for room := range 200 {
		n := packet.BuildICMPError6(make([]byte, room), udp(100)[14:], info, addr("fd00::1"), 3, 0, 0)
		if want := min(room, 48+148); n != want && !(room < 96 && n == 0) {
			t.Errorf("with room for %d bytes: %d", room, n)
		}
	}
}
