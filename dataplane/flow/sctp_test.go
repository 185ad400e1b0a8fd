package flow

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"culvert/internal/packet"
)

// chunk is an SCTP chunk with so many bytes of body.
func chunk(typ, flags uint8, body ...byte) []byte {
	c := append([]byte{typ, flags, 0, uint8(chunkHeader + len(body))}, body...)
	for len(c)%4 != 0 {
		c = append(c, 0)
	}
	return c
}

// initChunk is an INIT or INIT ACK that asks for a tag.
func initChunk(typ uint8, tag uint32) []byte {
	return chunk(typ, 0, append(binary.BigEndian.AppendUint32(nil, tag), make([]byte, 12)...)...)
}

// sctpPacketOf is an SCTP packet from the common header on.
func sctpPacketOf(sport, dport uint16, tag uint32, chunks ...[]byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, sport)
	p = binary.BigEndian.AppendUint16(p, dport)
	p = binary.BigEndian.AppendUint32(p, tag)
	p = append(p, 0, 0, 0, 0)
	for _, c := range chunks {
		p = append(p, c...)
	}
	return p
}

func sendSCTP(e *Entry, dir Direction, l4 []byte, now uint32) Result {
	info := packet.Info{L3: 14, L4: 34, Payload: 34 + sctpHeader, L3Len: uint32(20 + len(l4)), Proto: packet.ProtoSCTP}
	return e.Touch(dir, &info, l4, info.L3Len, 1, now)
}

func TestSCTPLife(t *testing.T) {
	const o, r = Original, Reply
	data := chunk(chunkData, 3, make([]byte, 16)...)
	for name, c := range map[string][]struct {
		dir     Direction
		tag     uint32
		chunks  [][]byte
		result  Result
		state   State
		timeout uint32
		assured bool
	}{
		"opens and closes": {
			{o, 0, [][]byte{initChunk(chunkInit, 7)}, Pass, Closed, 10, false},
			{r, 8, [][]byte{initChunk(chunkInitAck, 9)}, Invalid, Closed, 10, false},
			{r, 7, [][]byte{initChunk(chunkInitAck, 9)}, Pass, CookieWait, 3, false},
			{o, 9, [][]byte{chunk(chunkCookieEcho, 0, 1, 2, 3, 4)}, Pass, CookieEchoed, 3, false},
			{r, 7, [][]byte{chunk(chunkCookieAck, 0), data}, Pass, Established, 210, true},
			{o, 9, [][]byte{data}, Pass, Established, 210, true},
			{o, 8, [][]byte{data}, Invalid, Established, 210, true},
			{r, 9, [][]byte{chunk(chunkAbort, 0)}, Invalid, Established, 210, true},
			{o, 9, [][]byte{chunk(chunkShutdown, 0, 0, 0, 0, 1)}, Pass, ShutdownSent, 3, true},
			{r, 7, [][]byte{chunk(chunkShutdownAck, 0)}, Pass, ShutdownAckSent, 3, true},
			{o, 9, [][]byte{chunk(chunkShutdownDone, 0)}, Pass, Closed, 10, true},
		},
		"aborted with the tag sent back": {
			{o, 0, [][]byte{initChunk(chunkInit, 7)}, Pass, Closed, 10, false},
			{r, 7, [][]byte{chunk(chunkAbort, 0)}, Pass, Closed, 10, false},
		},
		"picked up in the middle": {
			{o, 9, [][]byte{data}, Pass, Established, 210, false},
			{r, 7, [][]byte{chunk(3, 0, make([]byte, 12)...)}, Pass, Established, 210, false},
			{o, 9, [][]byte{data}, Pass, Established, 210, true},
			{o, 1, [][]byte{data}, Invalid, Established, 210, true},
			{r, 9, [][]byte{chunk(chunkAbort, chunkT)}, Pass, Closed, 10, true},
		},
		"by another path": {
			{o, 9, [][]byte{chunk(chunkHeartbeat, 0, 1, 2, 3, 4)}, Pass, HeartbeatSent, 30, false},
			{r, 7, [][]byte{chunk(chunkHeartbeatAck, 0, 1, 2, 3, 4)}, Pass, Established, 210, false},
			{o, 9, [][]byte{data}, Pass, Established, 210, true},
		},
		"malformed": {
			{o, 0, [][]byte{initChunk(chunkInit, 7)}, Pass, Closed, 10, false},
			{r, 7, nil, Invalid, Closed, 10, false},
			{r, 7, [][]byte{{3, 0, 0, 0}}, Invalid, Closed, 10, false},
			{r, 7, [][]byte{data, chunk(chunkCookieAck, 0)}, Invalid, Closed, 10, false},
			{r, 7, [][]byte{initChunk(chunkInitAck, 9), data}, Invalid, Closed, 10, false},
			{r, 7, [][]byte{chunk(chunkInitAck, 0, 1, 2, 3, 4)}, Invalid, Closed, 10, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := mustInsert(t, heapTable(t, 1), packet.ProtoSCTP, 5000, 36412, 100)
			for i, p := range c {
				if got := sendSCTP(e, p.dir, sctpPacketOf(5000, 36412, p.tag, p.chunks...), 100); got != p.result {
					t.Fatalf("packet %d: result %d, want %d", i, got, p.result)
				}
				if e.State() != p.state || e.Expiry() != 100+p.timeout || e.Assured() != p.assured {
					t.Fatalf("packet %d: %s, %d s, assured %v; want %s, %d, %v", i, e.State(), e.Expiry()-100, e.Assured(), p.state, p.timeout, p.assured)
				}
			}
		})
	}
}

func TestBegin(t *testing.T) {
	tcp := func(flags uint8) Start {
		h := tcpHeader(1, 1, 1, flags)
		info := tcpInfo(h, 0)
		return Begin(&info, h)
	}
	sctp := func(tag uint32, chunks ...[]byte) Start {
		l4 := sctpPacketOf(1, 2, tag, chunks...)
		return Begin(&packet.Info{L3: 14, L4: 34, L3Len: uint32(20 + len(l4)), Proto: packet.ProtoSCTP}, l4)
	}
	for name, c := range map[string]struct{ got, want Start }{
		"syn":              {tcp(tcpSYN), Starts},
		"ack":              {tcp(tcpACK | tcpPSH), Starts},
		"fin":              {tcp(tcpFIN | tcpACK), Alone},
		"rst":              {tcp(tcpRST), Alone},
		"syn ack":          {tcp(tcpSYN | tcpACK), Alone},
		"syn fin":          {tcp(tcpSYN | tcpFIN), Broken},
		"no flag":          {tcp(0), Broken},
		"christmas tree":   {tcp(tcpFIN | tcpPSH | tcpURG), Broken},
		"init":             {sctp(0, initChunk(chunkInit, 1)), Starts},
		"init with a tag":  {sctp(1, initChunk(chunkInit, 1)), Broken},
		"init and company": {sctp(0, initChunk(chunkInit, 1), chunk(chunkData, 0)), Broken},
		"data":             {sctp(1, chunk(chunkData, 0)), Starts},
		"abort":            {sctp(1, chunk(chunkAbort, 0)), Alone},
		"cookie ack":       {sctp(1, chunk(chunkCookieAck, 0)), Alone},
		"nothing":          {sctp(1), Broken},
		"udp":              {Begin(&packet.Info{L4: 34, Proto: packet.ProtoUDP}, nil), Starts},
		"fragment":         {Begin(&packet.Info{Flags: packet.Fragment, Proto: packet.ProtoTCP}, nil), Starts},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", name, c.got, c.want)
		}
	}
}

// TestSCTPAsTheKernel plays associations, mostly sensible and always begun by an
// INIT, to the kernel's conntrack and to ours.
func TestSCTPAsTheKernel(t *testing.T) {
	withOracle(t, func(o *oracle) {
		for seed := range uint64(150) {
			o.runSCTP(uint16(10000+seed), rand.New(rand.NewPCG(seed, 4)))
		}
	})
}

// runSCTP plays one association to both and fails where they differ.
func (o *oracle) runSCTP(sport uint16, r *rand.Rand) {
	now := uint32(1000)
	e := mustInsert(o.t, heapTable(o.t, 1), packet.ProtoSCTP, sport, 80, now)
	var said []string
	tags := [2]uint32{r.Uint32() | 1, r.Uint32() | 1} // what packets of each direction have to carry
	opening := []uint8{chunkInit, chunkInitAck, chunkCookieEcho, chunkCookieAck, chunkData}
	for i := range 20 {
		dir := Direction(r.IntN(2))
		types := []uint8{uint8(r.IntN(16))}
		if i < len(opening) && (i == 0 || r.IntN(8) != 0) {
			dir, types[0] = Direction(i&1), opening[i]
		}
		if r.IntN(4) == 0 && i != 0 {
			types = append(types, uint8(r.IntN(16)))
		}
		tag := tags[dir]
		if types[0] == chunkInit && (i == 0 || r.IntN(4) != 0) {
			tag = 0
		} else if n := r.IntN(12); n == 0 {
			tag = tags[dir.Other()]
		} else if n == 1 {
			tag = r.Uint32()
		}
		var chunks [][]byte
		for _, typ := range types {
			if typ == chunkInit || typ == chunkInitAck {
				if i > 1 && r.IntN(3) == 0 {
					tags[dir.Other()] = r.Uint32() | 1
				}
				chunks = append(chunks, initChunk(typ, tags[dir.Other()]))
			} else {
				chunks = append(chunks, chunk(typ, uint8(r.IntN(2)), make([]byte, r.IntN(5)*4)...))
			}
		}
		src, dst := sport, uint16(80)
		if dir == Reply {
			src, dst = dst, src
		}
		now++
		before := control(e.ctl.Load())
		l4 := sctpPacketOf(src, dst, tag, chunks...)
		passed := o.pass(dir, packet.ProtoSCTP, l4)
		result := sendSCTP(e, dir, l4, now)
		said = append(said, fmt.Sprintf("%-8s %v tag %x -> %s %d", dir, types, tag, e.State(), result))
		if passed != (result == Pass) {
			o.t.Fatalf("kernel passes: %v, ours: %v\n%s", passed, result == Pass, strings.Join(said, "\n"))
		}
		if result == Invalid && len(types) > 1 {
			return // there the chunks before the invalid one have had their effect
		}
		if diff, gone := o.compare(e, "sctp", sport, now, control(e.ctl.Load()).expiry() != before.expiry()); diff != "" {
			o.t.Fatalf("%s\n%s", diff, strings.Join(said, "\n"))
		} else if gone {
			return
		}
	}
}

// Whatever a packet holds, nothing is read beyond it, and an invalid one changes
// nothing.
func FuzzSCTP(f *testing.F) {
	f.Fuzz(func(t *testing.T, packets []byte) {
		e := mustInsert(t, heapTable(t, 1), packet.ProtoSCTP, 1, 2, 100)
		for len(packets) > 1 {
			dir, n := Direction(packets[0]>>7), min(int(packets[0]&127), len(packets)-1)
			l4 := append(make([]byte, 0, n), packets[1:1+n]...)
			packets = packets[1+n:]
			Begin(&packet.Info{L4: 34, Proto: packet.ProtoSCTP}, l4)
			before, tags := e.ctl.Load(), *e.window()
			if sendSCTP(e, dir, l4, 100) == Invalid && (e.ctl.Load() != before || *e.window() != tags) {
				t.Fatalf("the invalid packet %x changed the flow", l4)
			}
			if s := e.State(); s >= States {
				t.Fatalf("state %d", s)
			}
		}
	})
}
