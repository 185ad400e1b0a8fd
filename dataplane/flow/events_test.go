package flow

import (
	"fmt"
	"slices"
	"testing"

	"culvert/internal/packet"
)

// said are the events that a watcher has, as words.
func said(t *testing.T, w *Watcher) (list []string) {
	t.Helper()
	buf := make([]Event, 7)
	for {
		n, missed := w.Read(buf)
		if missed != 0 {
			t.Errorf("%d events were missed", missed)
		}
		for i := range buf[:n] {
			list = append(list, fmt.Sprintf("%d %s %s", buf[i].Orig.SrcPort, buf[i].Change, buf[i].State))
		}
		if n < len(buf) {
			return list
		}
	}
}

// Each way of a flow into the table, through its states and out is told, in order,
// to those who watch, and to nobody else.
func TestEvents(t *testing.T) {
	table := heapTable(t, 2)
	tcp := func(sport uint16) packet.Key { return testKey(packet.ProtoTCP, sport, 80) }
	udp := func(sport uint16) packet.Key { return testKey(packet.ProtoUDP, sport, 53) }
	begin := func(k packet.Key, now uint32) *Entry {
		reply := k.Reverse()
		e, _, r := table.Insert(&k, &reply, 1, now)
		if r != Accepted {
			t.Fatalf("no room for %s", k)
		}
		if k.Proto == packet.ProtoUDP {
			e.Touch(Original, &packet.Info{Key: k, Proto: k.Proto}, nil, 100, 1, now)
		}
		return e
	}
	begin(udp(1), 100) // before anybody watches
	w := table.Watch()
	first := talk{e: begin(tcp(2), 100), iss: [2]uint32{1, 2}}
	first.say(Original, tcpSYN, 0, 100)
	first.say(Reply, tcpSYN|tcpACK, 0, 100)
	want := []string{"2 new SYN_RECV"}
	if got := said(t, w); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	first.say(Original, tcpACK, 0, 100)
	begin(udp(3), 100) // in the place of the first, which is embryonic
	table.Flush(func(v *View) bool { return v.Orig.SrcPort == 2 })
	last := begin(udp(4), 100)
	table.Drop(last)
	table.Drop(last)
	table.Sweep(200, 100)
	want = []string{"2 update ESTABLISHED", "1 evicted UNREPLIED", "3 new UNREPLIED", "2 flushed ESTABLISHED",
		"4 new UNREPLIED", "4 unroutable UNREPLIED", "3 expired UNREPLIED"}
	if got := said(t, w); !slices.Equal(got, want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
	if s := table.Stats(); s.Gone != 1 || s.Flushed != 1 || s.Expired != 1 || s.Evicted.Embryonic != 1 || s.Len != 0 {
		t.Errorf("%+v", s)
	}
	w.Close()
	begin(udp(5), 200)
	if got := said(t, table.Watch()); len(got) != 0 {
		t.Errorf("%q were written down for nobody", got)
	}
}

// A watcher that sleeps too long is told how much it has missed, and goes on.
func TestMissedEvents(t *testing.T) {
	table := heapTable(t, 64)
	w := table.Watch()
	defer w.Close()
	for i := range journalSize + 100 {
		k := testKey(packet.ProtoUDP, uint16(i), 53)
		reply := k.Reverse()
		e, _, r := table.Insert(&k, &reply, 1, 1)
		if r != Accepted {
			t.Fatal("no room")
		}
		table.Drop(e)
	}
	buf := make([]Event, 2*journalSize)
	n, missed := w.Read(buf)
	if n != journalSize || missed != journalSize+200 {
		t.Errorf("%d events came and %d were missed", n, missed)
	}
	if last := buf[n-1]; last.Change != Gone || last.Orig.SrcPort != uint16(journalSize+99) {
		t.Errorf("the last one is %+v", last)
	}
}

// Inserting for a watcher does not allocate either.
func TestEventsDoNotAllocate(t *testing.T) {
	table := heapTable(t, 64)
	w := table.Watch()
	defer w.Close()
	port := uint16(0)
	if got := testing.AllocsPerRun(1000, func() {
		port++
		k := testKey(packet.ProtoUDP, port, 53)
		reply := k.Reverse()
		e, _, _ := table.Insert(&k, &reply, 1, 1)
		table.Drop(e)
	}); got != 0 {
		t.Errorf("%v allocations a flow", got)
	}
}

// testKey is that of a packet from one pod to another.
func testKey(proto uint8, sport, dport uint16) packet.Key {
	return packet.Key{Src: packet.AddrFrom4(0x0a010001), Dst: packet.AddrFrom4(0x0a010102),
		SrcPort: sport, DstPort: dport, Proto: proto, Family: 4}
}
