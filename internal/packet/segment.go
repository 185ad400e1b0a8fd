package packet

import (
	"encoding/binary"

	"culvert/internal/drop"
)

// maxSegmentHeader bounds the headers of a segment in bytes: IPv4 with options
// and TCP with options take 120, IPv6 and TCP 100.
const maxSegmentHeader = 128

// Segmenter cuts one big TCP or UDP packet (a GSO frame) into segments, as Linux
// does: tcp_gso_segment (net/ipv4/tcp_offload.c) or __udp_gso_segment
// (net/ipv4/udp_offload.c), then inet_gso_segment (net/ipv4/af_inet.c) or
// ipv6_gso_segment (net/ipv6/ip6_offload.c). IPv4 identifications count up, with
// DF or without; sequence numbers count up by the payload; FIN and PSH are on
// the last segment only, CWR on the first only; lengths and the IP checksum are
// each segment's own. It writes headers only; the caller copies the payload,
// from however many chunks, behind each:
//
//	r := s.Init(ip, info, mss)
//	for more := true; more; {
//		off, n, more = s.Next(dst)                 // writes s.HeaderLen() bytes
//		copy payload[off:off+n] to dst[s.HeaderLen():]
//		s.Complete(dst[:s.HeaderLen()+n])          // unless a device does it
//	}
//
// The checksum that Next leaves is partial: the folded pseudo-header sum. A UDP
// checksum of 0, which is none, stays 0. A Segmenter is a value to reuse; it
// keeps no reference to the packet.
type Segmenter struct {
	hdr    [maxSegmentHeader]byte // of the next segment, before its lengths and sums
	hdrLen int
	l4     int // offset of the TCP or UDP header
	mss    int
	off    int    // payload bytes sent
	left   int    // payload bytes still to send
	ipSum  uint32 // sum of the IPv4 header but total length, ID, checksum
	pseudo uint32 // sum of the pseudo-header but the length
	flags  uint8  // TCP flags of the last segment
	id     uint16 // IPv4 identification of the next segment
	step   uint16 // identifications that a segment takes
	v4     bool
	udp    bool
	noSum  bool // UDP without a checksum
}

// Init prepares to cut the packet that starts at ip, from its IP header on, into
// segments of at most mss bytes of payload. ip must hold the headers. info is
// the packet's. What is neither TCP nor UDP, a fragment, has too long headers, or
// is a datagram that does not fill its IP packet, is refused with CannotSegment.
func (s *Segmenter) Init(ip []byte, info *Info, mss int) drop.Reason {
	n := int(info.Payload) - int(info.L3)
	udp := info.Proto == ProtoUDP
	if info.Proto != ProtoTCP && !udp || info.L4 == 0 || info.Has(Fragment) ||
		mss < 1 || n > maxSegmentHeader || n > len(ip) || info.PayloadLen() < 0 {
		return drop.CannotSegment
	}
	l4 := int(info.L4) - int(info.L3)
	if udp && UDP(ip[l4:]).Len() != UDPLen+info.PayloadLen() {
		return drop.CannotSegment
	}
	copy(s.hdr[:n], ip)
	s.hdrLen = n
	s.l4 = l4
	s.mss = mss
	s.off = 0
	s.left = info.PayloadLen()
	s.v4 = info.Has(V4)
	s.udp = udp
	s.step = 1
	s.initIP(info.Proto)
	if udp {
		s.noSum = UDP(s.hdr[l4:]).Check() == 0
		return drop.None
	}
	s.flags = s.hdr[l4+tcpFlags]
	s.hdr[l4+tcpFlags] &^= TCPFin | TCPPsh
	return drop.None
}

// initIP sums what all segments' IP and pseudo-headers have in common. It reads
// the header, not a Key: addresses may have been rewritten.
func (s *Segmenter) initIP(proto uint8) {
	if !s.v4 {
		src, dst := IPv6(s.hdr[:]).Src(), IPv6(s.hdr[:]).Dst()
		s.pseudo = PseudoSum6(&src, &dst, proto, 0)
		return
	}
	h := IPv4(s.hdr[:s.l4])
	s.id = h.ID()
	h.SetTotalLen(0)
	h.SetID(0)
	binary.BigEndian.PutUint16(h[ip4Check:], 0)
	s.ipSum = Sum(h, 0)
	s.pseudo = PseudoSum4(binary.BigEndian.Uint32(h[ip4Src:]), binary.BigEndian.Uint32(h[ip4Dst:]), proto, 0)
}

// Step makes each segment take n IPv4 identifications instead of one: it is a big
// packet itself, to be cut into n.
func (s *Segmenter) Step(n int) { s.step = uint16(n) }

// HeaderLen is the number of bytes that Next writes: IP and TCP or UDP header.
func (s *Segmenter) HeaderLen() int { return s.hdrLen }

// Segments is the number of segments that are still to come; an empty payload
// makes one.
func (s *Segmenter) Segments() int { return max((s.left+s.mss-1)/s.mss, 1) }

// Next writes the next segment's headers to dst, which has room for HeaderLen
// bytes, and returns which part of the packet's payload belongs behind them and
// whether there are more segments to come.
func (s *Segmenter) Next(dst []byte) (payloadOff, payloadLen int, more bool) {
	payloadOff, payloadLen = s.off, s.left
	if s.left > s.mss {
		payloadLen, more = s.mss, true
	}
	if !more && !s.udp {
		// CWR stays off unless this is the first segment, too.
		s.hdr[s.l4+tcpFlags] |= s.flags & (TCPFin | TCPPsh)
	}
	dst = dst[:s.hdrLen]
	copy(dst, s.hdr[:s.hdrLen])
	if s.v4 {
		h := IPv4(dst)
		h.SetTotalLen(s.hdrLen + payloadLen)
		h.SetID(s.id)
		binary.BigEndian.PutUint16(h[ip4Check:], ^Fold(s.ipSum+uint32(s.hdrLen+payloadLen)+uint32(s.id)))
		s.id += s.step
	} else {
		IPv6(dst).SetPayloadLen(s.hdrLen - IPv6Len + payloadLen)
	}
	s.off += payloadLen
	s.left -= payloadLen
	l4len := s.hdrLen - s.l4 + payloadLen
	check := Fold(s.pseudo + uint32(l4len))
	if s.udp {
		udp := dst[s.l4:]
		binary.BigEndian.PutUint16(udp[udpLen:], uint16(l4len))
		if !s.noSum {
			binary.BigEndian.PutUint16(udp[udpCheck:], check)
		}
		return payloadOff, payloadLen, more
	}
	binary.BigEndian.PutUint16(dst[s.l4+tcpCheck:], check)
	next := s.hdr[s.l4:]
	binary.BigEndian.PutUint32(next[tcpSeq:], binary.BigEndian.Uint32(next[tcpSeq:])+uint32(payloadLen))
	next[tcpFlags] &^= TCPCwr
	return payloadOff, payloadLen, more
}

// Complete completes the checksum of one contiguous segment, from its IP header
// to the end of its payload, unless the packet has none.
func (s *Segmenter) Complete(seg []byte) {
	switch {
	case !s.udp:
		CompleteChecksum(seg, s.l4, tcpCheck)
	case !s.noSum:
		CompleteChecksum(seg, s.l4, udpCheck)
	}
}
