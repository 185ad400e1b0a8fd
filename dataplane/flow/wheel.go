package flow

// wheelSize is the number of slots of a second each. An entry that expires
// later than the wheel reaches is looked at once a round and put in again.
const wheelSize = 512

// wheel is a timer wheel: lists of entries by the second at which to look at
// them. A packet only moves the expiry in its entry; the entry moves when its
// slot comes up, or at once when the flow's state has changed.
type wheel struct {
	cursor uint32 // the second that is being expired; all before are done
	slots  [wheelSize]uint32
}

// firstInSlot in links.prev marks the first entry of a slot, whose number is in
// the low bits. Entry indices stay below it.
const firstInSlot = 1 << 31

// arm puts entry i, which is in no slot, where it will be looked at at second
// at, or before if that is out of reach.
func (t *Table) arm(i, at uint32) {
	w := &t.wheel
	switch d := int32(at - w.cursor); {
	case d < 0:
		at = w.cursor
	case d >= wheelSize:
		at = w.cursor + wheelSize - 1
	}
	slot := at % wheelSize
	next := w.slots[slot]
	t.entries[i].timer = links{prev: firstInSlot | slot, next: next}
	if next != 0 {
		t.entries[next].timer.prev = i
	}
	w.slots[slot] = i
}

// disarm takes entry i out of its slot.
func (t *Table) disarm(i uint32) {
	l := t.entries[i].timer
	if l.prev&firstInSlot != 0 {
		t.wheel.slots[l.prev&^firstInSlot] = l.next
	} else {
		t.entries[l.prev].timer.next = l.next
	}
	if l.next != 0 {
		t.entries[l.next].timer.prev = l.prev
	}
}

// Sweep deletes flows that expired at second now or before, and makes deleted
// entries free again. It looks at no more than limit entries; what is left
// comes first in the next call. It returns how many flows it deleted.
//
// Call it several times a second. The mutex is released between small batches.
func (t *Table) Sweep(now uint32, limit int) (expired int) {
	expired, _ = t.SweepSome(now, limit)
	return expired
}

// SweepSome is Sweep, and says whether there may be more to look at: then call it
// again soon, or flows outlive their timeouts.
func (t *Table) SweepSome(now uint32, limit int) (expired int, more bool) {
	const batch = 32
	for limit > 0 {
		n := min(limit, batch)
		seen, gone := t.sweep(now, n)
		expired += gone
		limit -= n
		if seen < n {
			return expired, false
		}
	}
	return expired, true
}

// sweep is one batch. Fewer seen than limit means that nothing is left to do.
func (t *Table) sweep(now uint32, limit int) (seen, expired int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(now)
	t.settle()
	w := &t.wheel
	if now-w.cursor > wheelSize && int32(now-w.cursor) > 0 {
		w.cursor = now - wheelSize + 1 // one round visits every slot
	}
	for int32(now-w.cursor) >= 0 {
		i := w.slots[w.cursor%wheelSize]
		if i == 0 && w.cursor != now {
			w.cursor++
			continue
		}
		if i == 0 || seen == limit {
			break
		}
		seen++
		if t.expire(i, now) {
			expired++
		}
	}
	t.reclaim()
	return seen, expired
}

// expire deletes entry i if its time has come and puts it back into the wheel
// otherwise. A packet may come at the same moment: then the flow stays.
func (t *Table) expire(i, now uint32) bool {
	e := &t.entries[i]
	for {
		c := control(e.ctl.Load())
		if int32(e.deadline(c)-now) > 0 {
			t.disarm(i)
			t.arm(i, e.look(c, now))
			return false
		}
		if e.ctl.CompareAndSwap(uint64(c), uint64(c|ctlDead)) {
			t.remove(i, Expired)
			return true
		}
	}
}
