package flow

import (
	"testing"

	"culvert/internal/packet"
)

func TestNewRefusesCapacity(t *testing.T) {
	for _, n := range []int{-1, 0, MaxCapacity + 1} {
		if _, err := New(n); err == nil {
			t.Errorf("New(%d) succeeded", n)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	table, err := New(10)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
	for range table.Range {
		t.Error("a closed table has flows")
	}
}

func TestMemoryPerConnection(t *testing.T) {
	for _, n := range []int{1 << 16, 1 << 18, 1 << 20, 1 << 24} {
		if per := float64(memorySize(n)) / float64(n); per > 256 {
			t.Errorf("%d connections take %.1f bytes each", n, per)
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	table, keys := filled(t, 1000, 900)
	h := keepOn(Original)
	info := tcpInfo(h, 0)
	i, now := 0, uint32(10)
	key := packet.Key{Proto: packet.ProtoUDP, SrcPort: 7, DstPort: 9, Family: 4}
	check := func(name string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(500, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	check("Lookup and Touch", func() {
		k := &keys[i%len(keys)]
		e, dir, _ := table.Lookup(k, k.Hash())
		e.Touch(dir, &info, h, 1500, 1, now)
		e.SetVerdict(dir, Verdict{Gen: 1, Adj: uint32(i)})
		e.Verdict(dir)
		i, now = i+1, now+1
	})
	check("Insert with eviction", func() {
		key.Src = packet.AddrFrom4(uint32(i))
		reply := key.Reverse()
		e, dir, ok := insert(table, &key, &reply, now)
		if !ok {
			t.Fatal("table full")
		}
		e.Touch(dir, &info, h, 100, 1, now)
		table.Quiesce(0)
		i++
	})
	check("Sweep", func() { now += 5; table.Sweep(now, 100) })
	check("Quiesce", func() { table.Quiesce(0); table.Offline(0) })
	check("Find", func() { table.Find(&key) })
}

// TestFloodLeavesEstablishedFlows is a SYN flood on a table half full of
// connections.
func TestFloodLeavesEstablishedFlows(t *testing.T) {
	table, keys := filled(t, 1000, 500)
	for i := range 20000 {
		k := packet.Key{Src: packet.AddrFrom4(uint32(i)), Dst: packet.AddrFrom4(1), SrcPort: 1, DstPort: 2, Proto: packet.ProtoTCP, Family: 4}
		reply := k.Reverse()
		e, dir, ok := insert(table, &k, &reply, 1)
		if !ok {
			t.Fatalf("SYN %d found no room", i)
		}
		sendTCP(e, dir, tcpHeader(1, 0, 8192, tcpSYN), 0, 1)
		if i%64 == 0 {
			table.Quiesce(0)
		}
	}
	for i := range keys {
		if _, _, ok := table.Lookup(&keys[i], keys[i].Hash()); !ok {
			t.Fatalf("established flow %v is gone", keys[i])
		}
	}
	if s := table.Stats(); s.Evicted.Wire != 19500 || s.Evicted.Established != 0 || s.States[Established] != 500 || s.States[SynSent] != 500 {
		t.Errorf("%+v", s)
	}
}

func TestFullOfEstablishedFlows(t *testing.T) {
	table, _ := filled(t, 100, 100)
	k := packet.Key{Proto: packet.ProtoTCP, SrcPort: 1, DstPort: 2}
	reply := k.Reverse()
	if _, _, ok := insert(table, &k, &reply, 300); ok {
		t.Error("an established flow was evicted 299 s after its last packet")
	}
	e, _, ok := insert(table, &k, &reply, 301)
	if !ok {
		t.Fatal("no established flow was evicted 300 s after its last packet")
	}
	if s := table.Stats(); s.Evicted.Established != 1 || s.InsertFailures.Full != 1 || s.Len != 100 {
		t.Errorf("%+v", s)
	}
	if e.Counts(Original); e.MSS(Original) != 0 {
		t.Error("the new flow has the old one's MSS")
	}
}

// TestStuckWorker has a worker that never quiesces: the table must not use any
// entry again, and recover when the worker goes on.
func TestStuckWorker(t *testing.T) {
	table := heapTable(t, 10)
	table.Quiesce(0)
	table.Quiesce(5)
	insert := func(i int) bool {
		k := packet.Key{Src: packet.AddrFrom4(uint32(i)), Proto: packet.ProtoUDP, SrcPort: 1}
		reply := k.Reverse()
		_, _, ok := insert(table, &k, &reply, 1)
		table.Quiesce(0)
		return ok
	}
	n := 0
	for insert(n) {
		n++
	}
	if want := entriesFor(10) - 1; n != want {
		t.Errorf("%d flows inserted before the entries ran out, want %d", n, want)
	}
	if table.Len() != 10 {
		t.Errorf("%d flows, want 10: a failed insert must not evict", table.Len())
	}
	table.Quiesce(5)
	if !insert(n) {
		t.Error("no room after the worker went on")
	}
	table.Offline(5)
	for i := range 1000 {
		if !insert(n + 1 + i) {
			t.Fatalf("insert %d failed although the stuck worker is gone", i)
		}
	}
}

func TestInsertTwice(t *testing.T) {
	table := heapTable(t, 10)
	k := packet.Key{Proto: packet.ProtoTCP, SrcPort: 1, DstPort: 2}
	reply := k.Reverse()
	first, _, _ := insert(table, &k, &reply, 1)
	if e, dir, ok := insert(table, &k, &reply, 1); e != first || dir != Original || !ok {
		t.Error("the same flow was inserted twice")
	}
	if e, dir, ok := insert(table, &reply, &k, 1); e != first || dir != Reply || !ok {
		t.Error("the answer made a flow of its own")
	}
	other := packet.Key{Proto: packet.ProtoTCP, SrcPort: 3, DstPort: 2}
	if _, _, ok := insert(table, &other, &reply, 1); ok {
		t.Error("two flows have one reply key")
	}
	if s := table.Stats(); s.InsertFailures.Clash != 1 || s.Inserts != 1 {
		t.Errorf("%+v", s)
	}
}

func TestFind(t *testing.T) {
	table := heapTable(t, 10)
	e := mustInsert(t, table, packet.ProtoTCP, 4711, 80, 5)
	sendTCP(e, Original, tcpHeader(1, 0, 8192, tcpSYN), 0, 5)
	k := e.Key(Reply)
	v, dir, ok := table.Find(&k)
	if !ok || dir != Reply || v.Proto != "tcp" || v.State != SynSent || v.Timeout != 120 || !v.Unreplied || v.Packets[0] != 1 {
		t.Errorf("Find = %+v, %v, %v", v, dir, ok)
	}
	k.Zone = 9
	if _, _, ok := table.Find(&k); ok {
		t.Error("a flow of another zone was found")
	}
}
