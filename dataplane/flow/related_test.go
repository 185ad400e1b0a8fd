package flow

import (
	"testing"

	"culvert/internal/packet"
)

func TestRelated(t *testing.T) {
	table := heapTable(t, 10)
	tcp := mustInsert(t, table, packet.ProtoTCP, 4711, 80, 100)
	establish(tcp, 100)
	const seq = 1<<31 + 1_000_001 // see establish
	sendTCP(tcp, Original, tcpHeader(seq, 0, 8192, tcpACK), 1000, 100)
	mustInsert(t, table, packet.ProtoUDP, 53, 5353, 100)
	picked := mustInsert(t, table, packet.ProtoTCP, 4712, 80, 100)
	sendTCP(picked, Original, tcpHeader(1, 1, 8192, tcpACK), 0, 100)

	key := func(e *Entry, dir Direction) packet.Key { return e.Key(dir) }
	other := key(tcp, Original)
	other.DstPort++
	for name, c := range map[string]struct {
		q    packet.Quote
		want *Entry
		dir  Direction
	}{
		"data under way":        {packet.Quote{Key: key(tcp, Original), Seq: seq, HasSeq: true}, tcp, Reply},
		"the end of it":         {packet.Quote{Key: key(tcp, Original), Seq: seq + 1000, HasSeq: true}, tcp, Reply},
		"a keep-alive":          {packet.Quote{Key: key(tcp, Original), Seq: seq - 1, HasSeq: true}, tcp, Reply},
		"acknowledged long ago": {packet.Quote{Key: key(tcp, Original), Seq: seq - 2, HasSeq: true}, nil, 0},
		"never sent":            {packet.Quote{Key: key(tcp, Original), Seq: seq + 1001, HasSeq: true}, nil, 0},
		"the answers":           {packet.Quote{Key: key(tcp, Reply), HasSeq: true}, tcp, Original},
		"another connection":    {packet.Quote{Key: other, Seq: seq, HasSeq: true}, nil, 0},
		"picked up":             {packet.Quote{Key: key(picked, Original), Seq: 77, HasSeq: true}, picked, Reply},
	} {
		e, dir, ok := table.Related(&c.q)
		if e != c.want || ok != (c.want != nil) || ok && dir != c.dir {
			t.Errorf("%s: %v, %s, %v", name, e, dir, ok)
		}
	}
}
