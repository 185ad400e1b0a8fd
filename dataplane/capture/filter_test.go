package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	mac1 = "02:00:00:00:00:01"
	mac2 = "02:00:00:00:00:02"
)

var testVXLAN = []uint16{4789}

func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// kinds are frames of all sorts by name.
func kinds(t testing.TB) map[string][]byte {
	inner := []kit.Layer{kit.Eth(mac2, mac1), kit.IP4("10.244.1.2", "10.244.2.3"), kit.TCP(40000, 80), kit.Payload(20)}
	return map[string][]byte{
		"tcp":  kit.Frame(t, kit.Eth(mac1, mac2), kit.IP4("10.0.0.1", "10.0.0.2"), kit.TCP(1234, 443)),
		"udp6": kit.Frame(t, kit.Eth(mac1, mac2), kit.IP6("fd00::1", "fd00::2"), kit.UDP(53, 5353), kit.Payload(4)),
		"vxlan": kit.Frame(t, append([]kit.Layer{kit.Eth(mac1, mac2), kit.IP4("192.168.0.1", "192.168.0.2"), kit.UDP(50000, 4789),
			kit.VXLANHeader(7)}, inner...)...),
		"vxlan6": kit.Frame(t, append([]kit.Layer{kit.Eth(mac1, mac2), kit.IP6("fd99::1", "fd99::2"), kit.UDP(50000, 4789),
			kit.VXLANHeader(7)}, inner...)...),
		"ipip":  kit.Frame(t, append([]kit.Layer{kit.Eth(mac1, mac2), kit.IP4("192.168.0.1", "192.168.0.2")}, inner[1:]...)...),
		"vlan":  kit.Frame(t, kit.Eth(mac1, mac2), kit.VLAN(5), kit.IP4("10.0.0.1", "10.0.0.2"), kit.UDP(1, 2)),
		"icmp":  kit.Frame(t, kit.Eth(mac1, mac2), kit.IP4("10.0.0.1", "10.0.0.2"), kit.ICMP4(8, 0, 1, 1)),
		"arp":   kit.Frame(t, kit.Eth(mac1, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(mac1, "10.0.0.1", "10.0.0.9")),
		"late":  kit.Frame(t, kit.Eth(mac1, mac2), kit.IP4("10.0.0.1", "10.0.0.2", kit.Fragment(8, true), kit.Proto(17)), kit.Bytes(0, 53, 0, 53, 0, 0, 0, 0)),
		"other": kit.Frame(t, kit.EthType(mac1, mac2, 0x88cc), kit.Payload(50)),
	}
}

func TestFilterSelects(t *testing.T) {
	all := kinds(t)
	for _, c := range []struct {
		name string
		m    Match
		want string // names, in the order of the alphabet
	}{
		{"nothing asked", Match{}, "arp icmp ipip late other tcp udp6 vlan vxlan vxlan6"},
		{"protocol tcp", Match{Proto: 6, ByProto: true}, "ipip tcp vxlan vxlan6"},
		{"protocol udp", Match{Proto: 17, ByProto: true}, "late udp6 vlan vxlan vxlan6"},
		{"protocol ipip", Match{Proto: 4, ByProto: true}, "ipip"},
		{"protocol hop-by-hop, which is 0", Match{ByProto: true}, ""},
		{"arp", Match{Proto: ProtoARP, ByProto: true}, "arp"},
		{"source", Match{Src: prefixOf("10.0.0.1/32")}, "arp icmp late tcp vlan"},
		{"destination prefix", Match{Dst: prefixOf("10.244.0.0/16")}, "ipip vxlan vxlan6"},
		{"either end", Match{Addr: prefixOf("10.0.0.9/32")}, "arp"},
		{"either end's prefix", Match{Addr: prefixOf("192.168.0.0/24")}, "ipip vxlan"},
		{"all of IPv4", Match{Src: prefixOf("0.0.0.0/0")}, "arp icmp ipip late tcp vlan vxlan vxlan6"},
		{"all of IPv6", Match{Src: prefixOf("::/0")}, "udp6 vxlan6"},
		{"IPv6 prefix", Match{Dst: prefixOf("fd00::/64")}, "udp6"},
		{"IPv6 address", Match{Addr: prefixOf("fd99::2/128")}, "vxlan6"},
		{"source port", Match{Sport: 53}, "udp6"},
		{"destination port inside", Match{Dport: 80}, "ipip vxlan vxlan6"},
		{"either port", Match{Port: 5353}, "udp6"},
		{"a fragment has no port", Match{Port: 53, Src: prefixOf("10.0.0.1/32")}, ""},
		{"outer address with inner port", Match{Src: prefixOf("192.168.0.1/32"), Dport: 80}, ""},
		{"everything", Match{Src: prefixOf("10.0.0.0/24"), Dst: prefixOf("10.0.0.2/32"), Addr: prefixOf("10.0.0.1/32"),
			Sport: 1234, Dport: 443, Port: 443, Proto: 6, ByProto: true}, "tcp"},
	} {
		f := NewFilter(&c.m)
		got := ""
		for _, name := range []string{"arp", "icmp", "ipip", "late", "other", "tcp", "udp6", "vlan", "vxlan", "vxlan6"} {
			if f.Match(all[name], testVXLAN) {
				got += " " + name
			}
		}
		if len(got) > 0 {
			got = got[1:]
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Another port's UDP is no tunnel.
func TestTunnelPort(t *testing.T) {
	f := NewFilter(&Match{Dport: 80})
	if b := kinds(t)["vxlan"]; f.Match(b, []uint16{8472}) || !f.Match(b, []uint16{8472, 4789}) {
		t.Error("the inside of VXLAN is looked at by its port")
	}
}

func TestFilterDoesNotAllocate(t *testing.T) {
	all := kinds(t)
	f := NewFilter(&Match{Addr: prefixOf("10.0.0.7/32"), Port: 5})
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range all {
			f.Match(b, testVXLAN)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever comes, in whatever pieces, the filter stays inside of it, and where gopacket
// finds an IPv4 or IPv6 packet with ports at once it finds the same.
func FuzzFilter(f *testing.F) {
	for _, b := range kinds(f) {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, cut := range []int{len(b), len(b) / 2} {
			checkWalk(t, b[:cut:cut])
		}
	})
}

func checkWalk(t *testing.T, b []byte) {
	var found [maxLayers]layer
	n := walk(b, testVXLAN, &found)
	for i := range n {
		l := &found[i]
		if l.l3 < packet.EthernetLen || l.l3 >= len(b) || l.l4 != 0 && (l.l4 <= l.l3 || l.l4+4 > len(b)) {
			t.Fatalf("packet %d at %d, %d of %d bytes", i, l.l3, l.l4, len(b))
		}
	}
	rec := Record{Data: append([]byte(nil), b...), Length: uint32(len(b))}
	rec.Settle(testVXLAN)
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	eth, ok := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if !ok || eth.EthernetType != layers.EthernetTypeIPv4 {
		return
	}
	ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ok || ip.Version != 4 || p.ErrorLayer() != nil {
		return
	}
	if n == 0 {
		t.Fatal("gopacket sees an IPv4 packet, the filter none")
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	if found[0].src != packet.AddrFrom(src) || found[0].proto != uint16(ip.Protocol) {
		t.Fatalf("%v protocol %d, gopacket has %v, %d", found[0].src, found[0].proto, src, ip.Protocol)
	}
	if ip.FragOffset == 0 && ip.Protocol == layers.IPProtocolTCP && len(ip.Payload) >= packet.TCPLen {
		if !found[0].ports || found[0].sport != binary.BigEndian.Uint16(ip.Payload) {
			t.Fatalf("source port %d, gopacket has %d", found[0].sport, binary.BigEndian.Uint16(ip.Payload))
		}
	}
}
