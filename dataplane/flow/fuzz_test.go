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
			m.packet(k, reply, b&31, uint32(op)*16)
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
