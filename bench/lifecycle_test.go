package bench

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"culvert/bench/peer"
)

// TestInterruptLeavesNothing ends a run in the middle of a round and looks for
// what may be left of it.
func TestInterruptLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(stopped, 2500*time.Millisecond)
	defer cancel()
	o := Default(peer.OVS{Mode: "native", CPU: workerCPU()})
	o.Duration = 30 * time.Second
	if _, err := Run(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the run ended with %v", err)
	}
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

// TestRefusals checks that a run with senseless options does not begin.
func TestRefusals(t *testing.T) {
	good := Default(peer.Kernel{})
	for name, change := range map[string]func(*Options){
		"no device":     func(o *Options) { o.Devices = nil },
		"direction":     func(o *Options) { o.Direction = "up" },
		"no round":      func(o *Options) { o.Rounds = 0 },
		"long":          func(o *Options) { o.Duration = time.Hour },
		"processor":     func(o *Options) { o.GeneratorCPU = 1 << 20 },
		"missing files": func(o *Options) { o.Devices = []peer.Device{peer.Culvert{Bin: t.TempDir()}} },
	} {
		o := good
		change(&o)
		if _, err := Run(stopped, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o := good
	o.FrameLen, o.Rounds = 10, 1
	if _, err := Run(stopped, o); err == nil {
		t.Error("a frame of 10 bytes: accepted")
	}
}
