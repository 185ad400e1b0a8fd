package flow

import (
	"testing"

	"culvert/internal/packet"
)

// heapTable is a table in the Go heap, where the race detector sees it.
func heapTable(tb testing.TB, capacity int) *Table {
	tb.Helper()
	mem := make([]byte, memorySize(capacity)+1<<16)
	return newTable(mem, capacity)
}

// mustInsert adds a flow between two addresses.
func mustInsert(tb testing.TB, t *Table, proto uint8, sport, dport uint16, now uint32) *Entry {
	tb.Helper()
	k := packet.Key{Src: packet.AddrFrom4(0x0a010002), Dst: packet.AddrFrom4(0x0a010103),
		SrcPort: sport, DstPort: dport, Proto: proto, Family: 4}
	r := k.Reverse()
	e, dir, ok := insert(t, &k, &r, now)
	if !ok || dir != Original {
		tb.Fatalf("Insert(%v) = %v, %v", k, dir, ok)
	}
	return e
}

// seen is one packet and what the flow must be after it.
type seen struct {
	at      uint32 // seconds
	dir     Direction
	flags   uint8
	state   State
	timeout uint32
	assured bool
}

func TestStatesAndTimeouts(t *testing.T) {
	const (
		o, r = Original, Reply
		syn  = tcpSYN
		sa   = tcpSYN | tcpACK
		ack  = tcpACK
		fin  = tcpFIN | tcpACK
		rst  = tcpRST
		day  = 24 * 3600
	)
	for name, c := range map[string]struct {
		proto   uint8
		port    uint16
		packets []seen
	}{
		"tcp opens and closes": {packet.ProtoTCP, 80, []seen{
			{0, o, syn, SynSent, 120, false},
			{0, r, sa, SynRecv, 60, false},
			{0, o, ack, Established, 5 * day, true},
			{5, r, ack, Established, 5 * day, true},
			{9, o, fin, FinWait, 120, true},
			{9, r, ack, CloseWait, 60, true},
			{9, r, fin, LastAck, 30, true},
			{9, o, ack, TimeWait, 120, true},
			{10, o, ack, TimeWait, 120, true},
			{20, o, syn, SynSent, 120, false},
			{20, r, sa, SynRecv, 60, false},
			{20, o, ack, Established, 5 * day, true},
		}},
		"tcp refused": {packet.ProtoTCP, 80, []seen{
			{0, o, syn, SynSent, 120, false},
			{1, r, rst | ack, Close, 0, false},
		}},
		"tcp syn sent again does not live longer": {packet.ProtoTCP, 80, []seen{
			{0, o, syn, SynSent, 120, false},
			{3, o, syn, SynSent, 117, false},
		}},
		"tcp reset": {packet.ProtoTCP, 80, []seen{
			{0, o, syn, SynSent, 120, false},
			{0, r, sa, SynRecv, 60, false},
			{0, o, ack, Established, 5 * day, true},
			{1, r, rst, Close, 10, true},
			{2, o, ack, Close, 10, true},
		}},
		"tcp picked up in the middle": {packet.ProtoTCP, 80, []seen{
			{0, o, ack, Established, 300, false},
			{1, o, ack, Established, 300, false},
			{2, r, ack, Established, 300, false},
			{3, o, ack, Established, 5 * day, true},
		}},
		"tcp picked up at its end": {packet.ProtoTCP, 80, []seen{
			{0, o, fin, None, 10, false},
			{1, r, ack, None, 9, false},
			{2, o, rst, None, 8, false},
		}},
		"tcp both open": {packet.ProtoTCP, 80, []seen{
			{0, o, syn, SynSent, 120, false},
			{0, r, syn, SynSent2, 120, false},
			{0, o, sa, SynRecv, 60, false},
			{0, r, sa, SynRecv, 60, false},
			{0, o, ack, Established, 5 * day, true},
		}},
		"tcp opened again by the server": {packet.ProtoTCP, 80, []seen{
			{0, o, ack, Established, 300, false},
			{0, r, fin, FinWait, 120, false},
			{0, o, fin, LastAck, 30, false},
			{0, r, ack, TimeWait, 120, false},
			{1, r, syn, SynSent2, 120, false},
			{1, o, sa, SynRecv, 60, false},
			{1, r, ack, Established, 5 * day, true},
			{1, o, ack, Established, 5 * day, true},
		}},
		"udp answer": {packet.ProtoUDP, 53, []seen{
			{0, o, 0, Unreplied, 30, false},
			{1, r, 0, Replied, 30, false},
			{2, o, 0, Replied, 30, false},
		}},
		"udp stream": {packet.ProtoUDP, 53, []seen{
			{0, o, 0, Unreplied, 30, false},
			{2, r, 0, Replied, 30, false},
			{3, o, 0, Assured, 120, true},
			{4, r, 0, Assured, 120, true},
		}},
		"udp without an answer": {packet.ProtoUDP, 53, []seen{
			{0, o, 0, Unreplied, 30, false},
			{20, o, 0, Unreplied, 30, false},
		}},
		"icmp echo": {packet.ProtoICMP, 77, []seen{
			{0, o, 0, Unreplied, 30, false},
			{1, r, 0, Replied, 30, false},
			{9, o, 0, Replied, 30, false},
		}},
		"esp": {50, 0, []seen{
			{0, o, 0, Unreplied, 600, false},
			{1, r, 0, Replied, 600, false},
			{9, o, 0, Assured, 600, true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			const start = 1<<32 - 5 // time wraps on the way
			table := heapTable(t, 1)
			e := mustInsert(t, table, c.proto, c.port, c.port, start)
			ends := talk{e: e, iss: [2]uint32{1000, 1<<32 - 1}}
			for i, p := range c.packets {
				now := start + p.at
				if c.proto == packet.ProtoTCP {
					ends.say(p.dir, p.flags, 0, now)
				} else {
					touch(e, p.dir, now)
				}
				if e.State() != p.state || e.Expiry()-now != p.timeout || e.Assured() != p.assured {
					t.Fatalf("packet %d: %s, %d s, assured %v; want %s, %d s, %v", i,
						e.State(), e.Expiry()-now, e.Assured(), p.state, p.timeout, p.assured)
				}
			}
		})
	}
}

func TestClockOfAnotherWorkerBehind(t *testing.T) {
	table := heapTable(t, 1)
	e := mustInsert(t, table, packet.ProtoUDP, 1, 2, 10)
	touch(e, Original, 10)
	touch(e, Original, 9)
	if e.Expiry() != 40 {
		t.Errorf("expires at %d, want 40", e.Expiry())
	}
}

func TestEntryRemembers(t *testing.T) {
	table := heapTable(t, 1)
	e := mustInsert(t, table, packet.ProtoTCP, 1, 2, 10)
	v := Verdict{Gen: 7, Adj: 1<<32 - 1, Ctx: 3<<32 | 0xc0a80001}
	e.SetVerdict(Reply, v)
	e.SetMSS(Original, 1410)
	e.Touch(Reply, &packet.Info{TCPFlags: tcpACK}, nil, 3000, 2, 10)
	if e.Verdict(Reply) != v || e.Verdict(Original) != (Verdict{}) {
		t.Errorf("verdicts %v and %v", e.Verdict(Reply), e.Verdict(Original))
	}
	if e.MSS(Original) != 1410 || e.MSS(Reply) != 0 {
		t.Errorf("MSS %d and %d", e.MSS(Original), e.MSS(Reply))
	}
	if p, b := e.Counts(Reply); p != 2 || b != 3000 {
		t.Errorf("reply counts %d and %d", p, b)
	}
	if p, b := e.Counts(Original); p != 0 || b != 0 {
		t.Errorf("original counts %d and %d", p, b)
	}
}

func TestNames(t *testing.T) {
	if SynSent.String() != "SYN_SENT" || Assured.String() != "ASSURED" || States.String() != "UNKNOWN" {
		t.Error("state names")
	}
	if Original.String() != "original" || Original.Other().String() != "reply" || Reply.Other() != Original {
		t.Error("direction names")
	}
}
