package flow

import "sync/atomic"

// MaxWorkers is the number of workers that can use a table.
const MaxWorkers = 256

// workerEpoch is the last epoch a worker has seen while it held no entry, 0
// while it is offline. It has a cache line for itself.
type workerEpoch struct {
	seen atomic.Uint64
	_    [56]byte
}

// Quiesce says that the worker holds no entry at this moment: once per burst,
// and before its first lookup. It costs two loads unless entries wait to be
// used again. worker is 0 to MaxWorkers-1.
func (t *Table) Quiesce(worker int) {
	w := &t.workers[worker]
	if epoch := t.epoch.Load(); w.seen.Load() != epoch {
		t.enlist(int32(worker) + 1)
		w.seen.Store(epoch)
	}
}

// enlist makes passed look at the first n workers at least.
func (t *Table) enlist(n int32) {
	for have := t.enlisted.Load(); have < n; have = t.enlisted.Load() {
		t.enlisted.CompareAndSwap(have, n)
	}
}

// Offline says that the worker holds no entry and will not look one up before
// it calls Quiesce again: to be called before it sleeps or ends, lest deleted
// entries wait for it.
func (t *Table) Offline(worker int) { t.workers[worker].seen.Store(0) }

// passed reports whether every worker has quiesced in epoch or later, or is
// offline.
func (t *Table) passed(epoch uint64) bool {
	for i := range t.enlisted.Load() {
		if seen := t.workers[i].seen.Load(); seen != 0 && seen < epoch {
			return false
		}
	}
	return true
}

// limbo holds deleted entries in two lots: those whose round of quiescence has
// begun, and those deleted since.
type limbo struct {
	waiting, later lot
	target         uint64 // the epoch that ends the round
}

// lot is a list of entries, singly linked by order.next.
type lot struct {
	first, last uint32
	count       int
}

// bury puts a deleted entry into limbo.
func (t *Table) bury(i uint32) {
	l := &t.limbo.later
	t.entries[i].order = links{next: l.first}
	if l.first == 0 {
		l.last = i
	}
	l.first = i
	l.count++
}

// reclaim makes the entries free that no worker can hold any more, and begins a
// round for those that were deleted meanwhile.
func (t *Table) reclaim() {
	l := &t.limbo
	for {
		if l.waiting.count == 0 {
			if l.later.count == 0 {
				return
			}
			l.waiting, l.later = l.later, lot{}
			l.target = t.epoch.Add(1)
		}
		if !t.passed(l.target) {
			return
		}
		// Changes that were under way when an entry died have reached the list
		// of changed ones by now; it must leave that before it is used again.
		t.settle()
		t.entries[l.waiting.last].order.next = t.free
		t.free = l.waiting.first
		l.waiting = lot{}
	}
}
