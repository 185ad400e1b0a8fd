package vnet

import (
	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// Gather writes the places of a frame's chunks, in pool, to iov, and returns how
// many there are: at most 1 + len(f.Rest), which must fit. Empty chunks are left out.
func Gather(iov []unix.Iovec, pool *frame.Pool, f *frame.Frame) (n int) {
	place(&iov[0], pool, f.Addr, f.Len)
	n = 1
	for i := range f.Rest {
		if d := &f.Rest[i]; d.Len > 0 {
			place(&iov[n], pool, d.Addr, d.Len)
			n++
		}
	}
	return n
}

func place(v *unix.Iovec, pool *frame.Pool, addr uint64, n uint32) {
	v.Base, v.Len = &pool.Bytes(addr, n)[0], uint64(n)
}
