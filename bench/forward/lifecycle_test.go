package forward

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/peer"
)

// TestInterruptLeavesNothing ends a measurement in its middle and looks for what
// may be left of it.
func TestInterruptLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(stopped, 2500*time.Millisecond)
	defer cancel()
	i, err := peer.OVS{Mode: "native", CPU: workerCPU()}.Start(ctx, peer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Measure(ctx, Timing{Duration: 30 * time.Second}, Load{Direction: Encap, Sizes: load.Fixed(64), Flows: 16}, i)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the measurement ended with %v", err)
	}
	closeInstance(t, i)
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if pids := children(t); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

// children are the processes that have this one as parent.
func children(t *testing.T) (pids []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := bytes.Cut(b, []byte(") "))
		if f := bytes.Fields(after); len(f) > 1 && string(f[1]) == strconv.Itoa(os.Getpid()) {
			pids = append(pids, string(b))
		}
	}
	return pids
}

// TestRefusals checks that a senseless measurement does not begin.
func TestRefusals(t *testing.T) {
	for name, change := range map[string]func(*Timing, *Load){
		"direction":    func(_ *Timing, l *Load) { l.Direction = "up" },
		"frame length": func(_ *Timing, l *Load) { l.Sizes = nil },
		"no time":      func(t *Timing, _ *Load) { t.Duration = 0 },
		"long":         func(t *Timing, _ *Load) { t.Duration = time.Hour },
		"processor":    func(t *Timing, _ *Load) { t.GeneratorCPU = 1 << 20 },
	} {
		timing, l := shortly, Load{Direction: Encap, Sizes: load.Fixed(64), Flows: 1}
		change(&timing, &l)
		if _, err := Measure(stopped, timing, l, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	d := peer.Culvert{Bin: t.TempDir()}
	if _, err := d.Start(stopped, peer.Options{}); err == nil {
		t.Error("missing programs: accepted")
	}
}
