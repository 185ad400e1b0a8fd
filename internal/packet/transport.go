package packet

import (
	"encoding/binary"
	"math/bits"
)

// UDP is a view of a UDP header, 8 bytes (RFC 768).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Length             |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type UDP []byte

const (
	udpLen   = 4
	udpCheck = 6
)

// SrcPort is the source port.
func (h UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// DstPort is the destination port.
func (h UDP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Len is the length of header and data in bytes.
func (h UDP) Len() int { return int(binary.BigEndian.Uint16(h[udpLen:])) }

// Check is the checksum; 0 means none.
func (h UDP) Check() uint16 { return binary.BigEndian.Uint16(h[udpCheck:]) }

// TCP is a view of a TCP header, at least 20 bytes (RFC 9293 3.1).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Sequence Number                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Acknowledgment Number                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Data |       |C|E|U|A|P|R|S|F|                               |
//	| Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//	|       |       |R|E|G|K|H|T|N|N|                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Checksum            |         Urgent Pointer        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                           Options                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type TCP []byte

const (
	tcpSeq    = 4
	tcpAck    = 8
	tcpOffset = 12
	tcpFlags  = 13
	tcpWindow = 14
	tcpCheck  = 16
)

// Bits of TCP.Flags.
const (
	TCPFin = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// SrcPort is the source port.
func (h TCP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// DstPort is the destination port.
func (h TCP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Seq is the sequence number.
func (h TCP) Seq() uint32 { return binary.BigEndian.Uint32(h[tcpSeq:]) }

// Ack is the acknowledgment number.
func (h TCP) Ack() uint32 { return binary.BigEndian.Uint32(h[tcpAck:]) }

// HeaderLen is the header's length in bytes, options included.
func (h TCP) HeaderLen() int { return int(h[tcpOffset]>>4) * 4 }

// Flags are the eight control bits.
func (h TCP) Flags() uint8 { return h[tcpFlags] }

// Window is the window as it stands, not scaled.
func (h TCP) Window() uint16 { return binary.BigEndian.Uint16(h[tcpWindow:]) }

// Check is the checksum.
func (h TCP) Check() uint16 { return binary.BigEndian.Uint16(h[tcpCheck:]) }

// MSSOption is the maximum segment size option of a SYN (RFC 9293 3.7.1). h
// must hold HeaderLen bytes.
func (h TCP) MSSOption() (mss uint16, ok bool) {
	at := h.mssAt()
	if at == 0 {
		return 0, false
	}
	return binary.BigEndian.Uint16(h[at:]), true
}

// ClampMSS lowers the maximum segment size option to most if it is larger, and
// returns what it is then; ok is false if there is none. The checksum follows
// (RFC 1624), but for a partial one, which does not cover the options yet. h must
// hold HeaderLen bytes.
func (h TCP) ClampMSS(most uint16, partial bool) (mss uint16, ok bool) {
	at := h.mssAt()
	if at == 0 {
		return 0, false
	}
	if mss = binary.BigEndian.Uint16(h[at:]); mss <= most {
		return mss, true
	}
	binary.BigEndian.PutUint16(h[at:], most)
	if !partial {
		if at%2 != 0 { // behind one no-operation: the value lies across two words
			mss, most = bits.ReverseBytes16(mss), bits.ReverseBytes16(most)
		}
		check := UpdateSum(binary.BigEndian.Uint16(h[tcpCheck:]), mss, most)
		binary.BigEndian.PutUint16(h[tcpCheck:], check)
	}
	return binary.BigEndian.Uint16(h[at:]), true
}

// mssAt is where the value of the maximum segment size option lies, 0 if there is
// none.
func (h TCP) mssAt() int {
	end := h.HeaderLen()
	for at := TCPLen; at+2 <= end; {
		switch kind, n := h[at], int(h[at+1]); {
		case kind == 0: // end of options
			return 0
		case kind == 1: // no operation
			at++
		case n < 2 || at+n > end:
			return 0
		case kind == 2 && n == 4:
			return at + 2
		default:
			at += n
		}
	}
	return 0
}

// SCTP is a view of the SCTP common header, 12 bytes (RFC 9260 3.1).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Source Port Number        |     Destination Port Number   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Verification Tag                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                           Checksum                            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type SCTP []byte

// SrcPort is the source port.
func (h SCTP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// DstPort is the destination port.
func (h SCTP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Check is the CRC32c, which travels least significant byte first.
func (h SCTP) Check() uint32 { return binary.LittleEndian.Uint32(h[8:]) }

// SetCheck stores a CRC32c.
func (h SCTP) SetCheck(crc uint32) { binary.LittleEndian.PutUint32(h[8:], crc) }

// VXLAN is a view of a VXLAN header, 8 bytes (RFC 7348 5).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|R|R|R|I|R|R|R|            Reserved                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                VXLAN Network Identifier (VNI) |   Reserved    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type VXLAN []byte

// VXLANFlags is the first word of a valid header: the I flag and nothing else.
const VXLANFlags = 0x0800_0000

// Flags is the first word, reserved bits included.
func (h VXLAN) Flags() uint32 { return binary.BigEndian.Uint32(h) }

// VNI is the network identifier, 24 bits.
func (h VXLAN) VNI() uint32 { return binary.BigEndian.Uint32(h[4:]) >> 8 }
