package packet

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// Addr is an IP address in network byte order. An IPv4 address a.b.c.d is
// ::ffff:a.b.c.d; Parse refuses IPv6 packets that carry such an address, so the
// two families never meet. The zero Addr is ::, which stands for none.
type Addr [16]byte

// v4mapped is bytes 8 to 11 of an IPv4 address, read little-endian.
const v4mapped = 0xffff_0000

// AddrFrom converts a. The zone is lost; the invalid address becomes ::.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return Addr(a.As16())
}

// AddrFrom4 is the IPv4 address whose big-endian value is v.
func AddrFrom4(v uint32) (a Addr) {
	a.SetV4(v)
	return a
}

// SetV4 makes a the IPv4 address whose big-endian value is v.
func (a *Addr) SetV4(v uint32) { a.setV4(bits.ReverseBytes32(v)) }

// Is4 reports whether a is an IPv4 address.
func (a *Addr) Is4() bool {
	return binary.LittleEndian.Uint64(a[:8]) == 0 && binary.LittleEndian.Uint32(a[8:12]) == v4mapped
}

// IsZero reports whether a is ::, no address.
func (a *Addr) IsZero() bool { return *a == Addr{} }

// IsLinkLocal reports whether a is an IPv6 link-local address, fe80::/10 (RFC 4291
// 2.5.6).
func (a *Addr) IsLinkLocal() bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

// V4 is the big-endian value of an IPv4 address.
func (a *Addr) V4() uint32 { return binary.BigEndian.Uint32(a[12:]) }

// Fold is a as 32 bits: the big-endian value of an IPv4 address, the exclusive
// or of the four words of an IPv6 address.
func (a *Addr) Fold() uint32 {
	v := binary.BigEndian.Uint32(a[12:])
	if a.Is4() {
		return v
	}
	return v ^ binary.BigEndian.Uint32(a[8:]) ^ binary.BigEndian.Uint32(a[4:]) ^ binary.BigEndian.Uint32(a[:])
}

// Netip is a as the standard library has it; IPv4 addresses are unmapped.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// String is a in text form.
func (a Addr) String() string { return a.Netip().String() }

// setV4 stores an IPv4 address whose four bytes were read little-endian.
func (a *Addr) setV4(le uint32) {
	binary.LittleEndian.PutUint64(a[:8], 0)
	binary.LittleEndian.PutUint64(a[8:], uint64(le)<<32|v4mapped)
}

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is the address of every station.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// IsGroup reports whether m is a multicast or the broadcast address.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsZero reports whether m is 00:00:00:00:00:00, no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// String is m as six hexadecimal bytes with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText writes m as String does.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMAC reads.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMAC(string(text))
	return err
}

// ParseMAC reads six hexadecimal bytes with colons or dashes between them.
func ParseMAC(s string) (m MAC, err error) {
	parts := strings.Split(strings.ReplaceAll(s, "-", ":"), ":")
	if len(parts) != len(m) {
		return MAC{}, fmt.Errorf("MAC address %q: want six hexadecimal bytes such as 0a:58:0a:01:00:01", s)
	}
	for i, p := range parts {
		b, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) != 2 {
			return MAC{}, fmt.Errorf("MAC address %q: %q is no hexadecimal byte of two digits", s, p)
		}
		m[i] = byte(b)
	}
	return m, nil
}
