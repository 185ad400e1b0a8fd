package packet_test

import (
	"fmt"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket/layers"
)

// seg is one segment of a flow, to build.
type seg struct {
	v6, udp    bool
	port       uint16 // of the source, beyond 1000
	tos, ttl   uint8
	id         uint16
	frag       uint16 // the IPv4 header's flags and offset
	label      uint32 // IPv6 flow label
	ipOptions  int    // bytes
	flags      string
	seq, ack   uint32
	window     uint16
	urgent     uint16
	options    func(*layers.TCP)
	size       int
	udpLen     int  // 0: that of the datagram
	zeroSum    bool // no checksum
	badSum     bool
	fromOffset int // where the payload is in the stream
}

// kinds are the flows that can be merged.
var kinds = []seg{
	{id: 0xfffe, frag: packet.IPv4DF, options: stamp(1, 2)},
	{v6: true, options: stamp(1, 2)},
	{udp: true, id: 0xfffe, frag: packet.IPv4DF},
	{udp: true, v6: true},
}

func (s seg) String() string {
	return map[bool]string{false: "tcp", true: "udp"}[s.udp] + map[bool]string{false: "4", true: "6"}[s.v6]
}

// flow is n consecutive segments of size bytes each.
func (s seg) flow(n, size int) []seg {
	s.tos, s.ttl, s.label = 0x2a, 64, 0x12345
	s.flags, s.seq, s.ack, s.window = "A", 0xffff_ff00, 7, 500
	s.size = size
	all := make([]seg, n)
	for i := range all {
		all[i] = s
		s = s.next()
	}
	return all
}

// next is the segment that continues s.
func (s seg) next() seg {
	s.seq += uint32(s.size)
	s.fromOffset += s.size
	s.id++
	return s
}

func (s seg) frame(t testing.TB) []byte {
	t.Helper()
	ls := []pkttest.Layer{pkttest.Eth(podMAC, gwMAC)}
	if s.v6 {
		ls = append(ls, pkttest.IP6("fd00::2", "fd00::3", pkttest.TrafficClass(s.tos), pkttest.HopLimit(s.ttl),
			func(h *layers.IPv6) { h.FlowLabel = s.label }))
	} else {
		ls = append(ls, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.ID(s.id), pkttest.TOS(s.tos), pkttest.TTL(s.ttl), ip4Option(s.ipOptions),
			func(h *ip4) { h.Flags, h.FragOffset = layers.IPv4Flag(s.frag>>13), s.frag&packet.IPv4OffsetMask }))
	}
	if s.udp {
		ls = append(ls, pkttest.UDP(1000+s.port, 80))
	} else {
		tcp := pkttest.TCP(1000+s.port, 80, pkttest.Flags(s.flags), pkttest.Seq(s.seq))
		tcp.Ack, tcp.Window, tcp.Urgent = s.ack, s.window, s.urgent
		if s.options != nil {
			s.options(tcp)
		}
		ls = append(ls, tcp)
	}
	f := pkttest.Frame(t, append(ls, pkttest.Bytes(pkttest.Pattern(s.fromOffset + s.size)[s.fromOffset:]...))...)
	l4 := len(f) - s.size - packet.UDPLen
	switch {
	case s.badSum:
		f[len(f)-1] ^= 1
	case s.zeroSum:
		pkttest.ZeroL4Checksum(f)
	case s.udpLen != 0:
		// The checksum is right for so many bytes.
		addrs := f[26:34]
		if s.v6 {
			addrs = f[22:54]
		}
		pkttest.Corrupt(f, l4+4, byte(s.udpLen>>8), byte(s.udpLen), 0, 0)
		sum := ^pkttest.Sum16(f[l4:l4+s.udpLen], uint32(pkttest.Sum16(addrs, packet.ProtoUDP+uint32(s.udpLen))))
		pkttest.Corrupt(f, l4+6, byte(sum>>8), byte(sum))
	}
	return f
}

// merged is what comes out: one frame as it was, or several merged.
type merged struct {
	frame    []byte
	segments int
	size     int // gso_size, 0 for a frame as it was
}

// mergeAll merges a flow's frames as a dataplane does.
func mergeAll(t testing.TB, frames [][]byte) (out []merged) {
	t.Helper()
	var m packet.Merge
	var group []byte
	var key packet.Key
	flush := func() {
		if group == nil {
			return
		}
		g := merged{frame: group, segments: 1}
		if m.Segments() > 1 {
			m.Finish(group[14:])
			g.segments, g.size = m.Segments(), m.Size()
		}
		out = append(out, g)
		group = nil
	}
	for _, f := range frames {
		var info packet.Info
		ok := packet.Parse(f, len(f), &info) == 0
		end := int(info.L3) + int(info.L3Len)
		valid := ok && (info.Has(packet.Partial) || packet.VerifyTransport(f[info.L3:end], &info))
		if valid && group != nil && info.Key == key && m.Add(group[14:], f[info.L3:end], &info) {
			group = append(group, f[info.Payload:end]...)
			if m.Len() != len(group)-14-int(info.Payload-info.L3) {
				t.Fatalf("Len %d of %d bytes", m.Len(), len(group))
			}
		} else {
			flush()
			group, key = append([]byte(nil), f...), info.Key
			if !valid || !m.Start(f[info.L3:end], &info) {
				out = append(out, merged{frame: group, segments: 1})
				group = nil
			} else {
				group = group[:end] // padding
			}
		}
		if group != nil && m.Closed() {
			flush()
		}
	}
	flush()
	return out
}

func (m merged) String() string {
	return fmt.Sprintf("%d segments of %d\n%s", m.segments, m.size, pkttest.Dump(m.frame))
}
