package flow

import (
	"unsafe"

	"culvert/internal/packet"
)

const (
	entrySize  = int(unsafe.Sizeof(Entry{}))
	bucketSize = int(unsafe.Sizeof(bucket{}))
	windowSize = int(unsafe.Sizeof(window{}))
	keyWords   = unsafe.Sizeof(packet.Key{}) / 8
)

// The layout that doc.go promises; either line fails to compile otherwise.
var (
	_ [192]byte = [unsafe.Sizeof(Entry{})]byte{}
	_ [64]byte  = [unsafe.Sizeof(bucket{})]byte{}
	_ [32]byte  = [unsafe.Sizeof(window{})]byte{}
	_ [40]byte  = [unsafe.Sizeof(packet.Key{})]byte{}
)

// carve divides zeroed memory, 64-byte aligned, into windows, entries and
// buckets. The slices are the only references to it: who unmaps it must drop
// them first. The windows lie in front of the entries, the last one first, so
// that an entry finds its own without the table.
func carve(mem []byte, entries, buckets int) ([]Entry, []bucket) {
	p := unsafe.Pointer(unsafe.SliceData(mem))
	front := windowBytes(entries)
	if uintptr(p)%64 != 0 || len(mem) < front+entries*entrySize+buckets*bucketSize {
		panic("flow: memory is misaligned or too small")
	}
	p = unsafe.Add(p, front)
	return unsafe.Slice((*Entry)(p), entries),
		unsafe.Slice((*bucket)(unsafe.Add(p, entries*entrySize)), buckets)
}

// windowBytes is the memory of the windows of so many entries, in cache lines.
func windowBytes(entries int) int { return (entries*windowSize + 63) &^ 63 }

// zero is entry 0 of the memory that e lies in.
func (e *Entry) zero() *Entry {
	return (*Entry)(unsafe.Add(unsafe.Pointer(e), -int(e.self)*entrySize))
}

// window is what only packets of TCP and SCTP look at.
func (e *Entry) window() *window {
	return (*window)(unsafe.Add(unsafe.Pointer(e), -int(e.self)*(entrySize+windowSize)-windowSize))
}

// sameKey compares word by word: the compiler's own comparison of the struct
// is a call and a branch a field.
//
//go:norace
func sameKey(a, b *packet.Key) bool {
	x, y := (*[keyWords]uint64)(unsafe.Pointer(a)), (*[keyWords]uint64)(unsafe.Pointer(b))
	return (x[0]^y[0])|(x[1]^y[1])|(x[2]^y[2])|(x[3]^y[3])|(x[4]^y[4]) == 0
}
