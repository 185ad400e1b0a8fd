package tcp

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var cores = runtime.NumCPU()

// Machine is where the run was.
type Machine struct {
	Kernel    string `json:"kernel"`
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
}

func machine() Machine {
	m := Machine{Cores: cores}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(b), "model name")
		line, _, _ := strings.Cut(after, "\n")
		m.Processor = strings.TrimLeft(line, "\t :")
	}
	return m
}

// machineTime is the processor time of the whole machine except idle, waiting
// for disks, and what other virtual machines took (proc(5), /proc/stat).
func machineTime() (time.Duration, error) {
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

// quietCores is the background up to which a machine counts as quiet.
const quietCores = 0.1

// awaitQuiet waits until the machine is quiet, for at most the given time, and
// returns its last background.
func awaitQuiet(ctx context.Context, patience time.Duration) (busy float64, err error) {
	for end := time.Now().Add(patience); ; {
		if busy, err = background(ctx); err != nil || busy <= quietCores || time.Now().After(end) {
			return busy, err
		}
	}
}

// background is how many cores are busy without us.
func background(ctx context.Context) (float64, error) {
	before, err := machineTime()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := sleep(ctx, 300*time.Millisecond); err != nil {
		return 0, err
	}
	after, err := machineTime()
	return float64(after-before) / float64(time.Since(start)), err
}
