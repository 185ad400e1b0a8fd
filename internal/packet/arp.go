package packet

import "encoding/binary"

// ARP is a view of an ARP packet for IPv4 over Ethernet, at least 28 bytes
// (RFC 826).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Hardware Type         |         Protocol Type         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  HW Length    | Proto Length  |           Operation           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Sender Hardware Address                    |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |    Sender Protocol Address    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|    Sender Protocol Address    |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                    Target Hardware Address                    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Target Protocol Address                    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ARP []byte

const (
	arpHWType    = 0
	arpProtoType = 2
	arpHWLen     = 4
	arpProtoLen  = 5
	arpOp        = 6
	arpSenderMAC = 8
	arpSenderIP  = 14
	arpTargetMAC = 18
	arpTargetIP  = 24
)

// ARP operations.
const (
	ARPRequest = 1
	ARPAnswer  = 2
)

// Valid reports whether h is long enough and speaks of IPv4 over Ethernet.
func (h ARP) Valid() bool {
	return len(h) >= ARPLen && binary.BigEndian.Uint32(h) == 1<<16|EtherTypeIPv4 &&
		h[arpHWLen] == 6 && h[arpProtoLen] == 4
}

// Op is the operation.
func (h ARP) Op() uint16 { return binary.BigEndian.Uint16(h[arpOp:]) }

// SenderMAC is the sender hardware address.
func (h ARP) SenderMAC() MAC { return MAC(h[arpSenderMAC : arpSenderMAC+6]) }

// TargetMAC is the target hardware address.
func (h ARP) TargetMAC() MAC { return MAC(h[arpTargetMAC : arpTargetMAC+6]) }

// SenderIP is the sender protocol address.
func (h ARP) SenderIP() Addr { return AddrFrom4(binary.BigEndian.Uint32(h[arpSenderIP:])) }

// TargetIP is the target protocol address.
func (h ARP) TargetIP() Addr { return AddrFrom4(binary.BigEndian.Uint32(h[arpTargetIP:])) }
