package capture

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// Ring carries records from one goroutine to another without a lock. Its memory is
// all allocated, and touched, when it is made. Positions count bytes since the start
// and never go back.
type Ring struct {
	buf  []byte // a power of two
	mask uint64

	// The writer's: where the next record goes, and how far the reader was when
	// the writer last looked.
	next, seen uint64
	_          [64]byte
	head       atomic.Uint64 // written by Publish: records up to here are whole
	missed     atomic.Uint64 // written by the writer
	_          [64]byte
	tail       atomic.Uint64 // written by the reader: it needs nothing before
	at         uint64        // the reader's: the record that Peek showed
	_          [64]byte
}

// NewRing makes a ring of so many bytes, a power of two of at least 4096. The largest
// record has half of that.
func NewRing(size int) (*Ring, error) {
	if size < 4096 || size&(size-1) != 0 {
		return nil, fmt.Errorf("capture ring of %d bytes: must be a power of two of at least 4096", size)
	}
	r := &Ring{buf: make([]byte, size), mask: uint64(size - 1)}
	for i := 0; i < size; i += 4096 {
		r.buf[i] = 1 // the page is there before a worker needs it
	}
	return r, nil
}

// Most is the largest number of a frame's bytes that fit into a record.
func (r *Ring) Most() int { return len(r.buf)/2 - headerLen - align }

// Reserve makes room for a record with n bytes of data, at most Most, which the caller fills before
// Publish. Without room the frame is counted as missed and nil returned. r.Data is not used.
func (r *Ring) Reserve(rec *Record, n int) []byte {
	size := uint64(headerLen+n+align-1) &^ (align - 1)
	start := r.next & r.mask
	skip := uint64(0)
	if rest := uint64(len(r.buf)) - start; rest < size {
		skip = rest // records are in one piece
	}
	if r.next+skip+size-r.seen > uint64(len(r.buf)) {
		r.seen = r.tail.Load()
		if r.next+skip+size-r.seen > uint64(len(r.buf)) {
			r.missed.Store(r.missed.Load() + 1)
			return nil
		}
	}
	if skip > 0 {
		binary.LittleEndian.PutUint32(r.buf[start:], 0)
		start = 0
	}
	b := r.buf[start : start+size]
	rec.put(b, int(size), n)
	r.next += skip + size
	return b[headerLen : headerLen+n]
}

// Publish shows the reader the records reserved so far.
func (r *Ring) Publish() {
	if r.head.Load() != r.next {
		r.head.Store(r.next)
	}
}

// Missed is the number of frames that found no room. Safe from any goroutine.
func (r *Ring) Missed() uint64 { return r.missed.Load() }

// Head is how far the reader could read now.
func (r *Ring) Head() uint64 { return r.head.Load() }

// Peek shows the reader the next record, if there is one before head. It stays until Pop.
func (r *Ring) Peek(rec *Record, head uint64) bool {
	tail := r.tail.Load()
	for tail < head {
		b := r.buf[tail&r.mask:]
		size := binary.LittleEndian.Uint32(b)
		if size == 0 {
			tail += uint64(len(b))
			continue
		}
		rec.get(b[:size])
		r.at = tail + uint64(size)
		return true
	}
	return false
}

// Pop gives the memory of the record that Peek showed back to the writer.
func (r *Ring) Pop() { r.tail.Store(r.at) }
