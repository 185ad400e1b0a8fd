package flow

// class says how dear a flow is when the table is full.
type class uint8

const (
	// wire flows are embryonic ones whose first packet came by an uplink.
	wire class = iota
	// embryonic flows have not shown that both ends want them: not assured.
	embryonic
	// closing flows are assured ones at their end: tcp_can_early_drop in
	// net/netfilter/nf_conntrack_proto_tcp.c, sctp_can_early_drop in its twin.
	closing
	// established are all others.
	established

	classes
)

// class of the flow by its state.
func (c control) dear() class {
	if c&ctlAssured == 0 {
		if c&ctlWire != 0 {
			return wire
		}
		return embryonic
	}
	switch c.state() {
	case FinWait, CloseWait, LastAck, TimeWait, Close, ShutdownSent, ShutdownRecd, ShutdownAckSent:
		return closing
	}
	return established
}

// halfOpen reports whether the flow counts against its owner's limit: TCP and
// SCTP until the handshake is complete, all others until there is an answer. A
// client of many short exchanges, of DNS for instance, is not to be limited by
// those that were answered.
func (c control) halfOpen() bool {
	if k := c.kind(); k == kindTCP || k == kindSCTP {
		return c&ctlAssured == 0
	}
	return c&ctlReplied == 0
}

// queue is the entries of one class, those that came first in front.
type queue struct {
	first, last uint32
	count       int
}

// enqueue puts entry i, which is in no queue, at the end of a class.
func (t *Table) enqueue(i uint32, c class) {
	q := &t.order[c]
	t.entries[i].order = links{prev: q.last}
	if q.last != 0 {
		t.entries[q.last].order.next = i
	} else {
		q.first = i
	}
	q.last = i
	q.count++
}

// dequeue takes entry i out of its class.
func (t *Table) dequeue(i uint32, c class) {
	q := &t.order[c]
	l := t.entries[i].order
	if l.prev != 0 {
		t.entries[l.prev].order.next = l.next
	} else {
		q.first = l.next
	}
	if l.next != 0 {
		t.entries[l.next].order.prev = l.prev
	} else {
		q.last = l.prev
	}
	q.count--
}

// settle brings lists, counts and timers up to date with the entries whose
// state workers have changed since the last call.
func (t *Table) settle() {
	if t.entries == nil {
		return // closed
	}
	for i := t.entries[0].changed.Swap(0); i != 0; {
		e := &t.entries[i]
		next := e.changed.Load()
		// From here on a worker may put the entry on the list again.
		for {
			c := control(e.ctl.Load())
			fixed := c &^ ctlQueued
			if c&ctlDead == 0 {
				fixed = fixed.listed()
			}
			if e.ctl.CompareAndSwap(uint64(c), uint64(fixed)) {
				if c&ctlDead == 0 {
					t.relist(i, c, fixed)
				}
				break
			}
		}
		i = next
	}
}

// listed is c with the class, the counted state and the count against its owner
// that its state demands.
func (c control) listed() control {
	c = c&^(ctlClass|ctlCounted|ctlHalf) | control(c.dear())<<classShift | control(c.state())<<countedShift
	if c.halfOpen() {
		c |= ctlHalf
	}
	return c
}

// relist moves entry i from the lists and counts of was to those of is.
func (t *Table) relist(i uint32, was, is control) {
	if was.class() != is.class() {
		t.dequeue(i, was.class())
		t.enqueue(i, is.class())
	}
	t.stats.States[was.counted()]--
	t.stats.States[is.counted()]++
	switch was.counted() {
	case is.counted():
	case None:
		t.note(&t.entries[i], Began)
	default:
		t.note(&t.entries[i], Moved)
	}
	t.charge(i, was, -1)
	t.charge(i, is, +1)
	t.disarm(i)
	t.arm(i, t.entries[i].look(is, t.now))
}
