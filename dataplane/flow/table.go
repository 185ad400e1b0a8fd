package flow

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// MaxCapacity bounds the number of connections in a table.
const MaxCapacity = 1 << 26

// Table is a flow table. Its methods are safe for concurrent use under the
// rules of the package comment. It must not be copied.
type Table struct {
	// Read by workers without a lock; they never change until Close.
	entries []Entry
	buckets []bucket

	mem      []byte
	capacity int

	epoch    atomic.Uint64 // counts rounds of quiescence, from 1
	enlisted atomic.Int32  // workers from here on have never been seen
	workers  [MaxWorkers]workerEpoch

	// Everything below belongs to the holder of mu, and so do the fields of
	// entries and buckets that say so.
	mu         sync.Mutex
	now        uint32 // the latest time that was told
	fresh      uint32 // entries from here on have never been used
	free       uint32 // first of the used ones that may be used again, by order.next
	limbo      limbo
	wheel      wheel
	order      [classes]queue
	accounts   []account // by owner
	ownerLimit int32
	stats      Stats

	journal journal
}

// Stats are a table's counters. States and Len are of now, the others since
// the table was made.
type Stats struct {
	Len, Capacity int
	States        [States]int
	Inserts       uint64
	// InsertFailures counts flows that could not be kept, by Refusal.
	InsertFailures Failures
	Expired        uint64
	Flushed        uint64
	Gone           uint64 // had nowhere to go any more
	Evicted        Evictions
	// Limbo is the number of deleted entries that wait for a worker.
	Limbo int
}

// Failures of Insert by reason.
type Failures struct{ Full, Clash, Limit uint64 }

// Evictions to make room, by what was evicted. Wire are embryonic flows whose
// first packet came by an uplink; Embryonic are the others.
type Evictions struct{ Wire, Embryonic, Closing, Established uint64 }

// entriesFor is the number of entries to allocate: a spare fortieth, within
// bounds, holds those that wait for the workers' quiescence. From 64 k on a
// connection then takes 256 bytes at most.
func entriesFor(capacity int) int {
	return 1 + capacity + min(max(capacity/40, 256), 8192)
}

// bucketsFor fills the buckets to five eighths when the table is full: then one
// lookup in twenty looks at a second bucket.
func bucketsFor(capacity int) int { return 2*capacity/5 + 2 }

// New makes an empty table for capacity connections, 1 to MaxCapacity. Close
// releases its memory.
func New(capacity int) (*Table, error) {
	if capacity < 1 || capacity > MaxCapacity {
		return nil, fmt.Errorf("flow table: capacity %d: must be 1 to %d", capacity, MaxCapacity)
	}
	mem, err := mapMemory(memorySize(capacity))
	if err != nil {
		return nil, fmt.Errorf("flow table: capacity %d: %w", capacity, err)
	}
	t := newTable(mem, capacity)
	t.mem = mem
	return t, nil
}

// memorySize is the bytes that a table takes.
func memorySize(capacity int) int {
	n := entriesFor(capacity)
	return windowBytes(n) + n*entrySize + bucketsFor(capacity)*bucketSize
}

// newTable makes a table in zeroed memory.
func newTable(mem []byte, capacity int) *Table {
	t := &Table{capacity: capacity, fresh: 1, accounts: make([]account, 1<<16), ownerLimit: int32(OwnerLimit(capacity))}
	t.entries, t.buckets = carve(mem, entriesFor(capacity), bucketsFor(capacity))
	t.epoch.Store(1)
	return t
}

// Close releases the memory. No worker may use the table or hold an entry. Others who
// ask it afterwards find no flows.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	mem := t.mem
	t.mem, t.entries, t.buckets = nil, nil, nil
	if mem == nil {
		return nil
	}
	return unmapMemory(mem)
}

// Capacity is the number of connections the table holds at most.
func (t *Table) Capacity() int { return t.capacity }

// Memory is the number of bytes that the table has mapped.
func (t *Table) Memory() int { return memorySize(t.capacity) }

// Len is the number of connections.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats.Len
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	s := t.stats
	s.Capacity = t.capacity
	s.Limbo = t.limbo.waiting.count + t.limbo.later.count
	return s
}

// tell notes the time. Workers' clocks differ a little; it never goes back.
func (t *Table) tell(now uint32) {
	if int32(now-t.now) > 0 || t.now == 0 {
		t.now = now
	}
}
