package pkttest

import (
	"bytes"
	"strings"
	"testing"
)

const (
	macA = "02:00:00:00:00:0a"
	macB = "02:00:00:00:00:0b"
)

// recorder stands in for a test that is expected to fail.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Log(...any)            {}
func (r *recorder) Error(...any)          { r.failed = true }
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(r) }

// fails reports whether a check fails its test.
func fails(check func(t testing.TB)) (failed bool) {
	r := &recorder{}
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
		failed = r.failed
	}()
	check(r)
	return r.failed
}

// Frame links layers, does not pad, and repeats exactly.
func TestFrame(t *testing.T) {
	build := func() []byte {
		return Frame(t, Eth(macA, macB), VLAN(5), IP4("10.0.0.1", "10.0.0.2"), UDP(1, 2))
	}
	want := []byte{2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 0x81, 0, 0, 5, 8, 0,
		0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 8, 0xeb, 0xd3}
	if f := build(); len(f) != len(want) || !bytes.Equal(f[:26], want[:26]) || !bytes.Equal(f, build()) {
		t.Errorf("got\n%swant\n%s", Dump(f), Dump(want))
	}
	if problem := CheckSums(build()); problem != "" {
		t.Error(problem)
	}
}

// A checker that never fails checks nothing: each want against a frame that
// differs in just that, and each kind of damage.
func TestCheckersFail(t *testing.T) {
	f := func() []byte {
		return Frame(t, Eth(macA, macB), IP4("10.0.0.1", "10.0.0.2", TTL(9), TOS(4), ID(7)), UDP(1, 2), Payload(10))
	}
	inner := Frame(t, Eth(macB, macA), IP4("10.1.0.1", "10.1.0.2"), ICMP4(8, 0, 1, 2), Payload(5))
	vx := func() []byte {
		return Frame(t, Eth(macA, macB), IP4("10.0.0.1", "10.0.0.2"), UDP(40000, 8472), VXLANHeader(7), Bytes(inner...))
	}
	ipip := Frame(t, Eth(macA, macB), IP4("10.0.0.1", "10.0.0.2", TTL(9)), IP4("10.1.0.1", "10.1.0.2"), UDP(1, 2))
	packet := func(f []byte, w ...Want) func(testing.TB) {
		return func(t testing.TB) { CheckPacket(t, f, w...) }
	}
	vxlan := func(f []byte, w ...Want) func(testing.TB) {
		return func(t testing.TB) { CheckVXLAN(t, f, w...) }
	}
	tests := []struct {
		name  string
		check func(testing.TB)
		fails bool
	}{
		{"all right", packet(f(), SrcMAC(macA), DstMAC(macB), Src("10.0.0.1"), Dst("10.0.0.2"), WithTTL(9), WithTOS(4), WithID(7), WithDF(false),
			WithProto(17), WithPorts(1, 2), WithPayload(Pattern(10)), WithFragment(0, false)), false},
		{"source MAC", packet(f(), SrcMAC(macB)), true},
		{"destination MAC", packet(f(), DstMAC(macA)), true},
		{"source", packet(f(), Src("10.0.0.9")), true},
		{"destination", packet(f(), Dst("10.0.0.9")), true},
		{"TTL", packet(f(), WithTTL(8)), true},
		{"TOS", packet(f(), WithTOS(5)), true},
		{"ID", packet(f(), WithID(8)), true},
		{"DF", packet(f(), WithDF(true)), true},
		{"protocol", packet(f(), WithProto(6)), true},
		{"ports", packet(f(), WithPorts(2, 1)), true},
		{"payload", packet(f(), WithPayload(Pattern(9))), true},
		{"fragment", packet(f(), WithFragment(8, false)), true},
		{"ICMP", packet(f(), WithICMP(8, 0)), true},
		{"ICMP right", packet(inner, WithICMP(8, 0)), false},
		{"outer of no tunnel", packet(f(), OuterSrc("10.0.0.1")), true},
		{"header checksum", packet(Corrupt(f(), 22, 8)), true},
		{"UDP checksum", packet(Corrupt(f(), 45, 0xee)), true},
		{"partial checksum", packet(SetPartial(f())), true},
		{"no UDP checksum", packet(ZeroL4Checksum(f())), false},
		{"no UDP checksum over IPv6", packet(ZeroL4Checksum(Frame(t, Eth(macA, macB), IP6("fd00::1", "fd00::2"), UDP(1, 2)))), true},
		{"cut short", packet(f()[:50]), true},
		{"padded", packet(Pad(f(), 9)), false},
		{"UDP length", packet(Corrupt(f(), 39, 99)), true},
		{"VXLAN right", vxlan(vx(), OuterSrc("10.0.0.1"), OuterDst("10.0.0.2"), OuterTTL(64), OuterTOS(0), OuterDF(false), OuterSrcMAC(macA), OuterDstMAC(macB),
			OuterPorts(40000, 8472), OuterDstPort(8472), VNI(7), Src("10.1.0.1"), SrcMAC(macB), WithICMP(8, 0)), false},
		{"VNI", vxlan(vx(), VNI(8)), true},
		{"outer port", vxlan(vx(), OuterDstPort(4789)), true},
		{"outer source", vxlan(vx(), OuterSrc("10.1.0.1")), true},
		{"VXLAN flags", vxlan(Corrupt(ZeroL4Checksum(vx()), 42, 0x88)), true},
		{"VXLAN reserved bits", vxlan(Corrupt(ZeroL4Checksum(vx()), 49, 1)), true},
		{"VXLAN source port", vxlan(Corrupt(ZeroL4Checksum(vx()), 34, 0, 9)), true},
		{"inner checksum", vxlan(Corrupt(ZeroL4Checksum(vx()), 50+14+8, 1)), true},
		{"VXLAN without UDP", vxlan(inner), true},
		{"VXLAN in a short datagram", vxlan(f()), true},
		{"IPIP right", func(t testing.TB) { CheckIPIP(t, ipip, OuterTTL(9), WithTTL(64), Src("10.1.0.1")) }, false},
		{"IPIP TTL", func(t testing.TB) { CheckIPIP(t, ipip, OuterTTL(8)) }, true},
		{"IPIP inner checksum", func(t testing.TB) { CheckIPIP(t, Corrupt(bytes.Clone(ipip), 34+8, 1)) }, true},
		{"IPIP of UDP", func(t testing.TB) { CheckIPIP(t, f()) }, true},
	}
	for _, tt := range tests {
		if got := fails(tt.check); got != tt.fails {
			t.Errorf("%s: fails %v, want %v", tt.name, got, tt.fails)
		}
	}
}

func TestFixIP4(t *testing.T) {
	f := Frame(t, Eth(macA, macB), IP4("10.0.0.1", "10.0.0.2"), UDP(1, 2))
	if problem := CheckSums(Corrupt(f, 22, 9)); !strings.Contains(problem, "IPv4 header checksum") {
		t.Errorf("%q", problem)
	}
	if problem := CheckSums(FixIP4(f)); problem != "" {
		t.Error(problem)
	}
}
