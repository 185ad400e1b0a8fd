package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"culvert/bench/sample"
)

// Memory is what a device under test takes, in bytes.
type Memory struct {
	// Processes is the resident memory of the device's processes, where pages
	// shared by several count once (proportional set size). The frames of AF_XDP
	// sockets are in it: the kernel pins them.
	Processes uint64
	// Kernel is how much more the kernel of the whole machine holds for itself than
	// before the device and its pods were there: slab that cannot be reclaimed, page
	// tables, vmalloc, per-CPU areas and stacks. Routes, neighbours, BPF maps, the
	// veths and what AF_XDP keeps about each chunk are in it, but also whatever else
	// happened meanwhile: a megabyte or two mean nothing. It is 0 where the kernel
	// holds less than before.
	Kernel uint64
}

// MiB is all of it in units of 1048576 bytes.
func (m Memory) MiB() float64 { return float64(m.Processes+m.Kernel) / (1 << 20) }

// Memory reads what the device takes now.
func (i *Instance) Memory() (Memory, error) {
	m := Memory{Processes: i.own}
	for _, p := range i.processes {
		f, err := fields(p+"/smaps_rollup", "Pss:")
		if err != nil {
			return m, fmt.Errorf("memory of a process: %w", err)
		}
		m.Processes += f
	}
	now, err := kernelMemory()
	if err != nil {
		return m, err
	}
	if now > i.kernel {
		m.Kernel = now - i.kernel
	}
	return m, nil
}

// kernelMemory is what the kernel has for itself, page cache not included.
func kernelMemory() (uint64, error) {
	// Counters of processors are added to the sums once a second, or now. Kernels
	// that do not know how are a little less exact.
	_ = os.WriteFile("/proc/sys/vm/stat_refresh", []byte("1"), 0)
	n, err := fields("/proc/meminfo", "SUnreclaim:", "KernelStack:", "PageTables:", "VmallocUsed:", "Percpu:")
	if err != nil {
		return 0, fmt.Errorf("memory of the kernel: %w", err)
	}
	return n, nil
}

// settledKernelMemory waits, two seconds at most, until the kernel gives no more
// memory back: the testbed before this one goes bit by bit.
func settledKernelMemory(ctx context.Context) (uint64, error) {
	const step, little = 100 * time.Millisecond, 256 << 10
	last, err := kernelMemory()
	for n := 0; n < 20 && err == nil; n++ {
		if err = sample.Sleep(ctx, step); err != nil {
			break
		}
		var now uint64
		if now, err = kernelMemory(); now+little >= last {
			return now, err
		}
		last = now
	}
	return last, err
}

// fields is the sum of a file's lines with these names, in bytes.
func fields(path string, names ...string) (sum uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	found := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		for _, name := range names {
			text, ok := strings.CutPrefix(lines.Text(), name)
			if !ok {
				continue
			}
			n, numErr := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if numErr != nil {
				return 0, fmt.Errorf("%s: %w", path, numErr)
			}
			sum += n << 10
			found++
		}
	}
	if found != len(names) {
		return 0, errors.New(path + ": it does not have all of " + strings.Join(names, " "))
	}
	return sum, nil
}
