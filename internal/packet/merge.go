package packet

import "encoding/binary"

// maxDatagrams is the number of datagrams that one group holds at most:
// UDP_GRO_CNT_MAX (net/ipv4/udp_offload.c). TCP has no such limit.
const maxDatagrams = 64

// maxIPLen is the length of the longest IPv4 packet in bytes. Linux builds no
// longer IPv6 packet either unless told to (GRO_LEGACY_MAX_SIZE, net/core/gro.c).
const maxIPLen = 0xffff

// neverFirst are the TCP flags that a group's first segment may not have; FIN and
// PSH may come with its last. CWR is part of a counter in Accurate ECN (RFC 9768
// 3.2.2), which a cut would not restore: Linux, too, keeps it apart since 6.18.
const neverFirst = TCPSyn | TCPRst | TCPUrg | TCPCwr

// groupFlags are the flags of an Info that the segments of a group agree in.
const groupFlags = V4 | V6 | Fragment | Options | NoChecksum

// Merge is one big packet (a GSO frame) in the making, from consecutive segments
// of one flow, by the rules of Linux's GRO: tcp_gro_receive
// (net/ipv4/tcp_offload.c) or udp_gro_receive_segment (net/ipv4/udp_offload.c),
// over inet_gro_receive and gro_receive_network_flush (include/net/gro.h). It is
// the opposite of Segmenter. It decides and writes headers only; the caller, who
// knows that all segments have the same addresses and ports and right
// checksums (VerifyTransport), chains or copies the payload:
//
//	if !m.Start(first, info) { forward first as it is }
//	for each segment ip that follows {
//		if m.Closed() || !m.Add(first, ip, info) { break }
//		append payload
//	}
//	if m.Segments() > 1 { m.Finish(first) }
//
// What StartBig and AddBig take is a group already: a frame of many segments, as a
// sender's kernel or GRO made it.
//
// A segment refused by Add ends the group and may Start the next one, which keeps
// the flow in order; Linux lets what can be in no group overtake a group. Two
// things differ otherwise: Linux merges behind IPv6 extension headers, and it does
// not merge frames that are padded.
//
// Identifications that stay the same in all segments count up once the packet is
// cut again. Linux's own mark against that (SKB_GSO_TCP_FIXEDID) does not pass a
// virtio_net_hdr either.
//
// A Merge is a value to reuse. It keeps no reference: first is given to every
// call, and its bytes stay as Start saw them until Finish.
type Merge struct {
	same   uint64 // which bits of the IP header's first 8 bytes must agree, loaded little-endian
	length int32  // payload bytes so far
	limit  int32  // payload bytes at most; 0 once the group is closed
	size   int32  // payload bytes of the first segment
	count  uint16
	parts  uint16 // what was added: segments, or groups of them
	flags  Flags  // the first segment's groupFlags
	hdrLen uint8  // IP and transport header
	l4     uint8  // offset of the transport header
	proto  uint8
	ends   uint8 // FIN and PSH of segments behind the first
	last   uint8 // those of them that end the group
	fixed  bool  // all segments have the first's IPv4 identification
}

// The parts of an IP header's first 8 bytes that must agree, little-endian:
// all but length and identification, and all but the payload length.
const (
	same4 = 0xffff_0000_0000_ffff
	same6 = 0xffff_0000_ffff_ffff
)

// Start begins a group with the segment whose IP header starts at ip[0]; ip
// holds all its headers. info is the segment's, with info.L3 the offset of ip in
// the frame. It reports false, and leaves a closed group of nothing, for what no
// group begins with: neither TCP nor UDP, no payload, a fragment, IPv4 options,
// IPv6 extension headers, TCP flags that call for delivery at once, a datagram
// without a checksum or with one that does not fill its IP packet.
func (m *Merge) Start(ip []byte, info *Info) bool {
	return m.start(ip, info, info.PayloadLen(), maxIPLen, TCPFin|TCPPsh)
}

// StartBig is Start with a TCP packet that stands for many segments of size payload
// bytes each. The group becomes an IP packet of most bytes at most, which over IPv4
// may be more than its header can tell: then the header says 0 (BIG TCP,
// iph_set_totlen of include/linux/ip.h). PSH, which a sender sets in frame after
// frame when its socket's buffer is full (tcp_mark_push), ends no such group: it
// is kept, and what took the frames this far has lost no time by it.
func (m *Merge) StartBig(ip []byte, info *Info, size, most int) bool {
	if info.Proto != ProtoTCP || size <= 0 {
		*m = Merge{}
		return false
	}
	if info.Has(V6) {
		most = min(most, maxIPLen) // Linux takes no longer one without a jumbo option
	}
	return m.start(ip, info, size, most, TCPFin)
}

// start begins a group that the TCP flags last end.
func (m *Merge) start(ip []byte, info *Info, size, most int, last uint8) bool {
	*m = Merge{}
	n := info.PayloadLen()
	hdrLen := int(info.Payload) - int(info.L3)
	limit := most - hdrLen
	if info.Flags&(Fragment|Options|NoChecksum) != 0 || info.L4 == 0 || n <= 0 || n > limit || hdrLen > len(ip) {
		return false
	}
	l4 := int(info.L4) - int(info.L3)
	same := uint64(same6)
	if info.Has(V4) {
		same = same4
		// Linux keeps its hands off the reserved bit, too.
		if IPv4(ip).Frag()&^IPv4DF != 0 {
			return false
		}
	}
	switch info.Proto {
	case ProtoTCP:
		if info.TCPFlags&(neverFirst|last) != 0 {
			return false
		}
	case ProtoUDP:
		if UDP(ip[l4:]).Len() != UDPLen+n {
			return false
		}
		limit = min(limit, maxDatagrams*n)
	default:
		return false
	}
	count := 1
	if n != size {
		count = (n + size - 1) / size
	}
	if n == limit || n != count*size {
		limit = 0
	}
	m.same, m.flags, m.proto = same, info.Flags&groupFlags, info.Proto
	m.length, m.size, m.limit = int32(n), int32(size), int32(limit)
	m.count, m.parts, m.last = uint16(count), 1, last
	m.hdrLen, m.l4 = uint8(hdrLen), uint8(l4)
	return true
}

// Add reports whether the segment at ip, described as for Start, continues the
// group that began with the headers at first: then its payload belongs behind
// what the group has. Otherwise the group is unchanged.
func (m *Merge) Add(first, ip []byte, info *Info) bool {
	n := int32(info.PayloadLen())
	// A segment longer than the first ends the group (n-1 wraps for none).
	return uint32(n-1) < uint32(m.size) && m.add(first, ip, info, n)
}

// AddBig is Add of a packet that stands for many segments of size payload bytes.
func (m *Merge) AddBig(first, ip []byte, info *Info, size int) bool {
	n := int32(info.PayloadLen())
	return n > 0 && int32(size) == m.size && m.add(first, ip, info, n)
}

func (m *Merge) add(first, ip []byte, info *Info, n int32) bool {
	length := m.length + n
	hdrLen := int(m.hdrLen)
	if length > m.limit ||
		info.Flags&groupFlags != m.flags || info.Proto != m.proto ||
		int(info.Payload)-int(info.L3) != hdrLen || len(ip) < hdrLen || len(first) < hdrLen {
		return false
	}
	// inet_gro_flush and ipv6_gro_flush of include/net/gro.h.
	if (binary.LittleEndian.Uint64(first)^binary.LittleEndian.Uint64(ip))&m.same != 0 {
		return false
	}
	fixed := false
	if m.same == same4 {
		ok := false
		if fixed, ok = m.continuesID(first, ip); !ok || first[ip4TTL] != ip[ip4TTL] {
			return false
		}
	}
	a, b := first[m.l4:hdrLen], ip[m.l4:hdrLen]
	ends := uint8(0)
	if m.proto == ProtoTCP {
		if !continuesTCP((*[TCPLen]byte)(a), (*[TCPLen]byte)(b), uint32(m.length)) || !sameOptions(a[TCPLen:], b[TCPLen:]) {
			return false
		}
		ends = b[tcpFlags] & (TCPFin | TCPPsh)
	} else if UDP(b).Len() != UDPLen+int(n) {
		return false
	}
	m.fixed = fixed
	m.length = length
	m.parts++
	m.count++
	whole := n == m.size
	if n > m.size {
		more := (n - 1) / m.size
		m.count += uint16(more)
		whole = n == (more+1)*m.size
	}
	m.ends |= ends
	if !whole || ends&m.last != 0 || length == m.limit {
		m.limit = 0
	}
	return true
}

// continuesID compares IPv4 identifications, as inet_gro_flush does: they count
// up, or are all the same (fixed), which the second segment decides. Linux before
// 6.18 has the latter only with DF.
func (m *Merge) continuesID(first, ip IPv4) (fixed, ok bool) {
	d := ip.ID() - first.ID()
	if m.fixed || m.parts == 1 && d == 0 {
		return true, d == 0
	}
	return false, d == m.count
}

// continuesTCP compares TCP headers: the sequence number is off bytes further;
// acknowledgment number, header length, window and all flags but FIN and PSH are
// equal.
func continuesTCP(first, h *[TCPLen]byte, off uint32) bool {
	// The 8 bytes from the acknowledgment number on: offset, flags, window.
	const apart = (TCPFin | TCPPsh) << (8 * (tcpFlags - tcpAck))
	d := binary.LittleEndian.Uint64(first[tcpAck:]) ^ binary.LittleEndian.Uint64(h[tcpAck:])
	seq := binary.BigEndian.Uint32(h[tcpSeq:]) - binary.BigEndian.Uint32(first[tcpSeq:])
	return d&^apart == 0 && seq == off
}

// sameOptions compares TCP options. Those of nearly all segments are 12 bytes,
// timestamps: two loads of each instead of a call.
func sameOptions(a, b []byte) bool {
	if len(a) != 12 || len(b) != 12 {
		return string(a) == string(b)
	}
	return binary.LittleEndian.Uint64(a) == binary.LittleEndian.Uint64(b) &&
		binary.LittleEndian.Uint32(a[8:]) == binary.LittleEndian.Uint32(b[8:])
}

// Closed reports whether nothing can follow any more: the last segment was
// shorter, or had FIN or PSH, or the group is full.
func (m *Merge) Closed() bool { return m.limit == 0 }

// Segments is the number of segments in the group.
func (m *Merge) Segments() int { return int(m.count) }

// Size is the number of payload bytes of each segment but the last, which may
// have fewer: the gso_size.
func (m *Merge) Size() int { return int(m.size) }

// Len is the number of payload bytes so far.
func (m *Merge) Len() int { return int(m.length) }

// Finish makes the first segment's headers at ip those of the whole packet, as
// inet_gro_complete, tcp4_gro_complete and their like do: lengths, the IPv4
// header checksum, FIN and PSH of the last segment, and in the TCP or UDP
// checksum field the folded pseudo-header sum, for a device or a Segmenter to
// complete. Call it if Segments is more than 1.
func (m *Merge) Finish(ip []byte) {
	ip = ip[:m.hdrLen]
	l4 := ip[m.l4:]
	l4len := uint32(len(l4)) + uint32(m.length)
	var pseudo uint32
	if m.same == same4 {
		h := IPv4(ip)
		old := uint16(h.TotalLen())
		total := len(ip) + int(m.length)
		if total > maxIPLen {
			total = 0
		}
		h.SetTotalLen(total)
		binary.BigEndian.PutUint16(h[ip4Check:], UpdateSum(h.Check(), old, uint16(h.TotalLen())))
		pseudo = PseudoSum4(binary.BigEndian.Uint32(h[ip4Src:]), binary.BigEndian.Uint32(h[ip4Dst:]), m.proto, l4len)
	} else {
		h := IPv6(ip)
		h.SetPayloadLen(int(l4len))
		src, dst := h.Src(), h.Dst()
		pseudo = PseudoSum6(&src, &dst, m.proto, l4len)
	}
	if m.proto == ProtoUDP {
		binary.BigEndian.PutUint16(l4[udpLen:], uint16(l4len))
		binary.BigEndian.PutUint16(l4[udpCheck:], Fold(pseudo))
		return
	}
	l4[tcpFlags] |= m.ends
	binary.BigEndian.PutUint16(l4[tcpCheck:], Fold(pseudo))
}
