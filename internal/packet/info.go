package packet

// Flags of an Info.
type Flags uint16

const (
	// V4 and V6: the frame carries a valid IPv4 or IPv6 packet.
	V4 Flags = 1 << iota
	V6
	// Fragment is set on any fragment, FirstFragment on the one at offset 0.
	Fragment
	FirstFragment
	// DF is the don't-fragment bit; IPv6 packets always have it.
	DF
	// Partial: the TCP or UDP checksum field holds the folded pseudo-header
	// sum, not inverted: the sender left the rest to a device.
	Partial
	// NoChecksum: the UDP checksum field is 0.
	NoChecksum
	// Options: IPv4 options, or IPv6 extension headers other than Fragment.
	Options
	// ICMPError and ICMPEcho: an ICMP or ICMPv6 error; an echo request or reply
	// that is no fragment.
	ICMPError
	ICMPEcho
	// Trackable: a flow can be kept for the packet's Key. ICMP errors and
	// ICMP queries other than echo have none.
	Trackable
	// EmptyCRC: the SCTP checksum field is 0: the sender left the CRC32c to a
	// device (net/sctp/output.c, sctp_packet_pack, with NETIF_F_SCTP_CRC).
	EmptyCRC
)

// Info is what Parse found in one frame: a cache line. Offsets are in bytes from
// the frame's first byte, as it was when it was parsed.
type Info struct {
	Key Key
	// L3 is the offset of the IP or ARP header, L4 that of the transport
	// header, Payload that of the data behind it. L4 is 0 where there is no
	// transport header: ARP and fragments other than the first. Payload is
	// then the offset behind the IP header.
	L3, L4, Payload uint16
	EtherType       uint16
	// L3Len is the length of the IP packet in bytes, header included, padding
	// and other trailing bytes of the frame excluded.
	L3Len uint32
	Flags Flags
	// Proto is the transport protocol, behind any IPv6 extension headers.
	Proto, TTL, TOS    uint8
	TCPFlags           uint8
	ICMPType, ICMPCode uint8
	L2Len              uint8 // 14, or 18 with an 802.1Q tag
}

// Has reports whether all of f are set.
func (i *Info) Has(f Flags) bool { return i.Flags&f == f }

// PayloadLen is the number of bytes behind the transport header.
func (i *Info) PayloadLen() int { return int(i.L3) + int(i.L3Len) - int(i.Payload) }

// ChecksumOffset is the offset of the checksum field in the header of an
// Internet-checksummed transport protocol; ok is false for the others.
func ChecksumOffset(proto uint8) (offset int, ok bool) {
	switch proto {
	case ProtoTCP:
		return 16, true
	case ProtoUDP:
		return 6, true
	case ProtoICMP, ProtoICMPv6:
		return 2, true
	}
	return 0, false
}
