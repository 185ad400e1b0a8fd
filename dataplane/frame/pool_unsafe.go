package frame

import "unsafe"

// Bytes is the n bytes from addr, as a view into the pool's memory: valid while
// the caller owns the chunk, and never beyond its end. addr and n must come from
// a descriptor of this pool; they are not checked against the region again.
func (p *Pool) Bytes(addr uint64, n uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(p.mem)), addr)), n)
}
