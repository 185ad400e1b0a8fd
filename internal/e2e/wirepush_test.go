package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket/layers"

	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// The same packets from a pod of a Culvert node and of a kernel node are the same on
// the wire, field by field, but for the fields of mayDiffer.
func TestPushIsAsTheKernels(t *testing.T) {
	for _, c := range []struct {
		as       lab.Kind
		underlay lab.Family
	}{{lab.Calico, lab.IPv4}, {lab.Calico, lab.IPv6}, {lab.Flannel, lab.IPv4}, {lab.Flannel, lab.IPv6}} {
		t.Run(fmt.Sprintf("%s over %s", c.as, c.underlay), func(t *testing.T) {
			ours, linux := newBed(t, lab.Culvert, c.as, c.underlay), newBed(t, c.as, c.as, c.underlay)
			for _, p := range pushCases(t, ours.PodMTU()) {
				got, want := ours.fromPod(t, p.packets), linux.fromPod(t, p.packets)
				switch {
				case p.refused != "":
					if len(got) != 0 || len(want) == 0 {
						t.Errorf("%s: %d frames, of Linux %d, which %q does not explain", p.name, len(got), len(want), p.refused)
					}
				case p.untouched:
					if len(got) != 1 || len(want) != 1 || !bytes.Equal(options(got[0], ours), p.packets[0][20:]) || bytes.Equal(options(want[0], linux), p.packets[0][20:]) {
						t.Errorf("%s: %d frames, of Linux %d: Linux alone is to write an option", p.name, len(got), len(want))
					}
				case len(got) != len(want) || p.passes != (len(got) > 0):
					t.Errorf("%s: %d frames, of Linux %d", p.name, len(got), len(want))
				default:
					for i := range got {
						compareFrames(t, p.name, ours, linux, got[i], want[i])
					}
				}
			}
		})
	}
}

// options are what follows the 20 bytes of the inner IPv4 header.
func options(f []byte, b *bed) []byte {
	o, _ := splitVXLAN(f, b.Port)
	return o.inner[14+20:]
}

// mayDiffer are the fields that need not be those that Linux writes, and what is
// asked of them instead.
var mayDiffer = map[string]struct {
	why string
	ok  func(ours, linux []byte, underlay lab.Family) bool
}{
	"outer identification": {
		"a number that is not used twice at a time: a counter here, ip_select_ident there (RFC 6864 4.2)",
		func(ours, _ []byte, _ lab.Family) bool { return binary.BigEndian.Uint16(ours) != 0 },
	},
	"outer header checksum": {
		"it covers the identification; that it is right is checked of every frame",
		func([]byte, []byte, lab.Family) bool { return true },
	},
	"outer source port": {
		"another hash of the same flow, in the same range (udp_flow_src_port of include/net/udp.h; ip_local_port_range)",
		func(ours, linux []byte, _ lab.Family) bool {
			in := func(b []byte) bool { p := binary.BigEndian.Uint16(b); return p >= 32768 && p < 60999 }
			return in(ours) && in(linux)
		},
	},
	"outer UDP checksum": {
		"over IPv6 it covers the source port; over IPv4 Culvert sends none (RFC 7348 5: SHOULD be zero), Linux does since 4.6 (VXLAN_F_UDP_ZERO_CSUM_TX)",
		func(ours, linux []byte, underlay lab.Family) bool {
			return underlay == lab.IPv6 && binary.BigEndian.Uint16(ours) != 0 || underlay == lab.IPv4 && binary.BigEndian.Uint16(ours) == 0
		},
	},
}

// compareFrames compares field by field.
func compareFrames(t *testing.T, name string, ours, linux *bed, got, want []byte) {
	t.Helper()
	for _, f := range [][]byte{got, want} {
		if problem := kit.CheckSums(f); problem != "" {
			t.Errorf("%s: %s\n%s", name, problem, kit.Dump(f))
		}
	}
	g, _ := splitVXLAN(got, ours.Port)
	w, _ := splitVXLAN(want, linux.Port)
	underlay := lab.IPv4
	type field struct {
		name  string
		of    func(o vxlanFrame) []byte
		first int
		n     int
	}
	ip, udp := func(o vxlanFrame) []byte { return o.ip }, func(o vxlanFrame) []byte { return o.udp }
	fields := []field{
		{"outer version and length", ip, 0, 1}, {"outer TOS", ip, 1, 1}, {"outer total length", ip, 2, 2}, {"outer identification", ip, 4, 2},
		{"outer flags and offset", ip, 6, 2}, {"outer TTL", ip, 8, 1}, {"outer protocol", ip, 9, 1}, {"outer header checksum", ip, 10, 2},
		{"outer source", ip, 12, 4}, {"outer destination", ip, 16, 4},
	}
	if len(g.ip) == 40 {
		underlay = lab.IPv6
		fields = []field{
			{"outer version, class and flow label", ip, 0, 4}, {"outer payload length", ip, 4, 2}, {"outer next header", ip, 6, 1},
			{"outer hop limit", ip, 7, 1}, {"outer source", ip, 8, 16}, {"outer destination", ip, 24, 16},
		}
	}
	fields = append(fields,
		field{"outer source port", udp, 0, 2}, field{"outer destination port", udp, 2, 2}, field{"outer UDP length", udp, 4, 2}, field{"outer UDP checksum", udp, 6, 2},
		field{"EtherType", func(o vxlanFrame) []byte { return o.eth }, 12, 2},
		field{"VXLAN flags", func(o vxlanFrame) []byte { return o.vxlan }, 0, 4}, field{"VNI and reserved", func(o vxlanFrame) []byte { return o.vxlan }, 4, 4},
		field{"inner destination MAC", func(o vxlanFrame) []byte { return o.inner }, 0, 6}, field{"inner source MAC", func(o vxlanFrame) []byte { return o.inner }, 6, 6},
		field{"inner EtherType", func(o vxlanFrame) []byte { return o.inner }, 12, 2},
	)
	if len(g.ip) != len(w.ip) {
		t.Errorf("%s: the outer headers are of %d and %d bytes", name, len(g.ip), len(w.ip))
		return
	}
	for _, f := range fields {
		a, b := f.of(g)[f.first:f.first+f.n], f.of(w)[f.first:f.first+f.n]
		if except, listed := mayDiffer[f.name]; listed {
			if !except.ok(a, b, underlay) {
				t.Errorf("%s: %s is % x, that of Linux % x: not what is allowed (%s)", name, f.name, a, b, except.why)
			}
		} else if !bytes.Equal(a, b) {
			t.Errorf("%s: %s is % x, that of Linux % x", name, f.name, a, b)
		}
	}
	if !bytes.Equal(g.inner[14:], w.inner[14:]) {
		t.Errorf("%s: the inner packet differs:\nours\n%s\nLinux\n%s", name, kit.Dump(g.inner), kit.Dump(w.inner))
	}
	for b, f := range map[*bed][]byte{ours: got, linux: want} {
		if !bytes.Equal(f[:6], b.peerMAC) || !bytes.Equal(f[6:12], b.nodeMAC) {
			t.Errorf("%s: Ethernet % x to % x", name, f[6:12], f[:6])
		}
	}
}

// pushCase is what a pod sends.
type pushCase struct {
	name    string
	packets [][]byte
	passes  bool   // something of it leaves the node
	refused string // why Culvert refuses what a kernel node forwards
	// untouched says that Linux fills an option in and Culvert does not: no router has
	// to, and nodes do not tell their addresses to who asks (RFC 7126 4.6, 4.7).
	untouched bool
}

// pushCases are packets of both families.
func pushCases(t *testing.T, mtu int) (all []pushCase) {
	add := func(passes bool, name string, packets ...[]byte) {
		all = append(all, pushCase{name: name, packets: packets, passes: passes})
	}
	udp := func(size int, opts ...func(*layers.IPv4)) []byte {
		return kit.IP(t, kit.IP4(podA4, podB4, opts...), kit.UDP(4711, 33000), kit.Payload(size))
	}
	udp6 := func(size int, opts ...func(*layers.IPv6)) []byte {
		return kit.IP(t, kit.IP6(podA6, podB6, opts...), kit.UDP(4711, 33000), kit.Payload(size))
	}
	for _, dscp := range []uint8{0, 10, 46, 63} {
		for ecn := range uint8(4) {
			add(true, fmt.Sprintf("IPv4, DSCP %d, ECN %d", dscp, ecn), udp(40, kit.TOS(dscp<<2|ecn)))
			add(true, fmt.Sprintf("IPv6, DSCP %d, ECN %d", dscp, ecn), udp6(40, kit.TrafficClass(dscp<<2|ecn)))
		}
	}
	for _, ttl := range []uint8{0, 1, 2, 3, 63, 64, 65, 127, 128, 200, 255} {
		add(ttl > 1, fmt.Sprint("TTL ", ttl), udp(40, kit.TTL(ttl)))
		add(ttl > 1, fmt.Sprint("hop limit ", ttl), udp6(40, kit.HopLimit(ttl)))
	}
	for _, size := range []int{0, 1, 2, 17, 18, 19, 63, 64, 500, 1000, 1279, mtu - 29, mtu - 28} {
		add(true, fmt.Sprint("UDP of ", size), udp(size))
		add(true, fmt.Sprint("UDP of ", size, ", DF"), udp(size, kit.DF()))
		add(true, fmt.Sprint("UDP over IPv6 of ", min(size, mtu-48)), udp6(min(size, mtu-48)))
	}
	add(false, "a byte too big, DF", udp(mtu-27, kit.DF()))
	add(false, "a byte too big, IPv6", udp6(mtu-47))
	add(true, "a byte too big", udp(mtu-27))
	add(true, "too big", udp(1472))
	add(true, "too big, another TOS and ID", udp(1472, kit.TOS(0xb9), kit.ID(4711)))
	add(true, "a fragment that is too big", udp(1472, kit.Fragment(0, true)))

	for _, id := range []uint16{0, 1, 0xffff} {
		add(true, fmt.Sprint("identification ", id), udp(40, kit.ID(id)), udp(40, kit.ID(id), kit.DF()))
	}
	for _, flags := range []string{"S", "SEC"} {
		add(true, "TCP "+flags, kit.IP(t, kit.IP4(podA4, podB4, kit.DF()), kit.TCP(4712, 33001, kit.Flags(flags), kit.MSS(1400))))
		add(true, "TCP over IPv6 "+flags, kit.IP(t, kit.IP6(podA6, podB6), kit.TCP(4712, 33001, kit.Flags(flags), kit.MSS(1400))))
	}
	add(true, "TCP with data", kit.IP(t, kit.IP4(podA4, podB4), kit.TCP(4713, 33002), kit.Payload(1000)))
	add(true, "TCP with data over IPv6", kit.IP(t, kit.IP6(podA6, podB6), kit.TCP(4713, 33002), kit.Payload(1000)))
	add(true, "ping", kit.IP(t, kit.IP4(podA4, podB4), kit.ICMP4(8, 0, 7, 1), kit.Payload(56)))
	add(true, "ping, largest", kit.IP(t, kit.IP4(podA4, podB4, kit.DF()), kit.ICMP4(8, 0, 7, 2), kit.Payload(mtu-28)))
	add(true, "ping over IPv6", kit.IP(t, kit.IP6(podA6, podB6), kit.ICMP6(128, 0), kit.Payload(56)))
	add(true, "no UDP checksum", kit.ZeroL4Checksum(asFrame(udp(33)))[14:])
	add(true, "a wrong UDP checksum", kit.Corrupt(udp(33), 26, 0x12, 0x34))
	for _, proto := range []uint8{4, 47, 50, 51, 132, 253} {
		add(true, fmt.Sprint("protocol ", proto), kit.IP(t, kit.IP4(podA4, podB4, kit.Proto(proto)), kit.Payload(100)))
		if proto == 51 {
			continue // as an extension header, below
		}
		add(true, fmt.Sprint("next header ", proto), kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(proto)), kit.Payload(100)))
	}

	// Fragments, in order, as a host sends them: not a multiple of the MTU.
	big := kit.IP(t, kit.IP4(podA4, podB4, kit.ID(99)), kit.UDP(4714, 33003), kit.Payload(2992))[20:]
	add(true, "fragments",
		kit.IP(t, kit.IP4(podA4, podB4, kit.ID(99), kit.Proto(17), kit.Fragment(0, true)), kit.Bytes(big[:1000]...)),
		kit.IP(t, kit.IP4(podA4, podB4, kit.ID(99), kit.Proto(17), kit.Fragment(1000, true)), kit.Bytes(big[1000:2000]...)),
		kit.IP(t, kit.IP4(podA4, podB4, kit.ID(99), kit.Proto(17), kit.Fragment(2000, false)), kit.Bytes(big[2000:]...)))
	frag6 := func(offset int, more byte, data []byte) []byte {
		return kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(44)), kit.Ext(44, 17, 0, byte(offset>>8), byte(offset)&^7|more, 0, 0, 0, 99), kit.Bytes(data...))
	}
	add(true, "fragments over IPv6", frag6(0, 1, big[:1000]), frag6(1000, 1, big[1000:2000]), frag6(2000, 0, big[2000:]))

	add(true, "no operation options", udp(40, kit.Option(1), kit.Option(1), kit.Option(1), kit.Option(0)))
	add(true, "router alert", udp(40, kit.Option(0x94, 0, 0)))
	add(true, "record route, full", udp(40, kit.Option(7, 12, 1, 1, 1, 1, 2, 2, 2, 2), kit.Option(1)))
	add(false, "a source route", udp(40, kit.Option(0x83, 4, 10, 244, 2, 3), kit.Option(0)))
	add(true, "an unknown option", udp(40, kit.Option(0x9e, 1, 2)))
	add(true, "options, too big", udp(1460, kit.Option(0x9e, 1, 2)))
	add(true, "flow label", labelled(udp6(40), 0xabcde))
	add(true, "destination options", kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(60)), kit.Ext(60, 17, 0, 1, 4, 0, 0, 0, 0), kit.UDP(4715, 33004), kit.Payload(40)))
	add(true, "hop-by-hop options", kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(0)), kit.Ext(0, 17, 0, 1, 4, 0, 0, 0, 0), kit.UDP(4715, 33004), kit.Payload(40)))
	add(true, "authentication header", kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(51)), kit.Ext(51, 17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), kit.UDP(4715, 33004), kit.Payload(40)))
	add(true, "no next header", kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(59)), kit.Payload(40)))
	add(true, "Ethernet padding", kit.Pad(udp(0), 18), kit.Pad(udp6(0), 6))

	add(false, "a wrong header checksum", kit.Corrupt(udp(40), 10, 0xde, 0xad))
	add(false, "longer than it is", kit.FixIP4(asFrame(kit.Corrupt(udp(40), 3, 200)))[14:])
	add(false, "longer than it is, IPv6", kit.Corrupt(udp6(40), 5, 200))
	add(false, "from loopback", kit.IP(t, kit.IP4("127.0.0.1", podB4), kit.UDP(1, 2), kit.Payload(40)))
	add(false, "to loopback", kit.IP(t, kit.IP4(podA4, "127.0.0.1"), kit.UDP(1, 2), kit.Payload(40)))
	add(false, "to multicast", kit.IP(t, kit.IP4(podA4, "224.0.0.99"), kit.UDP(1, 2), kit.Payload(40)))
	add(false, "link-local", kit.IP(t, kit.IP6("fe80::1", podB6), kit.UDP(1, 2), kit.Payload(40)))

	refuse := func(why, name string, packet []byte) {
		all = append(all, pushCase{name: name, packets: [][]byte{packet}, refused: why})
	}
	spoofed := "pods send from their own addresses alone (RFC 2827); Calico has iptables rules for it, Flannel nothing"
	refuse(spoofed, "another's address", kit.IP(t, kit.IP4("10.244.1.77", podB4), kit.UDP(1, 2), kit.Payload(40)))
	refuse(spoofed, "another's address, IPv6", kit.IP(t, kit.IP6("fd44:0:0:1::77", podB6), kit.UDP(1, 2), kit.Payload(40)))
	refuse("a header chain that cannot be followed hides the transport header from rules (RFC 7112)", "a broken chain of headers",
		kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(51)), kit.Payload(100)))
	refuse("type 0 routing headers are dead (RFC 5095 3): Linux refuses them as their target alone", "a routing header of type 0",
		kit.IP(t, kit.IP6(podA6, podB6, kit.NextHeader(43)), kit.Ext(43, 17, 2, 0, 1, 0, 0, 0, 0, 0xfd, 0x44, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1), kit.UDP(1, 2), kit.Payload(40)))
	untouched := func(name string, packet []byte) {
		all = append(all, pushCase{name: name, packets: [][]byte{packet}, untouched: true})
	}
	untouched("record route", udp(40, kit.Option(7, 4, 0, 0, 0, 0, 0, 0, 0, 0), kit.Option(1)))
	untouched("timestamp", udp(40, kit.Option(0x44, 5, 0, 0, 0, 0, 0)))
	return all
}

// asFrame is a packet behind any Ethernet header, for the kit's functions.
func asFrame(ip []byte) []byte { return ethernet(make([]byte, 6), make([]byte, 6), ip) }

// labelled sets a flow label.
func labelled(ip []byte, label uint32) []byte {
	binary.BigEndian.PutUint32(ip, binary.BigEndian.Uint32(ip)&^0xfffff|label)
	return ip
}
