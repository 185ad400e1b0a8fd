package flow

import (
	"math/rand/v2"
	"testing"

	"culvert/internal/packet"
)

// play turns bytes into operations on a table and its model: three bytes each.
func play(t *testing.T, data []byte) {
	m := newModel(t)
	for ; len(data) >= 3; data = data[3:] {
		m.ops++
		op, a, b := data[0], data[1], data[2]
		switch {
		case op < 200:
			k, reply := playKey(a)
			if op&1 != 0 {
				k, reply = reply, k
			}
			if f := m.flows[k]; f != nil {
				reply = f.orig // does not matter
			}
			owner := uint16(a % 3)
			switch {
			case owner == 0:
				owner = Wire
			case a%5 == 4:
				owner = Towards(owner)
			}
			m.packet(k, reply, owner, b&31, b>>5|op>>2&8, uint32(op)*16)
		case op < 225:
			m.advance(uint32(b)>>(a&7), 1+int(a>>4))
		case op < 230:
			m.advance(uint32(b)<<(a%12), 1+int(a>>4))
		case op < 235:
			k, _ := playKey(a)
			m.flush(k.Proto)
		case op < 240:
			m.hold(b&1 != 0)
		case op < 245:
			m.table.Offline(1)
			clear(m.held)
		default:
			m.check()
		}
		m.table.Quiesce(0)
	}
	m.check()
}

// playKey is one of 256 connections, some with translated or equal addresses.
func playKey(a byte) (k, reply packet.Key) {
	k = packet.Key{Src: packet.AddrFrom4(0x0a010000 + uint32(a%5)), Dst: packet.AddrFrom4(0x0a010000 + uint32(a%7)),
		SrcPort: uint16(a % 3), DstPort: uint16(a % 3), Family: 4, Zone: uint16(a % 2)}
	k.Proto = []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoSCTP}[a%6]
	if a >= 200 {
		k.Src, k.Family, k.Zone = packet.Addr{0xfd, 15: a}, 6, 0
	}
	reply = k.Reverse()
	if a%11 == 0 {
		reply.DstPort += 1000 // the source port was translated
	}
	return k, reply
}

func FuzzFlows(f *testing.F) {
	f.Fuzz(play)
}

// playTCP turns bytes into segments of one connection: three bytes each.
func playTCP(t *testing.T, data []byte) {
	table := heapTable(t, 1)
	const start = 1<<32 - 100
	now := uint32(start)
	e := mustInsert(t, table, packet.ProtoTCP, 1, 2, now)
	m := newModelTCP(now)
	for i := 0; len(data) >= 3; i, data = i+1, data[3:] {
		dir := Direction(data[0] >> 7)
		now += uint32(data[0] >> 4 & 7)
		flags := []uint8{tcpACK, tcpACK, tcpACK, tcpACK | tcpPSH, tcpACK, tcpSYN, tcpSYN | tcpACK, tcpFIN | tcpACK, tcpRST,
			tcpRST | tcpACK, tcpACK | tcpURG, tcpACK, tcpACK, tcpSYN | tcpFIN, 0, tcpFIN}[data[0]&15]
		h, payload := m.segment(dir, flags, data[1], data[2])
		before := *m
		want := m.packet(dir, readSegment(h, payload), now)
		got := sendTCP(e, dir, h, payload, now)
		if got != want || e.State() != m.state || e.Replied() != m.replied || e.Assured() != m.assured || e.Expiry() != m.deadline() {
			t.Fatalf("segment %d, %s %+v at %d: %d, %s, replied %v, assured %v, until %d;\nwant %d, %s, %v, %v, %d\nfrom %+v\nto   %+v", i, dir, readSegment(h, payload),
				now, got, e.State(), e.Replied(), e.Assured(), e.Expiry(), want, m.state, m.replied, m.assured, m.deadline(), before, *m)
		}
		w := e.loadTrack()
		for d := range w.window {
			s, o, k := &w.window[d], &w.window[1-d], &m.side[d]
			if m.state != None && k.maxwin != 0 && (s.end != k.end || s.maxwin() != k.maxwin || s.meta&metaAcked != 0 && s.maxack != k.maxack || !m.liberal && o.edge != k.maxend) {
				t.Fatalf("segment %d, %s %+v: side %d is %+v, other %+v, want %+v", i, dir, readSegment(h, payload), d, *s, *o, *k)
			}
		}
	}
}

func FuzzTCP(f *testing.F) {
	f.Fuzz(playTCP)
}

func TestTCPAgainstModel(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 2))
		data := []byte{5, 0, byte(seed), 0x86, 0, byte(seed >> 4), 0, 0, 0} // a handshake
		if seed%5 == 0 {
			data = nil
		}
		for range 60 {
			data = append(data, byte(r.IntN(256)), byte(r.IntN(12)*b2i(r.IntN(3) != 0)), byte(r.IntN(256)>>r.IntN(8)))
		}
		playTCP(t, data)
	}
}

func TestFlowsAgainstModel(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 3*1500)
		few := 1 + r.IntN(255) // how many connections take part
		for i := range data {
			switch i % 3 {
			case 1:
				data[i] = byte(r.IntN(few))
			case 2:
				// Flags that packets really have, mostly.
				data[i] = []byte{tcpSYN, tcpSYN | tcpACK, tcpACK, tcpACK, tcpACK, tcpFIN | tcpACK, tcpRST, byte(r.IntN(256))}[r.IntN(8)]
			default:
				data[i] = byte(r.IntN(256))
			}
		}
		play(t, data)
	}
}
