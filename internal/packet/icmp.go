package packet

import "encoding/binary"

// ICMPv4 is a view of an ICMP header, 8 bytes (RFC 792).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Identifier          |        Sequence Number        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ICMPv4 []byte

// Type is the message type.
func (h ICMPv4) Type() uint8 { return h[0] }

// Code is the message code.
func (h ICMPv4) Code() uint8 { return h[1] }

// Check is the checksum.
func (h ICMPv4) Check() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// ID is the identifier of an echo.
func (h ICMPv4) ID() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// Seq is the sequence number of an echo; in a fragmentation needed message the
// next hop's MTU (RFC 1191 4).
func (h ICMPv4) Seq() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// ICMPv6 is a view of an ICMPv6 header, 8 bytes (RFC 4443 2.1, 4.1).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      Identifier, MTU          |        Sequence Number, MTU   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ICMPv6 []byte

// Type is the message type; errors are below 128.
func (h ICMPv6) Type() uint8 { return h[0] }

// Code is the message code.
func (h ICMPv6) Code() uint8 { return h[1] }

// Check is the checksum, which covers a pseudo-header.
func (h ICMPv6) Check() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// ID is the identifier of an echo.
func (h ICMPv6) ID() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// Seq is the sequence number of an echo.
func (h ICMPv6) Seq() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// MTU is the next hop's MTU in a packet too big message.
func (h ICMPv6) MTU() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// ICMP types and codes (RFC 792, RFC 1812 5.2.7).
const (
	ICMPEchoReply      = 0
	ICMPUnreachable    = 3
	ICMPSourceQuench   = 4
	ICMPRedirect       = 5
	ICMPEchoRequest    = 8
	ICMPTimeExceeded   = 11
	ICMPParamProblem   = 12
	ICMPTimestamp      = 13
	ICMPTimestampReply = 14

	ICMPNetUnreachable  = 0  // code of ICMPUnreachable
	ICMPHostUnreachable = 1  // code of ICMPUnreachable
	ICMPPortUnreachable = 3  // code of ICMPUnreachable
	ICMPFragNeeded      = 4  // code of ICMPUnreachable
	ICMPAdminProhibited = 13 // code of ICMPUnreachable
)

// ICMPv6 types and codes (RFC 4443, RFC 4861).
const (
	ICMP6Unreachable     = 1
	ICMP6PacketTooBig    = 2
	ICMP6TimeExceeded    = 3
	ICMP6ParamProblem    = 4
	ICMP6EchoRequest     = 128
	ICMP6EchoReply       = 129
	ICMP6RouterSolicit   = 133
	ICMP6RouterAdvert    = 134
	ICMP6NeighbourSol    = 135
	ICMP6NeighbourAdv    = 136
	ICMP6Redirect        = 137
	ICMP6NoRoute         = 0 // code of ICMP6Unreachable
	ICMP6AdminProhibited = 1 // code of ICMP6Unreachable
	ICMP6AddrUnreachable = 3 // code of ICMP6Unreachable
	ICMP6PortUnreachable = 4 // code of ICMP6Unreachable
)
