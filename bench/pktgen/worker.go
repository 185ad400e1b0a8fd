package pktgen

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// worker is the kernel's thread that sends.
type worker struct {
	cpu int
	// before is what all threads of its name had taken when they were found, by
	// their directories in /proc.
	before map[string]time.Duration
}

// file is the worker's file, and its name.
func (w *worker) file() string { return fmt.Sprintf("kpktgend_%d", w.cpu) }

// find finds the threads of that name. Every network namespace has one on each
// processor; those that have nothing to send take no time worth mentioning.
func (w *worker) find() error {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	w.before = make(map[string]time.Duration)
	for _, path := range comms {
		if name, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(name)) != w.file() {
			continue
		}
		dir := filepath.Dir(path)
		if w.before[dir], err = taken(dir); err != nil {
			return err
		}
	}
	return nil
}

// time is what they took since they were found.
func (w *worker) time() (sum time.Duration, err error) {
	if len(w.before) == 0 {
		return 0, fmt.Errorf("pktgen: no thread %s to be seen in /proc: is this not the machine's own process namespace?", w.file())
	}
	for dir, before := range w.before {
		now, err := taken(dir)
		if err != nil {
			return 0, err
		}
		sum += max(now-before, 0)
	}
	return sum, nil
}

// taken is the processor time of a thread so far, nothing for one that ended
// with its network namespace.
func taken(dir string) (time.Duration, error) {
	b, err := os.ReadFile(dir + "/schedstat")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("pktgen: processor time: %w", err)
	}
	d, err := parseSchedstat(string(b))
	if err != nil {
		return 0, fmt.Errorf("pktgen: %s/schedstat: %w", dir, err)
	}
	return d, nil
}

// parseSchedstat reads /proc/PID/schedstat: nanoseconds on a processor, waiting,
// and how often (Documentation/scheduler/sched-stats.rst).
func parseSchedstat(text string) (time.Duration, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	n, err := strconv.ParseInt(first, 10, 64)
	if err == nil && n < 0 {
		err = fmt.Errorf("%d nanoseconds", n)
	}
	return time.Duration(n), err
}
