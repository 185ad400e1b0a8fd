package flow

import "culvert/internal/packet"

// View is a copy of one flow, for display.
type View struct {
	Proto       string // tcp, udp, sctp, icmp, icmpv6, or a number
	State       State
	Orig, Reply packet.Key
	// Packets and Bytes are by Direction.
	Packets, Bytes [2]uint64
	// Timeout is the number of seconds until the flow is gone.
	Timeout   uint32
	Assured   bool
	Unreplied bool
	// FromHost: the node's own stack sent the first packet.
	FromHost bool
}

// view copies e, whose index is in the table, while the mutex is held.
func (t *Table) view(e *Entry, v *View) {
	c := control(e.ctl.Load())
	v.Orig, v.Reply = e.half[Original].key, e.half[Reply].key
	v.Proto = packet.ProtoName(v.Orig.Proto)
	v.State = c.state()
	for d := range v.Packets {
		v.Packets[d], v.Bytes[d] = e.Counts(Direction(d))
	}
	v.Timeout = uint32(max(0, int32(e.deadline(c)-t.now)))
	v.Assured = c&ctlAssured != 0
	v.Unreplied = c&ctlReplied == 0
	v.FromHost = e.FromHost()
}

// glance is a flow as a walk saw it, and how to tell whether it is still there.
type glance struct {
	View
	index, seq uint32
}

// walkBatch is the number of entries that a walk looks at with the mutex held.
const walkBatch = 64

// glances copies the flows among the next entries from index at, and returns
// the index behind them, 0 at the end.
func (t *Table) glances(at uint32, into []glance) (n int, next uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := min(at+uint32(len(into)), t.fresh)
	if at >= end || t.entries == nil {
		return 0, 0
	}
	for i := at; i < end; i++ {
		e := &t.entries[i]
		if seq := e.half[Original].seq.Load(); seq&1 != 0 {
			into[n].index, into[n].seq = i, seq
			t.view(e, &into[n].View)
			n++
		}
	}
	return n, end
}

// Range yields every flow that is in the table from the beginning to the end of
// the call, and some of those that come or go meanwhile. Timeouts count from
// the last time given to Insert or Sweep. yield may call the table's methods.
func (t *Table) Range(yield func(View) bool) {
	var batch [walkBatch]glance
	for n, at := t.glances(1, batch[:]); at != 0; n, at = t.glances(at, batch[:]) {
		for i := range batch[:n] {
			if !yield(batch[i].View) {
				return
			}
		}
	}
}

// Flush deletes the flows for which match is true, all of them when it is nil,
// and returns how many. match may call the table's methods.
func (t *Table) Flush(match func(*View) bool) (flushed int) { return t.end(match, Flushed) }

// Forget is Flush for flows that have nowhere to go any more.
func (t *Table) Forget(match func(*View) bool) (gone int) { return t.end(match, Gone) }

// end is Flush with a reason.
func (t *Table) end(match func(*View) bool, why Change) (ended int) {
	var batch [walkBatch]glance
	for n, at := t.glances(1, batch[:]); at != 0; n, at = t.glances(at, batch[:]) {
		hits := batch[:0]
		for i := range batch[:n] {
			if match == nil || match(&batch[i].View) {
				hits = append(hits, batch[i])
			}
		}
		ended += t.endAll(hits, why)
	}
	return ended
}

// endAll deletes those of the flows that are still there.
func (t *Table) endAll(flows []glance, why Change) (ended int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	for i := range flows {
		e := &t.entries[flows[i].index]
		if e.half[Original].seq.Load() != flows[i].seq {
			continue
		}
		e.ctl.Or(uint64(ctlDead))
		t.remove(flows[i].index, why)
		ended++
	}
	t.reclaim()
	return ended
}

// Drop deletes the entry of a flow that has nowhere to go any more. A worker that
// holds it may go on using it until it calls Quiesce.
func (t *Table) Drop(e *Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.half[Original].seq.Load()&1 == 0 {
		return // another worker was faster
	}
	t.settle()
	e.ctl.Or(uint64(ctlDead))
	t.remove(e.self, Gone)
	t.reclaim()
}
