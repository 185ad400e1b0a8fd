package packet_test

import (
	"bytes"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

func mac(s string) packet.MAC {
	m, err := packet.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func TestARPReply(t *testing.T) {
	const bcast = "ff:ff:ff:ff:ff:ff"
	request := func() []byte {
		return pkttest.Frame(t, pkttest.Eth(podMAC, bcast), pkttest.ARPRequest(podMAC, "10.1.0.2", "169.254.1.1"))
	}
	want := pkttest.Frame(t, pkttest.Eth(gwMAC, podMAC), pkttest.ARPReply(gwMAC, "169.254.1.1", podMAC, "10.1.0.2"))
	tests := []struct {
		name   string
		frame  []byte
		reason drop.Reason
	}{
		{"request", request(), drop.None},
		{"padded", pkttest.Pad(request(), 18), drop.None},
		{"unicast request", pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.ARPRequest(podMAC, "10.1.0.2", "169.254.1.1")), drop.None},
		{"reply", want, drop.ARPIgnored},
		{"announcement", pkttest.Frame(t, pkttest.Eth(podMAC, bcast), pkttest.ARPRequest(podMAC, "10.1.0.2", "10.1.0.2")), drop.ARPIgnored},
		{"probe", pkttest.Frame(t, pkttest.Eth(podMAC, bcast), pkttest.ARPRequest(podMAC, "0.0.0.0", "10.1.0.2")), drop.ARPIgnored},
		{"forged sender", pkttest.Frame(t, pkttest.Eth(podMAC, bcast), pkttest.ARPRequest(gwMAC, "10.1.0.2", "169.254.1.1")), drop.ARPInvalid},
		{"sender is a group", pkttest.Frame(t, pkttest.Eth(bcast, bcast), pkttest.ARPRequest(bcast, "10.1.0.2", "169.254.1.1")), drop.ARPInvalid},
		{"hardware length 8", pkttest.Corrupt(request(), 18, 8), drop.ARPInvalid},
		{"protocol length 16", pkttest.Corrupt(request(), 19, 16), drop.ARPInvalid},
		{"hardware type 6", pkttest.Corrupt(request(), 15, 6), drop.ARPInvalid},
		{"not ARP", pkttest.Corrupt(request(), 12, 8, 0), drop.ARPInvalid},
	}
	for n := range 42 {
		tests = append(tests, struct {
			name   string
			frame  []byte
			reason drop.Reason
		}{"truncated", request()[:n:n], drop.ARPInvalid})
	}
	for _, tt := range tests {
		before := bytes.Clone(tt.frame)
		if r := packet.ARPReply(tt.frame, mac(gwMAC)); r != tt.reason {
			t.Errorf("%s of %d bytes: %s, want %s", tt.name, len(tt.frame), r, tt.reason)
		} else if r != drop.None && !bytes.Equal(before, tt.frame) {
			t.Errorf("%s: refused, but changed", tt.name)
		} else if r == drop.None && !bytes.Equal(tt.frame[:42], want) {
			t.Errorf("%s: the reply is\n%swant\n%s", tt.name, pkttest.Dump(tt.frame), pkttest.Dump(want))
		}
	}
	tagged := pkttest.Frame(t, pkttest.Eth(podMAC, bcast), pkttest.VLAN(5), pkttest.ARPRequest(podMAC, "10.1.0.2", "169.254.1.1"))
	wantTagged := pkttest.Frame(t, pkttest.Eth(gwMAC, podMAC), pkttest.VLAN(5), pkttest.ARPReply(gwMAC, "169.254.1.1", podMAC, "10.1.0.2"))
	if r := packet.ARPReply(tagged, mac(gwMAC)); r != drop.None || !bytes.Equal(tagged, wantTagged) {
		t.Errorf("tagged: %s", r)
	}
}

func TestEchoReply4(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	for n := range 70 {
		for _, opts := range [][]byte{nil, {4, 0, 0}} {
			ip := pkttest.IP4("10.1.0.2", "169.254.1.1", pkttest.TTL(3), pkttest.TOS(0x10), pkttest.ID(5), pkttest.DF())
			if opts != nil {
				pkttest.Option(7, opts...)(ip)
			}
			f := pkttest.Pad(pkttest.Frame(t, eth, ip, pkttest.ICMP4(8, 0, uint16(n), 9), pkttest.Payload(n)), n%3)
			info := parsed(t, f)
			if r := packet.EchoReply4(f, info); r != drop.None {
				t.Fatal(r)
			}
			p := pkttest.CheckPacket(t, f, pkttest.SrcMAC(gwMAC), pkttest.DstMAC(podMAC), pkttest.Src("169.254.1.1"), pkttest.Dst("10.1.0.2"),
				pkttest.WithTTL(64), pkttest.WithTOS(0x10), pkttest.WithICMP(0, 0))
			_ = p
			if h := packet.ICMPv4(f[info.L4:]); h.ID() != uint16(n) || h.Seq() != 9 {
				t.Errorf("id %d seq %d", h.ID(), h.Seq())
			}
		}
	}
	request := func() []byte {
		return pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1"), pkttest.ICMP4(8, 0, 1, 1), pkttest.Payload(8))
	}
	tests := []struct {
		name   string
		frame  []byte
		cut    int
		reason drop.Reason
	}{
		{"wrong checksum", pkttest.Corrupt(request(), 42, 0xff), 0, drop.L4Checksum},
		{"reply", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1"), pkttest.ICMP4(0, 0, 1, 1)), 0, drop.ICMPIgnored},
		{"code 1", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1"), pkttest.ICMP4(8, 1, 1, 1)), 0, drop.ICMPIgnored},
		{"timestamp", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1"), pkttest.ICMP4(13, 0, 1, 1), pkttest.Payload(12)), 0, drop.ICMPIgnored},
		{"UDP", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1"), pkttest.UDP(1, 1)), 0, drop.ICMPIgnored},
		{"in two chunks", request(), 1, drop.ICMPIgnored},
		{"fragment", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1", pkttest.Fragment(0, true)), pkttest.ICMP4(8, 0, 1, 1), pkttest.Payload(8)), 0, drop.ICMPIgnored},
	}
	for _, tt := range tests {
		info := parsed(t, tt.frame)
		f := tt.frame[:len(tt.frame)-tt.cut]
		before := bytes.Clone(f)
		if r := packet.EchoReply4(f, info); r != tt.reason || !bytes.Equal(before, f) {
			t.Errorf("%s: %s, want %s and no change", tt.name, r, tt.reason)
		}
	}
}

func TestEchoReply6(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	request := func(n int) []byte {
		return pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fe80::1", pkttest.HopLimit(3)), pkttest.ICMP6(128, 0), pkttest.Bytes(0, 7, 0, 9), pkttest.Payload(n))
	}
	for n := range 70 {
		f := request(n)
		if r := packet.EchoReply6(f, parsed(t, f)); r != drop.None {
			t.Fatal(r)
		}
		pkttest.CheckPacket(t, f, pkttest.SrcMAC(gwMAC), pkttest.DstMAC(podMAC), pkttest.Src("fe80::1"), pkttest.Dst("fd00::2"),
			pkttest.WithTTL(64), pkttest.WithICMP(129, 0))
	}
	tests := []struct {
		name   string
		frame  []byte
		cut    int
		reason drop.Reason
	}{
		{"wrong checksum", pkttest.Corrupt(request(8), 62, 0xff), 0, drop.L4Checksum},
		{"in two chunks", request(8), 1, drop.ICMPIgnored},
		{"reply", pkttest.Frame(t, eth, pkttest.IP6("fd00::2", "fe80::1"), pkttest.ICMP6(129, 0), pkttest.Payload(4)), 0, drop.ICMPIgnored},
		{"IPv4", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "169.254.1.1"), pkttest.ICMP4(8, 0, 1, 1)), 0, drop.ICMPIgnored},
	}
	for _, tt := range tests {
		info := parsed(t, tt.frame)
		f := tt.frame[:len(tt.frame)-tt.cut]
		before := bytes.Clone(f)
		if r := packet.EchoReply6(f, info); r != tt.reason || !bytes.Equal(before, f) {
			t.Errorf("%s: %s, want %s and no change", tt.name, r, tt.reason)
		}
	}
}

// solicit is a neighbour solicitation for fe80::1 with options.
func solicit(t testing.TB, src, dst string, hops uint8, opts ...byte) []byte {
	target := addr("fe80::1")
	return pkttest.Frame(t, pkttest.Eth(podMAC, "33:33:ff:00:00:01"), pkttest.IP6(src, dst, pkttest.HopLimit(hops)),
		pkttest.ICMP6(135, 0), pkttest.Bytes(0, 0, 0, 0), pkttest.Bytes(target[:]...), pkttest.Bytes(opts...))
}

func TestNDReply(t *testing.T) {
	m := mac(podMAC)
	sllao := append([]byte{1, 1}, m[:]...)
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6} // RFC 3971 5.3.2
	const group = "ff02::1:ff00:1"
	tests := []struct {
		name   string
		frame  []byte
		cut    int
		reason drop.Reason
		length int
		option bool
	}{
		{"multicast", solicit(t, "fe80::2", group, 255, sllao...), 0, drop.None, 54 + 32, true},
		{"padded", pkttest.Pad(solicit(t, "fe80::2", group, 255, sllao...), 4), 0, drop.None, 54 + 32, true},
		{"unicast without option", solicit(t, "fe80::2", "fe80::1", 255), 0, drop.None, 54 + 24, false},
		{"two options", solicit(t, "fe80::2", group, 255, pkttest.Join(nonce, sllao)...), 0, drop.None, 54 + 32, true},
		{"duplicate address detection", solicit(t, "::", group, 255), 0, drop.NDIgnored, 0, false},
		{"from afar", solicit(t, "fe80::2", group, 254, sllao...), 0, drop.NDIgnored, 0, false},
		{"option of length 0", solicit(t, "fe80::2", group, 255, 1, 0, 0, 0, 0, 0, 0, 0), 0, drop.NDIgnored, 0, false},
		{"option runs over", solicit(t, "fe80::2", group, 255, 1, 2, 0, 0, 0, 0, 0, 0), 0, drop.NDIgnored, 0, false},
		{"option cut short", solicit(t, "fe80::2", group, 255, 1, 1, 0, 0), 0, drop.NDIgnored, 0, false},
		{"wrong checksum", pkttest.Corrupt(solicit(t, "fe80::2", group, 255, sllao...), 14+40+30, 0xff), 0, drop.L4Checksum, 0, false},
		{"in two chunks", solicit(t, "fe80::2", group, 255, sllao...), 1, drop.NDIgnored, 0, false},
		{"target is a group", pkttest.Corrupt(solicit(t, "fe80::2", group, 255, sllao...), 14+40+8, 0xff), 0, drop.NDIgnored, 0, false},
		{"advertisement", pkttest.Corrupt(solicit(t, "fe80::2", group, 255, sllao...), 14+40, 136), 0, drop.NDIgnored, 0, false},
		{"cut before the target", pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), pkttest.IP6("fe80::2", group, pkttest.HopLimit(255)),
			pkttest.ICMP6(135, 0), pkttest.Payload(19)), 0, drop.NDIgnored, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info := parsed(t, tt.frame)
			f := tt.frame[:len(tt.frame)-tt.cut]
			before := bytes.Clone(f)
			n, r := packet.NDReply(f, info, mac(gwMAC))
			if r != tt.reason || n != tt.length {
				t.Fatalf("%s, %d bytes; want %s, %d", r, n, tt.reason, tt.length)
			}
			if r != drop.None {
				if !bytes.Equal(before, f) {
					t.Error("refused, but changed")
				}
				return
			}
			f = f[:n]
			pkttest.CheckPacket(t, f, pkttest.SrcMAC(gwMAC), pkttest.DstMAC(podMAC), pkttest.Src("fe80::1"), pkttest.Dst("fe80::2"),
				pkttest.WithTTL(255), pkttest.WithICMP(136, 0))
			msg := f[54:]
			target, gw := addr("fe80::1"), mac(gwMAC)
			if msg[4] != 0xe0 || !bytes.Equal(msg[8:24], target[:]) {
				t.Errorf("flags %#x, target % x", msg[4], msg[8:24])
			}
			if tt.option && !bytes.Equal(msg[24:], append([]byte{2, 1}, gw[:]...)) {
				t.Errorf("option % x", msg[24:])
			}
		})
	}
	f := solicit(t, "fe80::2", group, 255, sllao...)
	if target, ok := packet.NDTarget(f, parsed(t, f)); !ok || target != addr("fe80::1") {
		t.Errorf("NDTarget: %s, %v", target, ok)
	}
}
