package flow

import "sync/atomic"

// Change is what happened to a flow.
type Change uint8

// The changes. The last four end a flow, each for another reason.
const (
	Began   Change = iota
	Moved          // to another state
	Expired        // no packet came in time
	Evicted        // its place was needed, in a full table
	Flushed        // somebody asked for it
	Gone           // its packets have nowhere to go any more
	Changes = iota
)

var changeNames = [Changes]string{"new", "update", "expired", "evicted", "flushed", "unroutable"}

// String is the change for people.
func (c Change) String() string { return changeNames[c] }

// Ended reports whether the flow is gone.
func (c Change) Ended() bool { return c > Moved }

// Event is one change of one flow, as it was then.
type Event struct {
	Change Change
	View
}

// journalSize is how many events wait for a watcher; who reads later misses some.
const journalSize = 8192

// journal keeps the latest events while somebody watches. It is under the mutex,
// but for watchers.
type journal struct {
	watchers atomic.Int32
	ring     []Event // made for the first watcher, kept
	next     uint64  // the number of the next event
}

// note writes an event down, with the mutex held. The entry is still whole.
func (t *Table) note(e *Entry, what Change) {
	j := &t.journal
	if j.watchers.Load() == 0 {
		return
	}
	ev := &j.ring[j.next%journalSize]
	ev.Change = what
	t.view(e, &ev.View)
	j.next++
}

// Watcher reads a table's events from when it was made. One goroutine uses it.
type Watcher struct {
	t    *Table
	next uint64
}

// Watch begins to watch. The watcher must be closed: events cost something.
func (t *Table) Watch() *Watcher {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.journal.ring == nil {
		t.journal.ring = make([]Event, journalSize)
	}
	t.settle() // what happened before is none of its events
	t.journal.watchers.Add(1)
	return &Watcher{t: t, next: t.journal.next}
}

// Read takes the events that came since the last call, as many as fit into buf, in
// their order. missed is how many others came and were overwritten before. It does
// not wait for events.
func (w *Watcher) Read(buf []Event) (n int, missed uint64) {
	t := w.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	j := &t.journal
	if oldest := j.next - min(j.next, journalSize); w.next < oldest {
		missed = oldest - w.next
		w.next = oldest
	}
	for n < len(buf) && w.next < j.next {
		buf[n] = j.ring[w.next%journalSize]
		n++
		w.next++
	}
	return n, missed
}

// Close ends the watching.
func (w *Watcher) Close() { w.t.journal.watchers.Add(-1) }
