package outer

import (
	"net"
	"net/netip"
	"testing"

	kit "culvert/internal/pkttest"
)

const (
	own4, peer4, router4 = "192.168.0.1", "192.168.0.2", "10.9.9.9"
	own6, peer6, router6 = "fd00::1", "fd00::2", "fd00::99"
	zeroMAC              = "02:00:00:00:00:01"
)

var (
	local4 = Local{Addr: netip.MustParseAddr(own4), Port: 4789, VNI: 4096}
	local6 = Local{Addr: netip.MustParseAddr(own6), Port: 4789, VNI: 4096}
)

// sent is a tunnel packet from its IP header on.
func sent(t testing.TB, ip kit.Layer, sport, dport uint16, vni uint32) []byte {
	return kit.Frame(t, kit.Eth(zeroMAC, zeroMAC), ip, kit.UDP(sport, dport), kit.VXLANHeader(vni),
		kit.Eth(zeroMAC, zeroMAC), kit.IP4("10.244.1.2", "10.244.2.2", kit.DF()), kit.UDP(1, 2), kit.Payload(1400))[14:]
}

// error4 is an ICMP error from its IP header on; mtu stands where RFC 1191 has it.
func error4(t testing.TB, typ, code uint8, mtu uint16, quote []byte) []byte {
	return kit.Frame(t, kit.Eth(zeroMAC, zeroMAC), kit.IP4(router4, own4), kit.ICMP4(typ, code, 0, mtu), kit.Bytes(quote...))[14:]
}

// error6 is an ICMPv6 error from its ICMPv6 header on.
func error6(typ, code uint8, mtu uint32, quote []byte) []byte {
	m := []byte{typ, code, 0, 0, byte(mtu >> 24), byte(mtu >> 16), byte(mtu >> 8), byte(mtu)}
	return append(m, quote...)
}

func TestParseErrors(t *testing.T) {
	good4 := sent(t, kit.IP4(own4, peer4), 40000, 4789, 4096)
	good6 := sent(t, kit.IP6(own6, peer6), 40000, 4789, 4096)
	from6 := &net.IPAddr{IP: net.ParseIP(router6)}
	want := func(name string, l *Local, msg []byte, kind Kind, mtu, inner int) {
		t.Helper()
		var e Error
		if !l.parse(msg, from6, &e) {
			t.Errorf("%s: not taken", name)
			return
		}
		peer, router := netip.MustParseAddr(peer4), netip.MustParseAddr(router4)
		if !l.Addr.Is4() {
			peer, router = netip.MustParseAddr(peer6), netip.MustParseAddr(router6)
		}
		if e.Kind != kind || e.Peer != peer || e.From != router || kind == TooBig && e.MTU != mtu || len(e.Inner) != inner {
			t.Errorf("%s: %+v", name, e)
		}
		if e.Size < 1450 || e.Size > 1600 {
			t.Errorf("%s: size %d", name, e.Size)
		}
	}
	want("too big", &local4, error4(t, 3, 4, 1400, good4[:300]), TooBig, 1400, 300-36)
	want("too big, the least quote", &local4, error4(t, 3, 4, 1400, good4[:28]), TooBig, 1400, 0)
	want("host", &local4, error4(t, 3, 1, 0, good4[:100]), HostUnreachable, 0, 64)
	want("net", &local4, error4(t, 3, 0, 0, good4[:100]), HostUnreachable, 0, 64)
	want("port", &local4, error4(t, 3, 3, 0, good4[:100]), PortUnreachable, 0, 64)
	want("protocol", &local4, error4(t, 3, 2, 0, good4[:100]), ProtocolUnreachable, 0, 64)
	want("prohibited", &local4, error4(t, 3, 13, 0, good4[:100]), Prohibited, 0, 64)
	want("time", &local4, error4(t, 11, 0, 0, good4[:100]), TimeExceeded, 0, 64)
	want("parameter", &local4, error4(t, 12, 0, 0, good4[:100]), Other, 0, 64)
	want("a first fragment", &local4, error4(t, 11, 1, 0, sent(t, kit.IP4(own4, peer4, kit.Fragment(0, true)), 40000, 4789, 4096)[:100]), TimeExceeded, 0, 64)
	want("too big 6", &local6, error6(2, 0, 1300, good6), TooBig, 1300, len(good6)-56)
	want("too big 6, the least quote", &local6, error6(2, 0, 1<<31, good6[:48]), TooBig, 1<<16, 0)
	want("no route 6", &local6, error6(1, 0, 0, good6[:100]), HostUnreachable, 0, 44)
	want("prohibited 6", &local6, error6(1, 1, 0, good6[:100]), Prohibited, 0, 44)
	want("port 6", &local6, error6(1, 4, 0, good6[:100]), PortUnreachable, 0, 44)
	want("time 6", &local6, error6(3, 0, 0, good6[:100]), TimeExceeded, 0, 44)
	want("parameter 6", &local6, error6(4, 0, 0, good6[:100]), Other, 0, 44)
	ipip := local4
	ipip.IPIP = true
	inIPIP := kit.Frame(t, kit.Eth(zeroMAC, zeroMAC), kit.IP4(own4, peer4, kit.Proto(4)), kit.Payload(1480))[14:]
	want("too big, IPIP", &ipip, error4(t, 3, 4, 1300, inIPIP[:60]), TooBig, 1300, 0)

	for name, tt := range map[string]struct {
		l   *Local
		msg []byte
	}{
		"another sender":         {&local4, error4(t, 3, 4, 1400, sent(t, kit.IP4("192.168.0.9", peer4), 40000, 4789, 4096)[:100])},
		"another port":           {&local4, error4(t, 3, 4, 1400, sent(t, kit.IP4(own4, peer4), 40000, 53, 4096)[:100])},
		"no source port of ours": {&local4, error4(t, 3, 4, 1400, sent(t, kit.IP4(own4, peer4), 4789, 4789, 4096)[:100])},
		"another network":        {&local4, error4(t, 3, 4, 1400, sent(t, kit.IP4(own4, peer4), 40000, 4789, 7)[:100])},
		"a later fragment":       {&local4, error4(t, 11, 1, 0, sent(t, kit.IP4(own4, peer4, kit.Fragment(800, false), kit.Proto(17)), 40000, 4789, 4096)[:100])},
		"TCP":                    {&local4, error4(t, 3, 4, 1400, kit.Frame(t, kit.Eth(zeroMAC, zeroMAC), kit.IP4(own4, peer4), kit.TCP(40000, 4789))[14:])},
		"IPIP that we do not do": {&local4, error4(t, 3, 4, 1300, inIPIP[:60])},
		"options":                {&local4, error4(t, 3, 4, 1400, sent(t, kit.IP4(own4, peer4, kit.Option(148, 0, 0)), 40000, 4789, 4096)[:100])},
		"a ping":                 {&local4, error4(t, 8, 0, 0, good4[:100])},
		"a redirect":             {&local4, error4(t, 5, 1, 0, good4[:100])},
		"a wrong checksum":       {&local4, kit.Corrupt(error4(t, 3, 4, 1400, good4[:100]), 60, 0xff)},
		"half a UDP header":      {&local4, error4(t, 3, 4, 1400, good4[:24])},
		"IPv6 in the quote":      {&local4, error4(t, 3, 4, 1400, good6[:100])},
		"IPv4 in the quote 6":    {&local6, error6(2, 0, 1300, good4[:100])},
		"another sender 6":       {&local6, error6(2, 0, 1300, sent(t, kit.IP6("fd00::9", peer6), 40000, 4789, 4096)[:100])},
		"a ping 6":               {&local6, error6(128, 0, 0, good6[:100])},
		"half a UDP header 6":    {&local6, error6(2, 0, 1300, good6[:44])},
		"nothing":                {&local4, nil},
		"nothing 6":              {&local6, nil},
	} {
		var e Error
		if tt.l.parse(tt.msg, from6, &e) {
			t.Errorf("%s: taken as %+v", name, e)
		}
	}
}

// Nothing that arrives makes the parsers read past its end, and what they take is
// about our own packets.
func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{
		error4(f, 3, 4, 1400, sent(f, kit.IP4(own4, peer4), 40000, 4789, 4096)[:128]),
		error6(2, 0, 1300, sent(f, kit.IP6(own6, peer6), 40000, 4789, 4096)[:128]),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range []Local{local4, local6, {Addr: local4.Addr, IPIP: true}} {
			var e Error
			if l.parse(b, &net.IPAddr{IP: net.ParseIP(router6)}, &e) && (e.Kind >= NumKinds || e.Peer.Is4() != l.Addr.Is4() || len(e.Inner) > len(b)) {
				t.Errorf("%+v", e)
			}
		}
	})
}
