package packet

import "encoding/binary"

// Translate makes the packet in frame b, which Parse found info in, one of key to: the
// addresses, and the ports or the identifier of an echo where the packet has them. The
// checksums that cover them follow by their difference (RFC 1624), full or partial; a
// wrong one stays wrong. Of SCTP packets, whose CRC covers the ports and cannot follow, the
// checksum is left empty, and EmptyCRC is set, if the ports change. info.Key stays as it is.
//
// b holds the headers. A packet that is no fragment but the first has ports to change.
func Translate(b []byte, info *Info, to *Key) {
	var d delta
	if info.Flags&V4 != 0 {
		h := IPv4(b[info.L3:])
		d.address4(h[12:16], &to.Src)
		d.address4(h[16:20], &to.Dst)
		check := binary.BigEndian.Uint16(h[10:])
		binary.BigEndian.PutUint16(h[10:], d.apply(check))
	} else {
		h := b[info.L3:]
		d.address6(h[8:24], &to.Src)
		d.address6(h[24:40], &to.Dst)
	}
	if info.L4 == 0 {
		return
	}
	translateL4(b[info.L4:], info, to, d)
}

// translateL4 changes the transport header, which begins h; d is what the pseudo-header
// has changed by.
func translateL4(h []byte, info *Info, to *Key, d delta) {
	partial := info.Flags&Partial != 0
	switch info.Proto {
	case ProtoTCP, ProtoUDP:
		at, _ := ChecksumOffset(info.Proto)
		if partial { // it covers the pseudo-header alone, and is not inverted
			check := binary.BigEndian.Uint16(h[at:])
			binary.BigEndian.PutUint16(h[at:], ^d.apply(^check))
		}
		d.word(h, to.SrcPort)
		d.word(h[2:], to.DstPort)
		if !partial && info.Flags&NoChecksum == 0 {
			check := d.apply(binary.BigEndian.Uint16(h[at:]))
			if check == 0 && info.Proto == ProtoUDP {
				check = 0xffff // 0 means no checksum (RFC 768)
			}
			binary.BigEndian.PutUint16(h[at:], check)
		}
	case ProtoSCTP:
		var ports delta
		ports.word(h, to.SrcPort)
		ports.word(h[2:], to.DstPort)
		if ports.changed {
			SCTP(h).SetCheck(0)
			info.Flags |= EmptyCRC
		}
	case ProtoICMP, ProtoICMPv6:
		if (info.Proto == ProtoICMP) != (info.Flags&V4 != 0) {
			return // the other family's: nobody reads it, and it may have no header
		}
		if info.Proto == ProtoICMP {
			d = delta{} // ICMP has no pseudo-header, ICMPv6 has (RFC 4443 2.3)
		}
		if info.Flags&ICMPEcho != 0 {
			d.word(h[4:], to.SrcPort)
		}
		check := binary.BigEndian.Uint16(h[2:])
		binary.BigEndian.PutUint16(h[2:], d.apply(check))
	}
}

// delta sums up changes of 16-bit words that a checksum covers.
type delta struct {
	sum     uint32
	changed bool
}

// word replaces the first word of b.
func (d *delta) word(b []byte, to uint16) {
	from := binary.BigEndian.Uint16(b)
	if from == to {
		return
	}
	d.sum += uint32(^from) + uint32(to)
	d.changed = true
	binary.BigEndian.PutUint16(b, to)
}

func (d *delta) address4(b []byte, to *Addr) {
	d.word(b, binary.BigEndian.Uint16(to[12:]))
	d.word(b[2:], binary.BigEndian.Uint16(to[14:]))
}

func (d *delta) address6(b []byte, to *Addr) {
	for i := 0; i < 16; i += 2 {
		d.word(b[i:], binary.BigEndian.Uint16(to[i:]))
	}
}

// apply is a checksum after the changes: equation 3 of RFC 1624.
func (d *delta) apply(check uint16) uint16 {
	if !d.changed {
		return check
	}
	return ^Fold(uint32(^check) + d.sum)
}

// TranslateError makes an ICMP error of another receiver or sender: its source and
// destination, and those of the packet that it quotes, which Quote has said is of a
// flow. quoted is the key that the quoted packet gets; its checksums follow as far as they are
// quoted, and the error's own is made anew, which is right if it was before. b holds the
// whole error. info.Key follows.
//
// That is what RFC 5508 4 asks of address translators (inet_proto_csum_replace and
// nf_nat_icmp_reply_translation of Linux).
func TranslateError(b []byte, info *Info, src, dst *Addr, quoted *Key) {
	end := int(info.L3) + int(info.L3Len)
	b = b[:end]
	before := errorSum(b, info)
	translateQuote(b[info.Payload:], quoted)
	to := Key{Src: *src, Dst: *dst}
	var d delta
	if info.Flags&V4 != 0 {
		h := IPv4(b[info.L3:])
		d.address4(h[12:16], &to.Src)
		d.address4(h[16:20], &to.Dst)
		check := binary.BigEndian.Uint16(h[10:])
		binary.BigEndian.PutUint16(h[10:], d.apply(check))
	} else {
		h := b[info.L3:]
		d.address6(h[8:24], &to.Src)
		d.address6(h[24:40], &to.Dst)
	}
	info.Key.Src, info.Key.Dst = *src, *dst
	// By the difference of the sums, so that a wrong checksum stays wrong.
	after := errorSum(b, info)
	check := b[info.L4+2:]
	binary.BigEndian.PutUint16(check, UpdateSum(binary.BigEndian.Uint16(check), before, after))
}

// errorSum is the sum of what an ICMP error's checksum covers, the checksum itself excepted.
func errorSum(b []byte, info *Info) uint16 {
	sum := uint32(0)
	if info.Flags&V6 != 0 {
		h := IPv6(b[info.L3:])
		src, dst := h.Src(), h.Dst()
		sum = PseudoSum6(&src, &dst, ProtoICMPv6, uint32(len(b)-int(info.L4)))
	}
	own := b[info.L4:]
	return Fold(Sum(own[4:], sum+uint32(binary.BigEndian.Uint16(own))))
}

// translateQuote makes the quoted packet p one of key to. ParseQuote has read it.
func translateQuote(p []byte, to *Key) {
	var info Info
	if to.Family == 4 {
		h := IPv4(p)
		info = Info{Flags: V4, Proto: h.Proto(), L4: uint16(h.HeaderLen())}
		if h.Frag()&IPv4OffsetMask != 0 {
			info.L4 = 0
		}
	} else {
		info = Info{Flags: V6, Proto: IPv6(p).NextHeader()}
		l4, frag, _ := extensions6(p, IPv6Len, &info)
		if info.L4 = uint16(l4); frag != notFragment && frag>>3 != 0 {
			info.L4 = 0
		}
	}
	if info.L4 != 0 {
		if at, ok := ChecksumOffset(info.Proto); ok && int(info.L4)+at+2 > len(p) {
			// The checksum is not quoted: nothing to keep right but the ports.
			var ports delta
			ports.word(p[info.L4:], to.SrcPort)
			ports.word(p[info.L4+2:], to.DstPort)
			info.L4 = 0
		} else if info.Proto == ProtoICMP || info.Proto == ProtoICMPv6 {
			info.Flags |= ICMPEcho
		} else if info.Proto == ProtoUDP && binary.BigEndian.Uint16(p[int(info.L4)+at:]) == 0 {
			info.Flags |= NoChecksum
		} else if info.Proto == ProtoSCTP {
			var ports delta
			ports.word(p[info.L4:], to.SrcPort)
			ports.word(p[info.L4+2:], to.DstPort)
			info.L4 = 0 // a CRC of a packet of which most is missing: nobody checks it
		}
	}
	Translate(p, &info, to)
}
