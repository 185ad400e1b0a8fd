package capture

import (
	"encoding/binary"
	"net/netip"

	"culvert/internal/packet"
)

// Filter selects frames by what is in them; a zero field selects all. A tunnel packet
// is selected by its outer headers or by those inside, but not by some of each.
// Fragments other than the first have no ports. Make it with NewFilter.
type Filter struct {
	src, dst, addr      prefix
	sport, dport, tport uint16
	proto               uint16
	byProto, all        bool
}

// Match is what a Filter is made of. Addr is either end's address, Port either end's
// port of TCP, UDP or SCTP.
type Match struct {
	Src, Dst, Addr     netip.Prefix
	Sport, Dport, Port uint16
	// Proto is an IP protocol's number or ProtoARP, if ByProto is set.
	Proto   uint16
	ByProto bool
}

// NewFilter compiles m.
func NewFilter(m *Match) Filter {
	return Filter{
		src: newPrefix(m.Src), dst: newPrefix(m.Dst), addr: newPrefix(m.Addr),
		sport: m.Sport, dport: m.Dport, tport: m.Port, proto: m.Proto, byProto: m.ByProto,
		all: *m == Match{},
	}
}

// prefix is an address prefix as a mask over 16 bytes. The zero value has all addresses.
type prefix struct {
	hi, lo, maskHi, maskLo uint64
	only6                  bool // an IPv6 prefix shorter than that of the mapped IPv4 addresses
}

func newPrefix(p netip.Prefix) (out prefix) {
	if !p.IsValid() {
		return prefix{}
	}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	} else {
		out.only6 = true
	}
	out.maskHi, out.maskLo = ^uint64(0), ^uint64(0)
	if bits <= 64 {
		out.maskHi, out.maskLo = ^(^uint64(0) >> bits), 0 // a shift by 64 leaves nothing
	} else {
		out.maskLo = ^(^uint64(0) >> (bits - 64))
	}
	a := p.Addr().As16()
	out.hi, out.lo = binary.BigEndian.Uint64(a[:])&out.maskHi, binary.BigEndian.Uint64(a[8:])&out.maskLo
	return out
}

func (p *prefix) has(a *packet.Addr) bool {
	return binary.BigEndian.Uint64(a[:])&p.maskHi == p.hi && binary.BigEndian.Uint64(a[8:])&p.maskLo == p.lo &&
		!(p.only6 && a.Is4())
}

// Match reports whether the filter selects the frame whose first bytes are b. vxlan
// are the UDP ports of tunnels.
func (f *Filter) Match(b []byte, vxlan []uint16) bool {
	if f.all {
		return true
	}
	var layers [maxLayers]layer
	n := walk(b, vxlan, &layers)
	for i := range n {
		if f.matchLayer(&layers[i]) {
			return true
		}
	}
	return false
}

func (f *Filter) matchLayer(l *layer) bool {
	switch {
	case f.byProto && l.proto != f.proto,
		!f.src.has(&l.src), !f.dst.has(&l.dst), !f.addr.has(&l.src) && !f.addr.has(&l.dst):
		return false
	case f.sport|f.dport|f.tport == 0:
		return true
	case !l.ports:
		return false
	}
	return (f.sport == 0 || f.sport == l.sport) && (f.dport == 0 || f.dport == l.dport) &&
		(f.tport == 0 || f.tport == l.sport || f.tport == l.dport)
}
