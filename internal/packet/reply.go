package packet

import (
	"encoding/binary"

	"culvert/internal/drop"
)

// Replies that are made in place, from the request's own frame. Each takes the
// whole frame, contiguous, from its Ethernet header on, and validates what Parse
// does not; on a drop the frame is as it was. The Ethernet reply goes back to
// where the request came from. An 802.1Q tag stays.

// ARPReply makes an ARP request's frame the reply that its target is at mac. The
// caller has decided that the target is to be answered for. Requests from
// 0.0.0.0 probe for an address in use (RFC 5227 1.1), and those for the sender's
// own address announce it (RFC 5227 1.2): both are ignored. A sender address
// other than the frame's own is refused.
func ARPReply(b []byte, mac MAC) drop.Reason {
	l2 := EthernetLen
	if len(b) >= l2 && Ethernet(b).EtherType() == EtherTypeVLAN {
		l2 += VLANLen
	}
	if len(b) < l2+ARPLen || binary.BigEndian.Uint16(b[l2-2:]) != EtherTypeARP {
		return drop.ARPInvalid
	}
	e, h := Ethernet(b), ARP(b[l2:l2+ARPLen])
	sender, senderIP := h.SenderMAC(), h.SenderIP()
	if !h.Valid() || sender != e.Src() || sender.IsGroup() {
		return drop.ARPInvalid
	}
	if h.Op() != ARPRequest || senderIP.V4() == 0 || senderIP == h.TargetIP() {
		return drop.ARPIgnored
	}
	targetIP := h.TargetIP()
	e.SetDst(sender)
	e.SetSrc(mac)
	binary.BigEndian.PutUint16(h[arpOp:], ARPAnswer)
	copy(h[arpSenderMAC:], mac[:])
	copy(h[arpSenderIP:], targetIP[12:])
	copy(h[arpTargetMAC:], sender[:])
	copy(h[arpTargetIP:], senderIP[12:])
	return drop.None
}

// EchoReply4 makes an ICMP echo request's frame the reply (RFC 792, RFC 1122
// 3.2.2.6): addresses swapped, TTL 64, TOS kept as icmp_reply of
// net/ipv4/icmp.c does. It verifies the ICMP checksum.
func EchoReply4(b []byte, info *Info) drop.Reason {
	if !info.Has(V4|ICMPEcho) || info.Proto != ProtoICMP || info.ICMPType != ICMPEchoRequest || info.ICMPCode != 0 {
		return drop.ICMPIgnored
	}
	end := int(info.L3) + int(info.L3Len)
	if len(b) < end {
		return drop.ICMPIgnored // in several chunks
	}
	m := b[info.L4:end]
	if Sum(m, 0) != 0xffff {
		return drop.L4Checksum
	}
	Ethernet(b).swap()
	h := IPv4(b[info.L3:info.L4])
	src, dst := h.Src(), h.Dst()
	h.SetSrc(&dst)
	h.SetDst(&src)
	h.SetTTL(replyTTL)
	h.SetCheck()
	m[0] = ICMPEchoReply
	binary.BigEndian.PutUint16(m[2:], UpdateSum(ICMPv4(m).Check(), ICMPEchoRequest<<8, ICMPEchoReply<<8))
	return drop.None
}

// EchoReply6 makes an ICMPv6 echo request's frame the reply (RFC 4443 4.2).
func EchoReply6(b []byte, info *Info) drop.Reason {
	if !info.Has(V6|ICMPEcho) || info.Proto != ProtoICMPv6 || info.ICMPType != ICMP6EchoRequest || info.ICMPCode != 0 {
		return drop.ICMPIgnored
	}
	m, ok := icmp6Message(b, info)
	if !ok {
		return drop.ICMPIgnored // in several chunks
	}
	if !icmp6CheckOK(m, info) {
		return drop.L4Checksum
	}
	Ethernet(b).swap()
	h := IPv6(b[info.L3:])
	h.SetSrc(&info.Key.Dst)
	h.SetDst(&info.Key.Src)
	h.SetHopLimit(replyTTL)
	m[0] = ICMP6EchoReply
	binary.BigEndian.PutUint16(m[2:], UpdateSum(ICMPv6(m).Check(), ICMP6EchoRequest<<8, ICMP6EchoReply<<8))
	return drop.None
}

// icmp6Message is the ICMPv6 message of a contiguous frame.
func icmp6Message(b []byte, info *Info) ([]byte, bool) {
	end := int(info.L3) + int(info.L3Len)
	if info.L4 == 0 || len(b) < end {
		return nil, false
	}
	return b[info.L4:end], true
}

// icmp6CheckOK verifies an ICMPv6 checksum.
func icmp6CheckOK(m []byte, info *Info) bool {
	return Sum(m, PseudoSum6(&info.Key.Src, &info.Key.Dst, ProtoICMPv6, uint32(len(m)))) == 0xffff
}
