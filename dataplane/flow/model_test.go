package flow

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"culvert/internal/packet"
)

// modelFlow is a connection as the model keeps it.
type modelFlow struct {
	orig, reply      packet.Key
	state            State
	replied, assured bool
	born, expiry     uint32
	packets, bytes   [2]uint64
	owner            uint16
	tcp              *modelTCP
	listed           class
	since            int // the table operation at which it entered its class
	verdict          [2]Verdict
}

// packet is what nf_conntrack does with a packet of a protocol without states of
// its own, said as plainly as can be.
func (f *modelFlow) packet(dir Direction, now uint32) {
	replied := f.replied // as it was before this packet
	switch f.orig.Proto {
	case packet.ProtoUDP:
		f.expiry = now + 30
		if replied && now-f.born > 2 {
			f.assured, f.expiry = true, now+120
		}
	case packet.ProtoSCTP: // of which it saw no header
		f.expiry = now + 10
		f.replied = replied || dir == Reply
		return
	case packet.ProtoICMP:
		f.expiry = now + 30
	default:
		f.expiry = now + 600
		if replied && now-f.born > 2 {
			f.assured = true
		}
	}
	f.replied = replied || dir == Reply
	switch {
	case f.assured:
		f.state = Assured
	case f.replied:
		f.state = Replied
	}
}

func (f *modelFlow) class() class {
	switch {
	case !f.assured && f.owner >= 1<<15:
		return wire
	case !f.assured:
		return embryonic
	case slices.Contains([]State{FinWait, CloseWait, LastAck, TimeWait, Close}, f.state):
		return closing
	}
	return established
}

// halfOpen is whether the flow counts against its owner's limit.
func (f *modelFlow) halfOpen() bool {
	if f.state == Unreplied || f.state == Replied || f.state == Assured {
		return !f.replied
	}
	return !f.assured
}

// model is a flow table as a Go map, beside the real one.
type model struct {
	t     *testing.T
	table *Table
	flows map[packet.Key]*modelFlow // by both keys
	now   uint32
	ops   int
	// failed are the half-open flows that have ended, by owner: one is forgiven
	// each second, a fourth of the limit.
	failed map[uint16]int
	// held are entries that worker 1 looked up and has not let go of.
	held map[*Entry]packet.Key
}

// modelCapacity is small, so that the table is full most of the time;
// modelLimit, so that owners meet it.
const (
	modelCapacity = 12
	modelLimit    = 5
)

func newModel(t *testing.T) *model {
	m := &model{t: t, table: heapTable(t, modelCapacity), flows: map[packet.Key]*modelFlow{}, now: 1000, held: map[*Entry]packet.Key{}, failed: map[uint16]int{}}
	m.table.SetOwnerLimit(modelLimit)
	m.table.Quiesce(0)
	m.table.Quiesce(1)
	m.table.Sweep(m.now, 1)
	return m
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("operation %d: %s", m.ops, fmt.Sprintf(format, args...))
}

func (m *model) forget(f *modelFlow) {
	delete(m.flows, f.orig)
	delete(m.flows, f.reply)
}

func (m *model) unique() map[*modelFlow]bool {
	all := map[*modelFlow]bool{}
	for _, f := range m.flows {
		all[f] = true
	}
	return all
}

// settle notes which flows have changed class by now, as the table does in
// every operation under its mutex.
func (m *model) settle() {
	for f := range m.unique() {
		if c := f.class(); c != f.listed {
			f.listed, f.since = c, m.ops
		}
	}
}

// packet is one packet through lookup, insert and Touch.
func (m *model) packet(k, reply packet.Key, owner uint16, flags, how uint8, bytes uint32) {
	f := m.flows[k]
	e, dir, ok := m.table.Lookup(&k, k.Hash())
	if ok != (f != nil) {
		m.fatalf("Lookup(%v) = %v, want %v", k, ok, f != nil)
	}
	if !ok {
		if e, f = m.insert(k, reply, owner); f == nil {
			return
		}
	}
	if want := Direction(b2i(f.orig != k)); dir != want {
		m.fatalf("Lookup(%v): direction %v, want %v", k, dir, want)
	}
	v := Verdict{Gen: uint32(m.ops) + 1, Adj: bytes, Ctx: uint64(m.ops)}
	e.SetVerdict(dir, v)
	f.verdict[dir] = v
	var result, want Result
	if f.tcp != nil {
		h, payload := f.tcp.segment(dir, flags, how, uint8(bytes>>4))
		info := tcpInfo(h, payload)
		result = e.Touch(dir, &info, h, bytes, 1, m.now)
		want = f.tcp.packet(dir, readSegment(h, payload), m.now)
		f.state, f.replied, f.assured, f.expiry = f.tcp.state, f.tcp.replied, f.tcp.assured, f.tcp.deadline()
	} else {
		result = e.Touch(dir, &packet.Info{}, nil, bytes, 1, m.now)
		f.packet(dir, m.now)
	}
	if result != want {
		m.fatalf("%v %s: result %d, want %d", f.orig, dir, result, want)
	}
	if want == Invalid {
		m.same(e, f)
		return
	}
	f.packets[dir]++
	f.bytes[dir] += uint64(bytes)
	m.same(e, f)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// insert adds a flow to both; a nil flow when it was rightly refused.
func (m *model) insert(k, reply packet.Key, owner uint16) (*Entry, *modelFlow) {
	m.settle()
	before := m.table.Stats()
	e, dir, refusal := m.table.Insert(&k, &reply, owner, m.now)
	ok := refusal == Accepted
	owned := m.failed[owner]
	for f := range m.unique() {
		owned += b2i(f.owner == owner && f.halfOpen())
	}
	switch clash, full := m.flows[reply] != nil, owner != Wire && owned >= modelLimit; {
	case clash != (refusal == Clash):
		m.fatalf("Insert(%v) = %d; a clash: %v", k, refusal, clash)
	case !clash && full != (refusal == Limit):
		m.fatalf("Insert(%v) = %d, owner %d has %d half-open flows", k, refusal, owner, owned)
	case clash, full:
		return nil, nil
	}
	if len(m.unique()) == modelCapacity && (ok || before.Limbo < 200) {
		m.evicted(ok)
	}
	if !ok {
		if m.table.Stats().InsertFailures.Full != before.InsertFailures.Full+1 {
			m.fatalf("a failure was not counted")
		}
		if len(m.unique()) < modelCapacity && before.Limbo < 200 {
			m.fatalf("Insert failed with %d flows and %d in limbo", len(m.unique()), before.Limbo)
		}
		return nil, nil
	}
	if dir != Original {
		m.fatalf("a new flow in direction %v", dir)
	}
	f := &modelFlow{orig: k, reply: reply, born: m.now, expiry: m.now + 30, state: Unreplied, since: m.ops, owner: owner}
	f.listed = f.class()
	switch kindOf(&k) {
	case kindTCP:
		f.state, f.expiry, f.tcp = None, m.now+10, newModelTCP(m.now)
	case kindSCTP:
		f.state, f.expiry = None, m.now+10
	case kindGeneric:
		f.expiry = m.now + 600
	}
	m.flows[k], m.flows[reply] = f, f
	m.same(e, f)
	return e, f
}

// evicted finds out which flow a full table gave up for a new one, and whether
// that was the right one.
func (m *model) evicted(ok bool) {
	var gone []*modelFlow
	oldest := map[class]int{}
	for f := range m.unique() {
		if _, _, there := m.table.Find(&f.orig); !there {
			gone = append(gone, f)
		}
		if since, any := oldest[f.listed]; !any || f.since < since {
			oldest[f.listed] = f.since
		}
	}
	if !ok {
		for f := range m.unique() {
			idle := int64(0)
			if f.tcp != nil {
				idle = int64(432000) - int64(int32(f.tcp.expiry-m.now))
			}
			if f.listed != established || f.state == Established && idle >= 300 {
				m.fatalf("Insert failed although %v, %s, could have gone", f.orig, f.state)
			}
		}
		if len(gone) != 0 {
			m.fatalf("%d flows evicted for nothing", len(gone))
		}
		return
	}
	if len(gone) != 1 {
		m.fatalf("%d flows evicted for one", len(gone))
	}
	f := gone[0]
	for c := wire; c < f.listed; c++ {
		if _, any := oldest[c]; any {
			m.fatalf("evicted %v of class %d although there was one of class %d", f.orig, f.listed, c)
		}
	}
	if f.listed != established && f.since != oldest[f.listed] {
		m.fatalf("evicted %v of %d although there was an older one of %d", f.orig, f.since, oldest[f.listed])
	}
	m.forget(f)
	m.fail(f)
}

// fail counts a flow that has left against its owner, if it was half-open.
func (m *model) fail(f *modelFlow) { m.failed[f.owner] += b2i(f.halfOpen()) }

// same compares an entry with its model.
func (m *model) same(e *Entry, f *modelFlow) {
	m.t.Helper()
	if e.Key(Original) != f.orig || e.Key(Reply) != f.reply {
		m.fatalf("keys %v and %v, want %v and %v", e.Key(Original), e.Key(Reply), f.orig, f.reply)
	}
	if e.State() != f.state || e.Assured() != f.assured || e.Replied() != f.replied || e.Expiry() != f.expiry {
		m.fatalf("%v: %s, assured %v, replied %v, until %d; want %s, %v, %v, %d", f.orig,
			e.State(), e.Assured(), e.Replied(), e.Expiry(), f.state, f.assured, f.replied, f.expiry)
	}
	for d := range Direction(2) {
		if p, b := e.Counts(d); p != f.packets[d] || b != f.bytes[d] {
			m.fatalf("%v %s: %d packets, %d bytes, want %d, %d", f.orig, d, p, b, f.packets[d], f.bytes[d])
		}
		if e.Verdict(d) != f.verdict[d] {
			m.fatalf("%v %s: verdict %v, want %v", f.orig, d, e.Verdict(d), f.verdict[d])
		}
	}
}

// advance lets time pass and sweeps; in small bites, to see that they add up.
func (m *model) advance(seconds uint32, bite int) {
	m.now += seconds
	m.settle()
	for owner := range m.failed {
		m.failed[owner] = max(0, m.failed[owner]-int(seconds))
	}
	expired := 0
	for f := range m.unique() {
		if int32(f.expiry-m.now) <= 0 {
			m.forget(f)
			m.fail(f)
			expired++
		}
	}
	// Flows that have not expired may be looked at and put back meanwhile.
	for range 1 + 4*modelCapacity/bite {
		expired -= m.table.Sweep(m.now, bite)
	}
	if expired != 0 {
		m.fatalf("Sweep left %d flows", expired)
	}
}

// flush deletes all flows of a protocol.
func (m *model) flush(proto uint8) {
	want := 0
	for f := range m.unique() {
		if f.orig.Proto == proto {
			m.forget(f)
			want++
		}
	}
	if got := m.table.Flush(func(v *View) bool { return v.Orig.Proto == proto }); got != want {
		m.fatalf("Flush = %d, want %d", got, want)
	}
}

// hold makes worker 1 look up all flows and keep what it found, or lets it go.
func (m *model) hold(on bool) {
	for e, k := range m.held {
		if e.Key(Original) != k {
			m.fatalf("an entry was used again while a worker held it")
		}
	}
	clear(m.held)
	m.table.Quiesce(1)
	if !on {
		return
	}
	for k, f := range m.flows {
		e, _, ok := m.table.Lookup(&k, k.Hash())
		if !ok {
			m.fatalf("Lookup(%v) failed", k)
		}
		m.held[e] = f.orig
	}
}

// check compares everything.
func (m *model) check() {
	left := m.unique()
	var states [States]int
	for v := range m.table.Range {
		f := m.flows[v.Orig]
		if f == nil || !left[f] {
			m.fatalf("Range yields %v, which is not there or was there before", v.Orig)
		}
		delete(left, f)
		states[f.state]++
		if v.State != f.state || v.Packets != f.packets || v.Bytes != f.bytes || v.Reply != f.reply ||
			v.Assured != f.assured || v.Unreplied == f.replied || v.Timeout != f.expiry-m.now {
			m.fatalf("Range yields %+v, want %+v", v, *f)
		}
	}
	if len(left) != 0 {
		m.fatalf("Range misses %d flows", len(left))
	}
	s := m.table.Stats()
	if s.Len != len(m.unique()) || s.States != states || m.table.Len() != s.Len {
		m.fatalf("counts %d %v, want %d %v", s.Len, s.States, len(m.unique()), states)
	}
	m.invariants()
}

// invariants looks into the table: every list holds what it should.
func (m *model) invariants() {
	t := m.table
	listed, timed := map[uint32]bool{}, map[uint32]bool{}
	for c := range t.order {
		n, prev := 0, uint32(0)
		for i := t.order[c].first; i != 0; i = t.entries[i].order.next {
			if t.entries[i].order.prev != prev || control(t.entries[i].ctl.Load()).class() != class(c) {
				m.fatalf("entry %d does not belong where it is in class %d", i, c)
			}
			listed[i] = true
			prev, n = i, n+1
		}
		if n != t.order[c].count || t.order[c].last != prev {
			m.fatalf("class %d has %d entries, counts %d", c, n, t.order[c].count)
		}
	}
	for slot := range t.wheel.slots {
		for i := t.wheel.slots[slot]; i != 0; i = t.entries[i].timer.next {
			timed[i] = true
		}
	}
	if len(listed) != t.stats.Len || !maps.Equal(listed, timed) {
		m.fatalf("%d entries in classes, %d in the wheel, %d in the table", len(listed), len(timed), t.stats.Len)
	}
	tags, over := 0, uint32(0)
	for i := range t.buckets {
		for tags64 := t.buckets[i].tags.Load(); tags64 != 0; tags64 >>= 8 {
			tags += b2i(tags64&0xff != 0)
		}
		over += t.buckets[i].over.Load()
	}
	keys := 0
	for f := range m.unique() {
		keys += 2 - b2i(f.orig == f.reply)
	}
	if tags != keys || keys == 0 && over != 0 {
		m.fatalf("%d slots taken by %d keys, %d over", tags, keys, over)
	}
}
