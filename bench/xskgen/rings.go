package xskgen

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The library leaves the rings of its sockets mapped, of those it closes and of
// those it could not open. The kernel keeps a socket, and with it the queue and
// the network namespace, as long as they are: they are unmapped here.

// ring is where a socket is mapped.
type ring struct {
	from, to uintptr
	inode    uint64 // of the socket
}

// rings are all of this process.
func rings() ([]ring, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("looking for rings: %w", err)
	}
	defer f.Close()
	var all []ring
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if r, ok := parseRing(lines.Text()); ok {
			all = append(all, r)
		}
	}
	return all, lines.Err()
}

// parseRing reads a line of /proc/PID/maps (man 5 proc_pid_maps).
func parseRing(line string) (ring, bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 {
		return ring{}, false
	}
	inode, ok := parseSocket(fields[5])
	low, high, _ := strings.Cut(fields[0], "-")
	from, err1 := strconv.ParseUint(low, 16, 64)
	to, err2 := strconv.ParseUint(high, 16, 64)
	return ring{uintptr(from), uintptr(to), inode}, ok && err1 == nil && err2 == nil && from < to
}

// parseSocket reads the name that a socket has in /proc.
func parseSocket(name string) (inode uint64, ok bool) {
	number, ok := strings.CutPrefix(name, "socket:[")
	number, closed := strings.CutSuffix(number, "]")
	inode, err := strconv.ParseUint(number, 10, 64)
	return inode, ok && closed && err == nil
}

// mapped are the sockets that have rings.
func mapped() (map[uint64]bool, error) {
	all, err := rings()
	inodes := make(map[uint64]bool)
	for _, r := range all {
		inodes[r.inode] = true
	}
	return inodes, err
}

// unmapNew unmaps sockets that had no rings before and that are closed: what the
// library leaves of one that it could not open.
func unmapNew(before map[uint64]bool) error {
	all, err := rings() // before the descriptors: who maps a socket has it open
	if err != nil {
		return err
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("looking for sockets: %w", err)
	}
	open := make(map[uint64]bool)
	for _, f := range files {
		name, err := os.Readlink("/proc/self/fd/" + f.Name())
		if err != nil {
			continue // closed in the meantime
		}
		if inode, ok := parseSocket(name); ok {
			open[inode] = true
		}
	}
	left := make(map[uint64]bool)
	for _, r := range all {
		left[r.inode] = !before[r.inode] && !open[r.inode]
	}
	return unmap(func(inode uint64) bool { return left[inode] })
}

// unmap removes the mappings of chosen sockets.
func unmap(chosen func(inode uint64) bool) error {
	all, err := rings()
	errs := []error{err}
	for _, r := range all {
		if !chosen(r.inode) {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, r.from, r.to-r.from, 0); errno != 0 {
			errs = append(errs, fmt.Errorf("unmapping a ring: %w", errno))
		}
	}
	return errors.Join(errs...)
}
