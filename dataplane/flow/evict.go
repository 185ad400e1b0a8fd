package flow

const (
	// evictIdle is for how many seconds an established flow must have been
	// silent to be evicted.
	evictIdle = 300
	// evictTries bounds the established flows that one eviction looks at.
	evictTries = 16
)

// evict deletes the flow that is missed least and reports whether there was one
// that may go. The lists are settled, but workers go on changing states: a
// candidate that has become dearer is moved to its list.
func (t *Table) evict() bool {
	evicted := [...]*uint64{wire: &t.stats.Evicted.Wire, embryonic: &t.stats.Evicted.Embryonic, closing: &t.stats.Evicted.Closing}
	for c := wire; c <= closing; c++ {
		for i := t.order[c].first; i != 0; i = t.order[c].first {
			if t.kill(i, c) {
				*evicted[c]++
				return true
			}
		}
	}
	for range min(evictTries, t.order[established].count) {
		i := t.order[established].first
		if i == 0 {
			return false
		}
		c := control(t.entries[i].ctl.Load())
		if idle := int32(c.timeout()) - int32(c.expiry()-t.now); idle >= evictIdle && t.kill(i, established) {
			t.stats.Evicted.Established++
			return true
		}
		if control(t.entries[i].ctl.Load()).class() == established {
			t.dequeue(i, established)
			t.enqueue(i, established)
		}
	}
	return false
}

// kill deletes entry i, which is listed under want, if that is what it still is.
// Otherwise it puts the entry on its right list and reports false.
func (t *Table) kill(i uint32, want class) bool {
	e := &t.entries[i]
	for {
		c := control(e.ctl.Load())
		if c.dear() == want {
			if e.ctl.CompareAndSwap(uint64(c), uint64(c|ctlDead)) {
				t.remove(i, Evicted)
				return true
			}
			continue
		}
		fixed := c.listed()
		if e.ctl.CompareAndSwap(uint64(c), uint64(fixed)) {
			t.relist(i, c, fixed)
			return false
		}
	}
}
