package packet

import (
	"encoding/binary"

	"culvert/internal/drop"
)

// Neighbour solicitation and advertisement (RFC 4861 4.3, 4.4), from the ICMPv6
// header on:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|S|O|                     Reserved                            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       Target Address (16 bytes)               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Options: type, length in units of 8 bytes, value            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	ndTarget       = 8
	ndOptions      = 24
	ndSourceMAC    = 1 // option: source link-layer address
	ndTargetMAC    = 2 // option: target link-layer address
	ndRouter       = 0x80
	ndSolicited    = 0x40
	ndOverride     = 0x20
	ndHopLimit     = 255
	ndMACOptionLen = 8
)

// NDTarget is the address that a neighbour solicitation asks for; ok is false
// when the frame is none, or a malformed one (RFC 4861 7.1.1).
func NDTarget(b []byte, info *Info) (target Addr, ok bool) {
	m, ok := solicitation(b, info)
	if !ok {
		return Addr{}, false
	}
	return Addr(m[ndTarget : ndTarget+16]), true
}

// NDReply makes a neighbour solicitation's frame the advertisement that its
// target is at mac, and returns the reply's length in bytes. The caller has
// decided that the target is to be answered for. A solicitation that is
// malformed, comes from afar or from :: (duplicate address detection: the
// gateway defends no address of a pod) is ignored.
//
// The option with the sender's MAC becomes that with the target's. A unicast
// solicitation may lack it: then the reply does, too (RFC 4861 7.2.4).
func NDReply(b []byte, info *Info, mac MAC) (n int, r drop.Reason) {
	m, ok := solicitation(b, info)
	if !ok || info.Key.Src.IsZero() {
		return 0, drop.NDIgnored
	}
	if !icmp6CheckOK(m, info) {
		return 0, drop.L4Checksum
	}
	var target = Addr(m[ndTarget : ndTarget+16])
	e := Ethernet(b)
	reply := ndOptions
	if ndHasSourceMAC(m[ndOptions:]) {
		reply += ndMACOptionLen
		o := m[ndOptions:reply]
		o[0], o[1] = ndTargetMAC, 1
		copy(o[2:], mac[:])
	}
	m = m[:reply]
	e.SetDst(e.Src())
	e.SetSrc(mac)
	h := IPv6(b[info.L3:])
	h.SetPayloadLen(reply)
	h[ip6NextHeader] = ProtoICMPv6
	h.SetHopLimit(ndHopLimit)
	h.SetSrc(&target)
	h.SetDst(&info.Key.Src)
	m[0], m[1], m[2], m[3] = ICMP6NeighbourAdv, 0, 0, 0
	// The gateway forwards, is asked, and knows best: as ndisc_send_na does
	// for an address of a router's own (net/ipv6/ndisc.c).
	binary.BigEndian.PutUint32(m[4:], (ndRouter|ndSolicited|ndOverride)<<24)
	binary.BigEndian.PutUint16(m[2:], Checksum(m, PseudoSum6(&target, &info.Key.Src, ProtoICMPv6, uint32(reply))))
	return int(info.L4) + reply, drop.None
}

// solicitation is the message of a valid neighbour solicitation: RFC 4861 7.1.1
// but for the checksum. Extension headers are not accepted.
func solicitation(b []byte, info *Info) ([]byte, bool) {
	m, ok := icmp6Message(b, info)
	if !ok || !info.Has(V6) || info.Proto != ProtoICMPv6 || info.ICMPType != ICMP6NeighbourSol || info.ICMPCode != 0 ||
		info.TTL != ndHopLimit || info.Flags&(Options|Fragment) != 0 ||
		len(m) < ndOptions || m[ndTarget] == 0xff {
		return nil, false
	}
	for opts := m[ndOptions:]; len(opts) > 0; {
		if len(opts) < 8 || opts[1] == 0 || int(opts[1])*8 > len(opts) {
			return nil, false
		}
		opts = opts[int(opts[1])*8:]
	}
	return m, true
}

// ndHasSourceMAC reports whether valid options hold a source link-layer address.
func ndHasSourceMAC(opts []byte) bool {
	for ; len(opts) > 0; opts = opts[int(opts[1])*8:] {
		if opts[0] == ndSourceMAC && opts[1] == 1 {
			return true
		}
	}
	return false
}
