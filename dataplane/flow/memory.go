package flow

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapMemory maps zeroed memory of at least size bytes. Pages come into being
// when they are first used, huge ones where the kernel can: lookups are random,
// and small pages would cost a second cache miss each.
func mapMemory(size int) ([]byte, error) {
	const huge = 2 << 20
	if size > huge {
		size = (size + huge - 1) &^ (huge - 1)
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", size, err)
	}
	// EINVAL on a kernel without transparent huge pages: then with small ones.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return mem, nil
}

func unmapMemory(mem []byte) error { return unix.Munmap(mem) }
