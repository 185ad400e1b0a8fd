package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"culvert/internal/packet"
)

// line is one segment of a case, with numbers relative to each side's first.
type line struct {
	dir      Direction
	flags    uint8
	seq, ack uint32
	payload  int
	win      uint16
	options  []byte
	result   Result
	state    State
}

// caseISS is the original side's first sequence number, caseIRS the reply's.
const (
	caseISS = 1<<32 - 100
	caseIRS = 1<<31 - 100
)

// sackOption acknowledges a block of the original side.
func sackOption(from, to uint32) []byte {
	o := binary.BigEndian.AppendUint32([]byte{1, 1, 5, 10}, from-(1<<32-caseISS))
	return binary.BigEndian.AppendUint32(o, to-(1<<32-caseISS))
}

func TestTCPCases(t *testing.T) {
	const (
		o, r = Original, Reply
		syn  = tcpSYN
		sa   = tcpSYN | tcpACK
		ack  = tcpACK
		fin  = tcpFIN | tcpACK
		rst  = tcpRST
	)
	scaled := []byte{2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1} // MSS, SACK allowed, scale 7
	open := []line{
		{o, syn, 0, 0, 0, 64000, scaled, Pass, SynSent},
		{r, sa, 0, 1, 0, 64000, scaled, Pass, SynRecv},
		{o, ack, 1, 1, 0, 500, nil, Pass, Established},
		{r, ack, 1, 1, 0, 500, nil, Pass, Established},
	}
	for name, lines := range map[string][]line{
		"data within the scaled window": {
			{o, ack, 1, 1, 60000, 500, nil, Pass, Established},
			{r, ack, 1, 60001, 0, 500, nil, Pass, Established},
			{o, ack, 60001, 1, 64000, 500, nil, Pass, Established},
		},
		"data beyond the window": {
			{o, ack, 1 + 64001, 1, 10, 500, nil, Pass, Established}, // a little: the receiver may take it
			{o, ack, 1 + 200000, 1, 10, 500, nil, Invalid, Established},
			{o, ack, 1, 1, 10, 500, nil, Pass, Established},
		},
		"a big frame stands for its segments": {
			{o, ack, 1, 1, 60000, 500, nil, Pass, Established},
			{r, ack, 1, 1 + 1400, 0, 500, nil, Pass, Established},
			{r, ack, 1, 60001, 0, 500, nil, Pass, Established},
			{r, ack, 1, 60002, 0, 500, nil, Invalid, Established},
		},
		"an acknowledgment of what was not sent": {
			{r, ack, 1, 2, 0, 500, nil, Invalid, Established},
			{r, ack, 1, 1, 0, 500, nil, Pass, Established},
		},
		"retransmissions": {
			{o, ack, 1, 1, 3000, 500, nil, Pass, Established},
			{o, ack, 1, 1, 1000, 500, nil, Pass, Established},
			{r, ack, 1, 3001, 0, 500, nil, Pass, Established},
			{o, ack, 1001, 1, 1000, 500, nil, Pass, Established},
			{r, ack, 1, 3001, 0, 500, sackOption(1001, 2001), Pass, Established},
		},
		"keep-alives": {
			{o, ack, 0, 1, 0, 500, nil, Pass, Established},
			{r, ack, 1, 1, 0, 500, nil, Pass, Established},
			{o, ack, 0, 1, 1, 500, nil, Pass, Established},
			{r, ack, 0, 1, 0, 500, nil, Pass, Established},
		},
		"zero window probes": {
			{o, ack, 1, 1, 64000, 500, nil, Pass, Established},
			{r, ack, 1, 64001, 0, 0, nil, Pass, Established},
			{o, ack, 64001, 1, 1, 500, nil, Pass, Established},
			{r, ack, 1, 64001, 0, 0, nil, Pass, Established},
			{o, ack, 64000, 1, 0, 500, nil, Pass, Established},
			{r, ack, 1, 64002, 0, 500, nil, Pass, Established},
			{o, ack, 64002, 1, 60000, 500, nil, Pass, Established},
		},
		"selective acknowledgments": {
			{o, ack, 1, 1, 5000, 500, nil, Pass, Established},
			{r, ack, 1, 1, 0, 500, sackOption(2001, 5001), Pass, Established},
			{r, ack, 1, 1, 0, 500, sackOption(2001, 5002), Invalid, Established},
		},
		"a forged reset": {
			{o, ack, 1, 1, 5000, 500, nil, Pass, Established},
			{r, ack, 1, 5001, 0, 500, nil, Pass, Established},
			{o, rst, 100, 0, 0, 0, nil, Invalid, Established},           // before what was acknowledged
			{o, rst, 5001 + 200000, 0, 0, 0, nil, Invalid, Established}, // beyond the window
			{o, rst, 5001 + 1000, 0, 0, 0, nil, Pass, Established},      // within: the other end may challenge it
			{r, ack, 1, 5001, 0, 500, nil, Pass, Established},
			{o, rst, 5001, 0, 0, 0, nil, Pass, Close}, // exact
		},
		"a reset behind data": {
			{o, ack, 1, 1, 500, 500, nil, Pass, Established},
			{o, rst, 501, 0, 0, 0, nil, Pass, Close},
		},
		"the client begins anew without our noticing": {
			{o, syn, 5_000_000, 0, 0, 64000, scaled, Pass, Established},
			{r, ack, 1, 1, 0, 500, nil, Pass, Established}, // RFC 5961's challenge
			{o, rst, 1, 0, 0, 0, nil, Pass, Close},
			{o, syn, 5_000_000, 0, 0, 64000, scaled, Pass, SynSent},
			{r, sa, 7_000_000, 5_000_001, 0, 64000, scaled, Pass, SynRecv},
			{o, ack, 5_000_001, 7_000_001, 0, 500, nil, Pass, Established},
			{o, ack, 1, 1, 0, 500, nil, Pass, Established}, // long ago: let through, of no effect
		},
		"the server has forgotten it": {
			{o, syn, 5_000_000, 0, 0, 64000, scaled, Pass, Established},
			{r, sa, 7_000_000, 5_000_001, 0, 64000, scaled, Pass, SynRecv},
			{o, ack, 5_000_001, 7_000_001, 0, 500, nil, Pass, Established},
			{o, ack, 5_000_001, 7_000_001, 60000, 500, nil, Pass, Established},
			{r, ack, 7_000_001, 5_060_001, 60000, 500, nil, Pass, Established},
		},
		"a challenge does not acknowledge the last FIN": {
			{o, fin, 1, 1, 0, 500, nil, Pass, FinWait},
			{r, fin, 1, 2, 0, 500, nil, Pass, LastAck},
			{o, syn, 9000, 0, 0, 500, nil, Pass, LastAck},
			{r, ack, 2, 2, 0, 500, nil, Pass, LastAck},
			{o, ack, 2, 2, 0, 500, nil, Pass, TimeWait},
		},
		"closed and opened again": {
			{o, fin, 1, 1, 0, 500, nil, Pass, FinWait},
			{r, ack, 1, 2, 0, 500, nil, Pass, CloseWait},
			{r, fin, 1, 2, 0, 500, nil, Pass, LastAck},
			{o, ack, 2, 2, 0, 500, nil, Pass, TimeWait},
			{o, syn, 8_000_000, 0, 0, 64000, scaled, Pass, SynSent},
			{r, sa, 3_000_000_000, 8_000_001, 0, 64000, nil, Pass, SynRecv},
			{o, ack, 8_000_001, 3_000_000_001, 0, 64000, nil, Pass, Established},
			{r, ack, 3_000_000_001, 8_000_001, 1000, 64000, nil, Pass, Established},
		},
		"segments of an old connection": {
			{o, ack, 1_000_000_000, 1, 10, 500, nil, Invalid, Established},
			{r, fin, 1, 900_000, 0, 500, nil, Invalid, Established},
			{o, tcpSYN | tcpFIN, 1, 0, 0, 500, nil, Invalid, Established},
			{r, syn, 1, 0, 0, 500, nil, Invalid, Established},
			{o, sa, 1, 1, 0, 500, nil, Invalid, Established},
		},
		"scaling only if both sides ask": nil,
		"both open at once":              nil,
	} {
		t.Run(name, func(t *testing.T) {
			lines := append(append([]line(nil), open...), lines...)
			switch name {
			case "scaling only if both sides ask":
				lines = append([]line{open[0], {r, sa, 0, 1, 0, 1000, nil, Pass, SynRecv}}, []line{
					{o, ack, 1, 1, 0, 1000, nil, Pass, Established},
					{r, ack, 1, 1, 900, 1000, nil, Pass, Established},
					{o, ack, 1, 901, 999, 1000, nil, Pass, Established},
					{o, ack, 2002, 901, 10, 1000, nil, Invalid, Established},
				}...)
				lines[1].options = []byte{2, 4, 5, 180}
			case "both open at once":
				lines = []line{
					{o, syn, 0, 0, 0, 64000, scaled, Pass, SynSent},
					{r, syn, 0, 0, 0, 64000, scaled, Pass, SynSent2},
					{o, sa, 0, 1, 0, 64000, scaled, Pass, SynRecv},
					{r, sa, 0, 1, 0, 64000, scaled, Pass, SynRecv},
					{r, ack, 1, 1, 0, 500, nil, Pass, Established},
					{o, ack, 1, 1, 60000, 500, nil, Pass, Established},
				}
			}
			e := mustInsert(t, heapTable(t, 1), packet.ProtoTCP, 4711, 80, 100)
			for i, l := range lines {
				first := [2]uint32{caseISS, caseIRS}
				h := tcpHeader(first[l.dir]+l.seq, (first[l.dir.Other()]+l.ack)*uint32(b2i(l.flags&tcpACK != 0)), l.win, l.flags, l.options...)
				if got := sendTCP(e, l.dir, h, l.payload, 100); got != l.result || e.State() != l.state {
					t.Fatalf("segment %d: %d, %s; want %d, %s", i, got, e.State(), l.result, l.state)
				}
			}
		})
	}
}

// A connection that waits for an answer, or for a window, is gone after five
// minutes; one that is at rest after five days.
func TestStalledConnections(t *testing.T) {
	const iss, irs = 1<<31 + 1_000_001, 0 // see establish
	for name, c := range map[string]struct {
		lines   [][]byte
		payload int
		timeout uint32
	}{
		"at rest":          {nil, 0, tcpEstablished},
		"unacknowledged":   {[][]byte{tcpHeader(iss, irs, 8192, tcpACK)}, 100, 300},
		"no window":        {[][]byte{tcpHeader(iss, irs, 0, tcpACK)}, 0, 300},
		"again and again":  {[][]byte{tcpHeader(iss, irs, 99, tcpACK), tcpHeader(iss, irs, 99, tcpACK), tcpHeader(iss, irs, 99, tcpACK), tcpHeader(iss, irs, 99, tcpACK)}, 0, 300},
		"a doubtful reset": {[][]byte{tcpHeader(iss+10, 0, 0, tcpRST)}, 0, 10},
	} {
		t.Run(name, func(t *testing.T) {
			table := heapTable(t, 1)
			table.Quiesce(0)
			table.Sweep(100, 1)
			e := mustInsert(t, table, packet.ProtoTCP, 4711, 80, 100)
			establish(e, 100)
			for _, h := range c.lines {
				if sendTCP(e, Original, h, c.payload, 100) != Pass {
					t.Fatal("invalid")
				}
			}
			if got := e.Expiry() - 100; got != c.timeout || e.State() != Established {
				t.Fatalf("%s for %d s, want %d", e.State(), got, c.timeout)
			}
			end := 100 + c.timeout
			for now := uint32(100); now < end; now += 7 {
				if c.timeout == tcpEstablished && now > 2000 {
					return
				}
				if table.Sweep(now, 10) != 0 {
					t.Fatalf("gone after %d s", now-100)
				}
			}
			if table.Sweep(end, 10) != 1 {
				t.Errorf("still there after %d s", c.timeout)
			}
		})
	}
}

// After a restart every segment of a connection passes, whichever comes first.
func TestEverySegmentPassesAfterARestart(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 300 {
		var e *Entry
		table := heapTable(t, 1)
		nxt, acked := [2]uint32{r.Uint32(), r.Uint32()}, [2]uint32{}
		acked[0], acked[1] = nxt[1]-r.Uint32N(1<<20), nxt[0]-r.Uint32N(1<<20)
		first := Direction(r.IntN(2)) // becomes the original direction
		for i := range 60 {
			dir := Direction(r.IntN(2))
			flags, payload, seq := uint8(tcpACK), r.IntN(60000), nxt[dir]
			if acked[dir] = nxt[dir.Other()] - min(r.Uint32N(1<<20), nxt[dir.Other()]-acked[dir]); i > 50 && r.IntN(3) == 0 {
				flags |= tcpFIN
			}
			if r.IntN(5) == 0 {
				seq -= r.Uint32N(1 << 20) // sent again; windows are scaled to a megabyte
			}
			h := tcpHeader(seq, acked[dir], uint16(r.IntN(1<<16)), flags)
			info := tcpInfo(h, payload)
			if end := seq + uint32(payload) + uint32(flags&1); int32(end-nxt[dir]) > 0 {
				nxt[dir] = end
			}
			if e == nil {
				if Begin(&info, h) != Starts {
					continue
				}
				first = dir
				e = mustInsert(t, table, packet.ProtoTCP, 4711, 80, 100)
			}
			if e.Touch(dir^first, &info, h, 1, 1, 100) != Pass {
				t.Fatalf("segment %d is invalid in %s", i, e.State())
			}
		}
	}
}

// TestOwnersHaveALimit: one pod's flood shuts out that pod alone, and takes no
// room from others.
func TestOwnersHaveALimit(t *testing.T) {
	const flooder, other = 3, 4
	table := heapTable(t, 1000)
	table.Quiesce(0)
	flood := func(proto uint8, owner uint16, n int) (refused int) {
		for i := range n {
			k := packet.Key{Src: packet.AddrFrom4(uint32(owner)), Dst: packet.AddrFrom4(uint32(i)), SrcPort: 1, DstPort: 2, Proto: proto, Family: 4}
			reply := k.Reverse()
			e, dir, r := table.Insert(&k, &reply, owner, 1)
			switch {
			case r == Limit:
				refused++
			case r != Accepted:
				t.Fatalf("refused with %d", r)
			case proto == packet.ProtoTCP:
				sendTCP(e, dir, tcpHeader(1, 0, 8192, tcpSYN), 0, 1)
			default:
				touch(e, dir, 1)
			}
			table.Quiesce(0)
		}
		return refused
	}
	if got := flood(packet.ProtoTCP, flooder, 1000); got != 1000-OwnerLimit(1000) {
		t.Errorf("%d SYNs of one pod refused, want %d", got, 1000-OwnerLimit(1000))
	}
	if got := flood(packet.ProtoTCP, other, 100); got != 0 {
		t.Errorf("%d SYNs of another pod refused", got)
	}
	if got := flood(packet.ProtoTCP, Wire, 2000); got != 0 {
		t.Errorf("%d SYNs of the wire refused", got)
	}
	s := table.Stats()
	if s.InsertFailures != (Failures{Limit: 875}) || s.Evicted.Embryonic != 0 || s.Evicted.Wire != 2000-(1000-125-100) {
		t.Errorf("%+v", s)
	}
	// Those whose handshake is complete, or that were answered, no longer count.
	for i := range 50 {
		k := packet.Key{Src: packet.AddrFrom4(flooder), Dst: packet.AddrFrom4(uint32(i)), SrcPort: 1, DstPort: 2, Proto: packet.ProtoTCP, Family: 4}
		e, _, _ := table.Lookup(&k, k.Hash())
		sendTCP(e, Reply, tcpHeader(7, 2, 8192, tcpSYN|tcpACK), 0, 1)
		sendTCP(e, Original, tcpHeader(2, 8, 8192, tcpACK), 0, 1)
	}
	if got := flood(packet.ProtoUDP, flooder, 60); got != 10 {
		t.Errorf("%d of 60 datagrams refused after 50 connections were opened, want 10", got)
	}
	table.Flush(nil)
	for owner, a := range table.accounts {
		if a.halfOpen != 0 || a.failed != 0 && owner != Wire {
			t.Errorf("owner %d has %+v in an empty table", owner, a)
		}
	}
}

// Connections that are refused at once are never many at a time; what counts is how
// many failed of late. A fourth of the limit is forgiven each second.
func TestFailedFlowsCount(t *testing.T) {
	table := heapTable(t, 10_000)
	table.SetOwnerLimit(100)
	owner := Towards(7)
	begin := func(n int, now uint32) (made int) {
		for i := range n {
			k := packet.Key{Src: packet.AddrFrom4(1), Dst: packet.AddrFrom4(now), SrcPort: uint16(i), DstPort: 2, Proto: packet.ProtoTCP, Family: 4}
			reply := k.Reverse()
			e, dir, r := table.Insert(&k, &reply, owner, now)
			if r != Accepted {
				continue
			}
			made++
			sendTCP(e, dir, tcpHeader(1, 0, 8192, tcpSYN), 0, now)
			sendTCP(e, dir.Other(), tcpHeader(0, 2, 0, tcpRST|tcpACK), 0, now)
			table.Sweep(now, 10)
		}
		return made
	}
	for _, c := range []struct{ now, want uint32 }{{10, 100}, {10, 0}, {11, 25}, {12, 25}, {14, 50}, {30, 100}} {
		if got := begin(200, c.now); got != int(c.want) {
			t.Errorf("%d flows were made in second %d, want %d", got, c.now, c.want)
		}
	}
	if got := table.Len(); got != 0 {
		t.Errorf("%d flows are left", got)
	}
}

// TestBothDirectionsAtOnce has two workers, each with the packets of one direction
// of the same connections: the other one's acknowledgments follow data at once.
// Every segment passes.
func TestBothDirectionsAtOnce(t *testing.T) {
	const connections, rounds = 8, 3000
	table := heapTable(t, connections)
	var entries [connections]*Entry
	for i := range entries {
		entries[i] = mustInsert(t, table, packet.ProtoTCP, uint16(i+1), 80, 100)
		establish(entries[i], 100)
	}
	type sent struct {
		conn int
		end  uint32
	}
	wires := [2]chan sent{make(chan sent, 64), make(chan sent, 64)}
	var all sync.WaitGroup
	for _, dir := range []Direction{Original, Reply} {
		all.Go(func() {
			defer close(wires[dir])
			r := rand.New(rand.NewPCG(uint64(dir), 8))
			var nxt, ack [connections]uint32
			for i := range nxt {
				nxt[i] = [2]uint32{1<<31 + 1_000_001, 0}[dir]
				ack[i] = [2]uint32{1<<31 + 1_000_001, 0}[dir.Other()]
			}
			in := wires[dir.Other()]
			for i := range rounds {
				for more := true; more; {
					select {
					case s, ok := <-in:
						if ok {
							ack[s.conn] = s.end
						}
						more = ok
					default:
						more = false
					}
				}
				c, payload := r.IntN(connections), r.IntN(9)
				h := tcpHeader(nxt[c], ack[c], 0xffff, tcpACK|uint8(r.IntN(2))*tcpPSH)
				if sendTCP(entries[c], dir, h, payload, 100+uint32(i/500)) != Pass {
					t.Errorf("%s: segment %d of connection %d is invalid", dir, i, c)
				}
				nxt[c] += uint32(payload)
				select {
				case wires[dir] <- sent{c, nxt[c]}:
				default: // lost
				}
			}
		})
	}
	all.Wait()
	for i, e := range entries {
		if p, _ := e.Counts(Original); e.State() != Established || p == 0 {
			t.Errorf("connection %d: %s, %d packets", i, e.State(), p)
		}
	}
}
