package xsk

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Verdicts of the kernel (enum xdp_action).
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// steering is a loaded program with one socket at queue 0, to be run on packets
// by BPF_PROG_TEST_RUN, whose frames arrive at queue 0.
func steering(t *testing.T, program string) (*Attachment, *ebpf.Program) {
	t.Helper()
	coll, err := load(program, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	a := &Attachment{name: "test", sockets: coll.Maps[steerMapSockets], endpoints: coll.Maps[steerMapEndpoints]}
	if program == steerProgSteerUplink {
		a.prefixes = NewPrefixes(coll)
	}
	return a, coll.Programs[program]
}

func run(t *testing.T, p *ebpf.Program, packet []byte) uint32 {
	t.Helper()
	verdict, err := p.Run(&ebpf.RunOptions{Data: packet})
	if err != nil {
		t.Fatalf("running the program: %v", err)
	}
	return verdict
}

// anySocket opens a socket of a device that exists for this only.
func anySocket(t *testing.T) *Socket {
	t.Helper()
	r := newRig(t, 4096)
	p := r.addVeth()
	r.node.Do(t, func() {
		var err error
		p.sock, err = r.umem.Open(SocketConfig{Ifindex: ifindex(t, p.name), Ifname: p.name, RingSize: 64})
		if err != nil {
			t.Fatal(err)
		}
	})
	return p.sock
}

const (
	ours4addr = "192.0.2.1"
	ours6addr = "2001:db8::1"
	oursPort  = 8472
)

var ourEndpoints = []Endpoint{
	{netip.MustParseAddr(ours4addr), oursPort},
	{netip.MustParseAddr(ours6addr), oursPort},
}

func ether(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: t}
}

func tag(id uint16, t layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: id, Type: t}
}

// ip4 is an IPv4 header to dst, changed by edit.
func ip4(dst string, proto layers.IPProtocol, edit func(*layers.IPv4)) *layers.IPv4 {
	h := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: proto, SrcIP: net.ParseIP("192.0.2.9").To4(), DstIP: net.ParseIP(dst).To4()}
	if edit != nil {
		edit(h)
	}
	return h
}

func ip6(dst string, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP("2001:db8::9"), DstIP: net.ParseIP(dst)}
}

func udp(port uint16) *layers.UDP {
	return &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(port)}
}

func build(t *testing.T, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	ls = append(ls, gopacket.Payload("0123456789abcdef0123456789abcdef"))
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSteerUplink(t *testing.T) {
	const v4, v6, q, ad = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ
	const udpProto = layers.IPProtocolUDP
	options := func(h *layers.IPv4) {
		h.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	}
	type stack = []gopacket.SerializableLayer
	tests := []struct {
		name   string
		layers stack
		want   uint32
	}{
		{"IPv4", stack{ether(v4), ip4(ours4addr, udpProto, nil), udp(oursPort)}, xdpRedirect},
		{"IPv6", stack{ether(v6), ip6(ours6addr, udpProto), udp(oursPort)}, xdpRedirect},
		{"IPv4 with options", stack{ether(v4), ip4(ours4addr, udpProto, options), udp(oursPort)}, xdpRedirect},
		{"IPv4 with DF", stack{ether(v4), ip4(ours4addr, udpProto, func(h *layers.IPv4) { h.Flags = layers.IPv4DontFragment }), udp(oursPort)}, xdpRedirect},
		{"one tag", stack{ether(q), tag(7, v4), ip4(ours4addr, udpProto, nil), udp(oursPort)}, xdpRedirect},
		{"one tag, IPv6", stack{ether(q), tag(7, v6), ip6(ours6addr, udpProto), udp(oursPort)}, xdpRedirect},
		{"two tags", stack{ether(ad), tag(7, q), tag(8, v4), ip4(ours4addr, udpProto, nil), udp(oursPort)}, xdpRedirect},
		{"two tags, options", stack{ether(q), tag(7, q), tag(8, v4), ip4(ours4addr, udpProto, options), udp(oursPort)}, xdpRedirect},

		{"three tags", stack{ether(q), tag(7, q), tag(8, q), tag(9, v4), ip4(ours4addr, udpProto, nil), udp(oursPort)}, xdpPass},
		{"another port", stack{ether(v4), ip4(ours4addr, udpProto, nil), udp(4789)}, xdpPass},
		{"another address", stack{ether(v4), ip4("192.0.2.2", udpProto, nil), udp(oursPort)}, xdpPass},
		{"another IPv6 address", stack{ether(v6), ip6("2001:db8::2", udpProto), udp(oursPort)}, xdpPass},
		{"TCP to the port", stack{ether(v4), ip4(ours4addr, layers.IPProtocolTCP, nil), &layers.TCP{DstPort: oursPort}}, xdpPass},
		{"ICMP", stack{ether(v4), ip4(ours4addr, layers.IPProtocolICMPv4, nil), &layers.ICMPv4{TypeCode: 8 << 8}}, xdpPass},
		{"first fragment", stack{ether(v4), ip4(ours4addr, udpProto, func(h *layers.IPv4) { h.Flags = layers.IPv4MoreFragments }), udp(oursPort)}, xdpPass},
		{"later fragment", stack{ether(v4), ip4(ours4addr, udpProto, func(h *layers.IPv4) { h.FragOffset = 185 }), udp(oursPort)}, xdpPass},
		{"IPv6 fragment", stack{ether(v6), ip6(ours6addr, layers.IPProtocolIPv6Fragment), gopacket.Payload{17, 0, 0, 1, 0, 0, 0, 1}, udp(oursPort)}, xdpPass},
		{"ARP", stack{ether(layers.EthernetTypeARP)}, xdpPass},
		{"IPv4 that says 6", stack{ether(v4), ip4(ours4addr, udpProto, func(h *layers.IPv4) { h.Version = 6 }), udp(oursPort)}, xdpPass},
	}
	a, prog := steering(t, steerProgSteerUplink)
	if err := a.SetEndpoints(ourEndpoints); err != nil {
		t.Fatal(err)
	}
	whole := build(t, tests[0].layers...)
	if got := run(t, prog, whole); got != xdpPass {
		t.Errorf("without a socket: verdict %d, want pass", got)
	}
	if err := a.SetSocket(0, anySocket(t)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if got := run(t, prog, build(t, tt.layers...)); got != tt.want {
			t.Errorf("%s: verdict %d, want %d", tt.name, got, tt.want)
		}
	}
	for _, versionIHL := range []byte{0x44, 0x40, 0x55} { // shorter than a header, or not IPv4
		bad := append([]byte(nil), whole...)
		bad[14] = versionIHL
		if got := run(t, prog, bad); got != xdpPass {
			t.Errorf("version and IHL %#x: verdict %d, want pass", versionIHL, got)
		}
	}
	for _, tt := range tests[:8] { // cut anywhere: never a fault, and taken only with its UDP header
		packet := build(t, tt.layers...)
		for n := 14; n < len(packet)-32; n++ { // 14: the least the kernel takes
			if got := run(t, prog, packet[:n]); got != xdpPass {
				t.Errorf("%s cut to %d bytes: verdict %d, want pass", tt.name, n, got)
			}
		}
	}

	// The set of endpoints changes as a whole; a socket that is withdrawn no longer gets anything.
	if err := a.SetEndpoints(ourEndpoints[1:]); err != nil {
		t.Fatal(err)
	}
	if got := run(t, prog, whole); got != xdpPass {
		t.Errorf("after the endpoint was removed: verdict %d, want pass", got)
	}
	if err := a.SetEndpoints(ourEndpoints); err != nil {
		t.Fatal(err)
	}
	if got := run(t, prog, whole); got != xdpRedirect {
		t.Errorf("after the endpoint came back: verdict %d, want redirect", got)
	}
	for range 2 {
		if err := a.SetSocket(0, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := run(t, prog, whole); got != xdpPass {
		t.Errorf("after the socket was withdrawn: verdict %d, want pass", got)
	}
	if err := a.SetSocket(1, anySocket(t)); err == nil {
		t.Error("a queue beyond the device's was steered")
	}
}

func TestSteerPod(t *testing.T) {
	a, prog := steering(t, steerProgSteerPod)
	packet := build(t, ether(layers.EthernetTypeARP))
	if got := run(t, prog, packet); got != xdpDrop {
		t.Errorf("without a socket: verdict %d, want drop", got)
	}
	if err := a.SetSocket(0, anySocket(t)); err != nil {
		t.Fatal(err)
	}
	if got := run(t, prog, packet); got != xdpRedirect {
		t.Errorf("with a socket: verdict %d, want redirect", got)
	}
	if err := a.SetEndpoints(ourEndpoints); err == nil {
		t.Error("a pod's program accepted endpoints")
	}
}

// The uplink program on a real device: our datagrams go to the socket and the
// kernel has the rest.
func TestUplinkTakesOnlyOurs(t *testing.T) {
	r := newRig(t, 4096)
	p := r.addVeth()
	r.node.AddAddr(t, p.name, "10.0.0.100/24")
	r.node.Do(t, func() {
		index := ifindex(t, p.name)
		var err error
		p.attach, err = AttachUplink(index, p.name, ModeNative, []Endpoint{{netip.MustParseAddr("10.0.0.100"), oursPort}})
		if err != nil {
			t.Fatal(err)
		}
		p.sock, err = r.umem.Open(SocketConfig{Ifindex: index, Ifname: p.name, RingSize: 64, SG: true})
		if err != nil {
			t.Fatal(err)
		}
	})
	r.start(p)
	p.pod.MustPing(t, "10.0.0.100")
	stop := flood(t, p.pod, "10.0.0.100:8472")
	got := receiveSome(t, r, p.sock, 50)
	stop()
	if want := 14 + 20 + 8 + 100; got != want {
		t.Errorf("a frame of %d bytes arrived, want %d", got, want)
	}
	transfer(t, p.pod, r.node, "10.0.0.100", 1<<18)
}

// IPIP to an address that has it for an endpoint is taken, and nothing else to that
// address: no UDP to port 0 either, under whose key it is kept.
func TestSteerIPIP(t *testing.T) {
	const v4, q = layers.EthernetTypeIPv4, layers.EthernetTypeDot1Q
	const ipip, six, udpProto = layers.IPProtocolIPv4, layers.IPProtocolIPv6, layers.IPProtocolUDP
	inner := ip4("10.244.1.2", udpProto, nil)
	a, prog := steering(t, steerProgSteerUplink)
	if err := errors.Join(a.SetEndpoints([]Endpoint{{Addr: netip.MustParseAddr(ours4addr)}}), a.SetSocket(0, anySocket(t))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		layers []gopacket.SerializableLayer
		want   uint32
	}{
		{"IPIP", []gopacket.SerializableLayer{ether(v4), ip4(ours4addr, ipip, nil), inner}, xdpRedirect},
		{"IPIP in a VLAN", []gopacket.SerializableLayer{ether(q), tag(7, v4), ip4(ours4addr, ipip, nil), inner}, xdpRedirect},
		{"to another address", []gopacket.SerializableLayer{ether(v4), ip4("192.0.2.2", ipip, nil), inner}, xdpPass},
		{"a fragment", []gopacket.SerializableLayer{ether(v4), ip4(ours4addr, ipip, func(h *layers.IPv4) { h.Flags = layers.IPv4MoreFragments }), inner}, xdpPass},
		{"IPv6 in IPv4", []gopacket.SerializableLayer{ether(v4), ip4(ours4addr, six, nil), ip6("fd00::1", udpProto)}, xdpPass},
		{"UDP to port 0", []gopacket.SerializableLayer{ether(v4), ip4(ours4addr, udpProto, nil), udp(0)}, xdpPass},
		{"UDP", []gopacket.SerializableLayer{ether(v4), ip4(ours4addr, udpProto, nil), udp(oursPort)}, xdpPass},
		{"TCP", []gopacket.SerializableLayer{ether(v4), ip4(ours4addr, layers.IPProtocolTCP, nil), &layers.TCP{DstPort: 80}}, xdpPass},
	} {
		if got := run(t, prog, build(t, c.layers...)); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
	}
	if err := a.SetEndpoints(nil); err != nil {
		t.Fatal(err)
	}
	if got := run(t, prog, build(t, ether(v4), ip4(ours4addr, ipip, nil), inner)); got != xdpPass {
		t.Errorf("after the endpoint was removed: verdict %d, want pass", got)
	}
}

// What is for a pods' prefix is taken whatever it is, fragments too, and nothing else;
// without prefixes nothing is.
func TestSteerPrefixes(t *testing.T) {
	const v4, v6, q, ad = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ
	const udpProto, tcpProto = layers.IPProtocolUDP, layers.IPProtocolTCP
	tcp := &layers.TCP{DstPort: 80}
	type stack = []gopacket.SerializableLayer
	tests := []struct {
		name   string
		layers stack
		want   uint32
	}{
		{"TCP", stack{ether(v4), ip4("10.244.1.2", tcpProto, nil), tcp}, xdpRedirect},
		{"UDP", stack{ether(v4), ip4("10.244.1.255", udpProto, nil), udp(oursPort)}, xdpRedirect},
		{"ICMP in a VLAN", stack{ether(q), tag(7, v4), ip4("10.244.1.0", layers.IPProtocolICMPv4, nil), &layers.ICMPv4{TypeCode: 8 << 8}}, xdpRedirect},
		{"two tags, IPv6", stack{ether(ad), tag(7, q), tag(8, v6), ip6("fd00:1::9", tcpProto), tcp}, xdpRedirect},
		{"a fragment", stack{ether(v4), ip4("10.244.1.2", udpProto, func(h *layers.IPv4) { h.FragOffset = 185 })}, xdpRedirect},
		{"an IPv6 fragment", stack{ether(v6), ip6("fd00:1::9", layers.IPProtocolIPv6Fragment), gopacket.Payload{17, 0, 0, 1, 0, 0, 0, 1}}, xdpRedirect},
		{"IPIP for a pod", stack{ether(v4), ip4("10.244.1.2", layers.IPProtocolIPv4, nil), ip4("10.244.1.2", tcpProto, nil), tcp}, xdpRedirect},
		{"an endpoint", stack{ether(v4), ip4(ours4addr, udpProto, nil), udp(oursPort)}, xdpRedirect},

		{"the next prefix", stack{ether(v4), ip4("10.244.2.0", tcpProto, nil), tcp}, xdpPass},
		{"the next IPv6 prefix", stack{ether(v6), ip6("fd00:1:0:1::", tcpProto), tcp}, xdpPass},
		{"IPv4 inside IPv6's", stack{ether(v6), ip6("::10.244.1.2", tcpProto), tcp}, xdpPass},
		{"the node itself", stack{ether(v4), ip4(ours4addr, tcpProto, nil), tcp}, xdpPass},
		{"ARP", stack{ether(layers.EthernetTypeARP)}, xdpPass},
		{"three tags", stack{ether(q), tag(7, q), tag(8, q), tag(9, v4), ip4("10.244.1.2", tcpProto, nil), tcp}, xdpPass},
	}
	a, prog := steering(t, steerProgSteerUplink)
	if err := errors.Join(a.SetEndpoints(ourEndpoints), a.SetSocket(0, anySocket(t))); err != nil {
		t.Fatal(err)
	}
	set := func(prefixes ...string) {
		t.Helper()
		var all []netip.Prefix
		for _, p := range prefixes {
			all = append(all, netip.MustParsePrefix(p))
		}
		if err := a.SetPrefixes(all); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want func(i int) uint32) {
		t.Helper()
		for i, c := range tests {
			if got := run(t, prog, build(t, c.layers...)); got != want(i) {
				t.Errorf("%s, %s: verdict %d, want %d", when, c.name, got, want(i))
			}
		}
	}
	set("10.244.1.0/24", "fd00:1::/64")
	check("with prefixes", func(i int) uint32 { return tests[i].want })
	for n := 14; n < 34; n++ { // cut inside the IP header: never a fault
		if got := run(t, prog, build(t, tests[0].layers...)[:n]); got != xdpPass {
			t.Errorf("cut to %d bytes: verdict %d, want pass", n, got)
		}
	}
	set("10.244.2.0/24", "10.244.1.0/24")
	set("10.244.2.0/24")
	if got := run(t, prog, build(t, tests[8].layers...)); got != xdpRedirect {
		t.Errorf("a prefix that was added: verdict %d, want redirect", got)
	}
	if got := run(t, prog, build(t, tests[0].layers...)); got != xdpPass {
		t.Errorf("a prefix that was removed: verdict %d, want pass", got)
	}
	set()
	check("without prefixes", func(i int) uint32 {
		if tests[i].name == "an endpoint" {
			return xdpRedirect
		}
		return xdpPass
	})
	pod, _ := steering(t, steerProgSteerPod)
	if err := pod.SetPrefixes(nil); err == nil {
		t.Error("a pod's program accepted prefixes")
	}
}
