// Package packet is the ground floor: what the bytes of a frame mean.
//
// It has four parts. Addresses and keys (Addr, MAC, Key) are the values that
// tables are indexed by. Views (Ethernet, IPv4, TCP, ...) are byte slices with
// named offsets; a view checks nothing, so its bytes must have been validated
// before. Parse is what validates: once per frame, into a fixed-size Info that
// every later stage trusts. The rest writes: checksums, ICMP errors, replies in
// place, IPv4 fragments, the segments of a big TCP or UDP packet (Segmenter), and
// the big packet that segments make (Merge). Payload is not touched: whoever has
// the chunks that it lies in copies or sums it.
//
// Nothing here knows a socket, a goroutine or a clock, and nothing allocates.
// Multi-byte fields are in host byte order wherever they are not bytes of a
// frame. Every function borrows the slices it is given and keeps none of them.
package packet

// EtherTypes (IEEE 802 numbers).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeVLAN = 0x8100 // 802.1Q
	EtherTypeIPv6 = 0x86dd
	EtherTypeQinQ = 0x88a8 // 802.1ad
)

// IP protocol numbers.
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNone     = 59
	ProtoDestOpts = 60
	ProtoSCTP     = 132
)

// Lengths of headers without options, in bytes.
const (
	EthernetLen = 14
	VLANLen     = 4
	ARPLen      = 28
	IPv4Len     = 20
	IPv6Len     = 40
	TCPLen      = 20
	UDPLen      = 8
	ICMPLen     = 8
	SCTPLen     = 12
	VXLANLen    = 8
)
