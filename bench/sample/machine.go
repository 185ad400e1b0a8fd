package sample

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where the run was.
type Machine struct {
	Kernel    string `json:"kernel"`
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Commit    string `json:"commit,omitempty"`
}

// ThisMachine describes the machine and the build that runs on it.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(b), "model name")
		line, _, _ := strings.Cut(after, "\n")
		m.Processor = strings.TrimLeft(line, "\t :")
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Commit = s.Value
			}
		}
	}
	return m
}

// Time is the processor time of the whole machine except idle, waiting
// for disks, and what other virtual machines took (proc(5), /proc/stat).
func Time() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for n, f := range fields[1:8] { // user nice system idle iowait irq softirq
		t, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if n != 3 && n != 4 {
			ticks += t
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// QuietCores is the background up to which a machine counts as quiet.
const QuietCores = 0.1

// AwaitQuiet waits until the machine is quiet, for at most the given time, and
// returns its last background.
func AwaitQuiet(ctx context.Context, patience time.Duration) (busy float64, err error) {
	for end := time.Now().Add(patience); ; {
		if busy, err = background(ctx); err != nil || busy <= QuietCores || time.Now().After(end) {
			return busy, err
		}
	}
}

// background is how many cores are busy without us.
func background(ctx context.Context) (float64, error) {
	before, err := Time()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := Sleep(ctx, 300*time.Millisecond); err != nil {
		return 0, err
	}
	after, err := Time()
	return float64(after-before) / float64(time.Since(start)), err
}

// Sleep waits for d, or until ctx ends, and then says why it did.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
