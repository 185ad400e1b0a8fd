package flow

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"culvert/internal/packet"
)

// TestReadersBesideAWriter has workers look flows up, touch them and hold them
// for a burst while others insert, evict, flush and sweep in a table so small
// that entries are used again all the time. No worker may ever see an entry
// change into another connection. The table is in the Go heap, so that the race
// detector sees every access.
func TestReadersBesideAWriter(t *testing.T) {
	const readers, rounds, connections, enough = 3, 1500, 64, 200
	table := heapTable(t, 24)
	var now atomic.Uint32
	now.Store(100)
	done := make(chan struct{})
	var all sync.WaitGroup
	var found [readers]atomic.Int64
	for id := range readers {
		all.Go(func() {
			defer table.Offline(id)
			r := rand.New(rand.NewPCG(uint64(id), 7))
			for {
				select {
				case <-done:
					return
				default:
				}
				table.Quiesce(id)
				found[id].Add(int64(readBurst(t, table, r, id, now.Load(), connections)))
				if r.IntN(50) == 0 {
					table.Offline(id)
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 9))
	table.Quiesce(readers)
	short := func() bool {
		for id := range found {
			if found[id].Load() < enough {
				return true
			}
		}
		return false
	}
	for i := 0; i < rounds || short(); i++ {
		k := raceKey(r.IntN(connections))
		reply := k.Reverse()
		if e, dir, ok := insert(table, &k, &reply, now.Load()); ok && e.Key(dir) != k {
			t.Errorf("Insert returned %v for %v", e.Key(dir), k)
		}
		switch {
		case i%100 == 0:
			table.Flush(func(v *View) bool { return v.Orig.SrcPort%4 == 0 })
		case i%37 == 0:
			now.Add(uint32(r.IntN(40)))
			table.Sweep(now.Load(), 100)
		case i%50 == 0:
			for v := range table.Range {
				if v.Reply != v.Orig.Reverse() {
					t.Errorf("Range yields %v with reply %v", v.Orig, v.Reply)
				}
			}
			table.Stats()
		}
		table.Quiesce(readers)
		runtime.Gosched()
	}
	close(done)
	all.Wait()
	table.Flush(nil)
	table.Offline(readers)
	table.Flush(nil)
	if s := table.Stats(); s.Len != 0 || s.Limbo != 0 || s.States != [States]int{} {
		t.Errorf("an empty table has %+v", s)
	}
}

func raceKey(n int) packet.Key {
	return packet.Key{Src: packet.AddrFrom4(0x0a010000 + uint32(n)), Dst: packet.AddrFrom4(0x0a010100), SrcPort: uint16(n), DstPort: 80,
		Proto: []uint8{packet.ProtoTCP, packet.ProtoUDP}[n%2], Family: 4}
}

// readBurst is one burst of a worker. It returns how many flows it found.
func readBurst(t *testing.T, table *Table, r *rand.Rand, id int, now uint32, connections int) (found int) {
	type held struct {
		e   *Entry
		dir Direction
		key packet.Key
	}
	var burst []held
	for range 16 {
		k := raceKey(r.IntN(connections))
		if r.IntN(2) == 0 {
			k = k.Reverse()
		}
		e, dir, ok := table.Lookup(&k, k.Hash())
		if !ok && id == 0 && r.IntN(4) == 0 {
			reply := k.Reverse()
			e, dir, ok = insert(table, &k, &reply, now)
		}
		if ok {
			burst = append(burst, held{e, dir, k})
		}
	}
	for _, h := range burst {
		flags := []uint8{tcpSYN, tcpSYN | tcpACK, tcpACK, tcpACK, tcpFIN | tcpACK, tcpRST}[r.IntN(6)]
		sendTCP(h.e, h.dir, tcpHeader(r.Uint32N(4000), r.Uint32N(4000), 1000, flags), r.IntN(1000), now)
		// Number, adjacency and context of a verdict always agree.
		n := r.Uint32()
		h.e.SetVerdict(h.dir, Verdict{Gen: n, Adj: n + 1, Ctx: uint64(n)<<32 | uint64(n)})
		if v := h.e.Verdict(h.dir); v.Gen != 0 && (v.Adj != v.Gen+1 || v.Ctx != uint64(v.Gen)<<32|uint64(v.Gen)) {
			t.Errorf("torn verdict %+v", v)
		}
		h.e.SetMSS(h.dir, uint16(n))
	}
	for _, h := range burst {
		if got := h.e.Key(h.dir); got != h.key {
			t.Errorf("worker %d: an entry it holds changed from %v to %v", id, h.key, got)
		}
	}
	return len(burst)
}
