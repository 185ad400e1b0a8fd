package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// To cut and then to merge is to change nothing, and the other way round.

// cutFrames cuts a big frame into frames with complete checksums.
func cutFrames(t testing.TB, f []byte, mss int) (frames [][]byte) {
	t.Helper()
	for _, s := range segments(t, f, mss, true) {
		frames = append(frames, pkttest.Join(f[:14], s))
	}
	return frames
}

func TestCutThenMerge(t *testing.T) {
	for _, kind := range kinds {
		for _, n := range []int{0, 4, 12, 40} {
			for _, flags := range []string{"A", "PA", "FA", "FPA", "EA", "E", ""} {
				for _, size := range []int{2, 100, 1400, 1401, 2799, 2800, 2801, 60000} {
					for _, mss := range []int{1, 536, 1400, 32000} {
						segs := (size + mss - 1) / mss
						if segs < 2 || kind.udp && (segs > 64 || n+len(flags) > 1) {
							continue
						}
						big := kind.flow(1, size)[0]
						big.options, big.flags = option(n), flags
						f := pkttest.SetPartial(big.frame(t))
						got := mergeAll(t, cutFrames(t, f, mss))
						if len(got) != 1 || !bytes.Equal(got[0].frame, f) || got[0].size != mss || got[0].segments != segs {
							t.Fatalf("%v, options %d, flags %s, %d of %d: %d packets, the first\n%v\nwas\n%s", kind, n, flags, size, mss, len(got), got[0], pkttest.Dump(f))
						}
					}
				}
			}
		}
	}
}

// FuzzCutMerge cuts a packet, changes any byte of one segment's headers, merges
// them, cuts what came out, and has the segments again.
func FuzzCutMerge(f *testing.F) {
	for i := range kinds {
		f.Add(uint8(i), "PA", uint8(12), uint16(4000), uint16(1400), uint16(0), uint8(1), uint8(1), uint8(0))
		f.Add(uint8(i), "A", uint8(0), uint16(1000), uint16(100), uint16(0x4000), uint8(5), uint8(9), uint8(3))
	}
	f.Fuzz(func(t *testing.T, kind uint8, flags string, options uint8, size, mss, frag uint16, at, offset, xor uint8) {
		big := kinds[int(kind)%len(kinds)].flow(1, int(size)%60000)[0]
		big.flags, big.options, big.frag = flags, option(int(options)%41), frag&packet.IPv4DF
		frames := cutFrames(t, pkttest.SetPartial(big.frame(t)), max(int(mss), 40))
		hdrLen := len(frames[0]) - 14 - min(int(size)%60000, max(int(mss), 40))
		damage(frames[int(at)%len(frames)], int(offset)%hdrLen, xor)
		idToo := int(offset)%hdrLen/2 != 2
		i := 0
		for _, m := range mergeAll(t, frames) {
			again := [][]byte{m.frame}
			if m.size > 0 {
				again = cutFrames(t, m.frame, m.size)
			}
			if len(again) != m.segments {
				t.Fatalf("%d segments merged, %d cut", m.segments, len(again))
			}
			for _, f := range again {
				if a, b := kept(f, idToo), kept(frames[i], idToo); !bytes.Equal(a, b) {
					t.Fatalf("segment %d merged and cut is\n%swas\n%s", i, pkttest.Dump(a), pkttest.Dump(b))
				}
				i++
			}
		}
		if i != len(frames) {
			t.Fatalf("%d of %d segments came out", i, len(frames))
		}
	})
}

// damage changes one byte of a frame's headers and puts its checksums right.
func damage(f []byte, offset int, xor uint8) {
	var info packet.Info
	packet.Parse(f, len(f), &info)
	f[int(info.L3)+offset] ^= xor
	if info.Has(packet.V4) {
		pkttest.FixIP4(f)
	}
	if packet.Parse(f, len(f), &info) != 0 || info.L4 == 0 {
		return
	}
	setPartial(f, &info)
	if o, ok := packet.ChecksumOffset(info.Proto); ok {
		packet.CompleteChecksum(f[:int(info.L3)+int(info.L3Len)], int(info.L4), o)
	}
}

// kept is a frame without what a merge does not keep: padding, the urgent pointer of
// a segment that has no urgent data, an IPv4 identification that does not count
// unless idToo, and the checksums over them.
func kept(f []byte, idToo bool) []byte {
	f = bytes.Clone(f)
	var info packet.Info
	if packet.Parse(f, len(f), &info) != 0 || info.L4 == 0 {
		return f
	}
	f = f[:int(info.L3)+int(info.L3Len)]
	if info.Has(packet.V4) && !idToo {
		pkttest.Corrupt(f, int(info.L3)+4, 0, 0)
		pkttest.FixIP4(f)
	}
	if info.Proto == packet.ProtoTCP {
		h := f[info.L4:]
		h[16], h[17] = 0, 0
		if info.TCPFlags&packet.TCPUrg == 0 {
			h[18], h[19] = 0, 0
		}
	}
	return f
}

// FuzzMerge joins any two frames of one flow exactly if the second's headers are
// what the first's are so many bytes later.
func FuzzMerge(f *testing.F) {
	for _, kind := range kinds {
		flow := kind.flow(3, 100)
		f.Add(flow[0].frame(f), flow[1].frame(f))
		f.Add(flow[0].frame(f), flow[2].frame(f))
		for _, name := range []string{"shorter", "longer", "empty", "ID - 1", "TTL", "tcp ack", "tcp option", "tcp urgent"} {
			flow := edit(kind.flow(2, 100), 1, changes()[name], false)
			f.Add(flow[0].frame(f), flow[1].frame(f))
		}
	}
	for _, kind := range kinds[2:] {
		flow := edit(kind.flow(2, 100), 1, func(s *seg) { s.udpLen = 50 }, false)
		f.Add(flow[0].frame(f), flow[1].frame(f))
	}
	for _, s := range seeds(f) {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, data1, data2 []byte) {
		a, b := exact(data1), exact(data2)
		var ia, ib packet.Info
		if !fixed(a, &ia) || !fixed(b, &ib) {
			return
		}
		endA, endB := int(ia.L3)+int(ia.L3Len), int(ib.L3)+int(ib.L3Len)
		packet.VerifyTransport(a[ia.L3:endA], &ia)
		var m packet.Merge
		started := m.Start(a[ia.L3:], &ia)
		if started == m.Closed() && ia.L3Len < 0xffff || started != (m.Segments() == 1) {
			t.Fatalf("started %v, closed %v, %d segments", started, m.Closed(), m.Segments())
		}
		first := exact(a[ia.L3:])
		added := m.Add(first, b[ib.L3:], &ib)
		if ia.Key != ib.Key {
			return // not one flow: nothing is promised
		}
		if want := startable(a, &ia) && follows(a, b, &ia, &ib); added != want {
			t.Fatalf("added %v, want %v\n%s%s", added, want, pkttest.Dump(a), pkttest.Dump(b))
		}
		if !added {
			return
		}
		m.Finish(first)
		big := pkttest.Join(a[:14], first[:endA-int(ia.L3)], b[ib.Payload:endB])
		if m.Len() != ia.PayloadLen()+ib.PayloadLen() || m.Size() != ia.PayloadLen() || m.Segments() != 2 {
			t.Fatalf("%d bytes, %d segments of %d", m.Len(), m.Segments(), m.Size())
		}
		if info := parsed(t, etherFrame(big[14:])); !info.Has(packet.Partial) || info.PayloadLen() != m.Len() {
			t.Fatalf("%+v\n%s", info, pkttest.Dump(big))
		}
	})
}

// fixed parses a frame, its IPv4 header checksum put right.
func fixed(f []byte, info *packet.Info) bool {
	if len(f) < 14+packet.IPv6Len {
		return false
	}
	if f[14]>>4 == 4 && f[12] == 8 && f[13] == 0 && f[14]&15 >= 5 && len(f) >= 14+60 {
		pkttest.FixIP4(f)
	}
	return packet.Parse(f, len(f), info) == 0 && info.EtherType != packet.EtherTypeARP
}

// startable is Start, word for word from its comment.
func startable(f []byte, info *packet.Info) bool {
	switch h := f[info.L3:]; {
	case info.Has(packet.Fragment), info.Has(packet.Options), info.PayloadLen() < 1:
		return false
	case info.Has(packet.V4) && h[6]&0x80 != 0:
		return false
	case info.Proto == packet.ProtoTCP:
		return info.TCPFlags&^(packet.TCPAck|packet.TCPEce) == 0
	case info.Proto == packet.ProtoUDP:
		return fullDatagram(f, info)
	}
	return false
}

func fullDatagram(f []byte, info *packet.Info) bool {
	h := packet.UDP(f[info.L4:])
	return h.Check() != 0 && h.Len() == packet.UDPLen+info.PayloadLen()
}

// follows builds the headers that continue a's, with what b may have of its own,
// and compares.
func follows(a, b []byte, ia, ib *packet.Info) bool {
	n := ib.PayloadLen()
	if n < 1 || n > ia.PayloadLen() || int(ia.L3Len)+n > 0xffff || ib.Has(packet.Fragment) || ib.L4 == 0 {
		return false
	}
	want := bytes.Clone(a[ia.L3:ia.Payload])
	got := bytes.Clone(b[ib.L3:ib.Payload])
	if len(want) != len(got) {
		return false
	}
	l4 := int(ia.L4 - ia.L3)
	if ia.Has(packet.V4) {
		if id := packet.IPv4(want).ID(); packet.IPv4(got).ID() == id+1 {
			packet.IPv4(want).SetID(id + 1)
		}
		packet.IPv4(want).SetTotalLen(len(want) + n)
		packet.IPv4(want).SetCheck()
	} else {
		packet.IPv6(want).SetPayloadLen(len(want) - packet.IPv6Len + n)
	}
	if ia.Proto == packet.ProtoUDP {
		binary.BigEndian.PutUint16(want[l4+4:], uint16(packet.UDPLen+n))
		copy(want[l4+6:], got[l4+6:]) // checksum
		return fullDatagram(b, ib) && bytes.Equal(want, got)
	}
	binary.BigEndian.PutUint32(want[l4+4:], packet.TCP(want[l4:]).Seq()+uint32(ia.PayloadLen()))
	want[l4+13] |= got[l4+13] & (packet.TCPFin | packet.TCPPsh)
	copy(want[l4+16:], got[l4+16:l4+20]) // checksum and urgent pointer
	return bytes.Equal(want, got)
}

func TestMergeStartRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		kind   seg
		change func(*seg)
	}{
		"IP options":    {kinds[0], func(s *seg) { s.ipOptions = 8 }},
		"fragment":      {kinds[0], func(s *seg) { s.frag = packet.IPv4MF }},
		"reserved bit":  {kinds[0], func(s *seg) { s.frag = 0x8000 }},
		"empty":         {kinds[0], func(s *seg) { s.size = 0 }},
		"empty v6":      {kinds[1], func(s *seg) { s.size = 0 }},
		"SYN":           {kinds[0], func(s *seg) { s.flags = "S" }},
		"CWR":           {kinds[1], func(s *seg) { s.flags = "AC" }},
		"PSH":           {kinds[0], func(s *seg) { s.flags = "PA" }},
		"no checksum":   {kinds[2], func(s *seg) { s.zeroSum = true }},
		"short UDP":     {kinds[2], func(s *seg) { s.udpLen = 20 }},
		"empty UDP":     {kinds[3], func(s *seg) { s.size = 0 }},
		"short UDP, v6": {kinds[3], func(s *seg) { s.udpLen = 20 }},
	} {
		s := c.kind.flow(1, 96)[0]
		c.change(&s)
		f := s.frame(t)
		m := packet.Merge{}
		if m.Start(f[14:], parsed(t, f)) || !m.Closed() || m.Segments() != 0 || m.Len() != 0 {
			t.Errorf("%s: group %s", name, fmt.Sprint(m))
		}
	}
	f := kinds[0].flow(1, 96)[0].frame(t)
	var m packet.Merge
	if m.Start(f[14:50], parsed(t, f)) {
		t.Error("headers cut short")
	}
	if m.Add(f[14:], f[14:], parsed(t, f)) {
		t.Error("added to no group")
	}
}
