package thread_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/thread"

	"golang.org/x/sys/unix"
)

func config() *load.Config {
	return &load.Config{CPU: 0, MaxTime: time.Minute, Enter: away}
}

// away moves the thread to a network namespace of its own.
func away() error { return unix.Unshare(unix.CLONE_NEWNET) }

func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

func nothing() error { return nil }

func TestThreadIsOfItsOwn(t *testing.T) {
	var tid int
	entered := false
	cfg := config()
	cfg.Enter = func() error {
		entered = true
		tid = unix.Gettid()
		spin(100 * time.Millisecond) // that the thread was used before is not the generator's
		return away()
	}
	interrupted := make(chan error, 1)
	th, err := thread.Start(context.Background(), cfg, nothing, func(ctx context.Context, _ *thread.Thread) error {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() != 1 || !set.IsSet(0) || unix.Gettid() != tid {
			return errors.New("not where it should be")
		}
		spin(20 * time.Millisecond)
		_, err := unix.Poll(nil, 60_000)
		interrupted <- err
		<-ctx.Done()
		return ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		th.Interrupt()
		select {
		case err := <-interrupted:
			if !errors.Is(err, unix.EINTR) {
				t.Errorf("its system call ended with %v", err)
			}
			done = true
		case <-time.After(time.Millisecond):
		}
	}
	cpu, err := th.CPU()
	if err != nil || cpu <= 0 || cpu > 80*time.Millisecond || !entered || !th.Running() {
		t.Errorf("took %s: %v; entered %t, running %t", cpu, err, entered, th.Running())
	}
	if err := th.Stop(); err != nil || th.Running() {
		t.Errorf("stopped: %v, running %t", err, th.Running())
	}
	if after, err := th.CPU(); err != nil || after < cpu {
		t.Errorf("%s after the end, %s before: %v", after, cpu, err)
	}
	th.Interrupt()
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	cfg := config()
	if _, err := thread.Start(context.Background(), cfg, func() error { return broken }, nil); !errors.Is(err, broken) {
		t.Errorf("prepare: %v", err)
	}
	th, err := thread.Start(context.Background(), cfg, nothing, func(context.Context, *thread.Thread) error { return broken })
	if err != nil {
		t.Fatal(err)
	}
	for th.Running() {
		time.Sleep(time.Millisecond)
	}
	if err := th.Stop(); !errors.Is(err, broken) {
		t.Errorf("run: %v", err)
	}
	cfg.MaxTime = time.Millisecond
	th, err = thread.Start(context.Background(), cfg, nothing, func(ctx context.Context, _ *thread.Thread) error { <-ctx.Done(); return ctx.Err() })
	if err != nil {
		t.Fatal(err)
	}
	for th.Running() {
		time.Sleep(time.Millisecond)
	}
	if err := th.Stop(); err != nil {
		t.Errorf("the end of its time is an error: %v", err)
	}
	cfg.CPU = 1023
	if _, err := thread.Start(context.Background(), cfg, nothing, nil); err == nil {
		t.Error("runs on a processor that is not there")
	}
	cfg.CPU, cfg.Enter = 0, nothing
	if _, err := thread.Start(context.Background(), cfg, nothing, nil); err == nil || !strings.Contains(err.Error(), "caller's own") {
		t.Errorf("works in the caller's namespace: %v", err)
	}
	cfg.Enter = func() error { return broken }
	if _, err := thread.Start(context.Background(), cfg, nothing, nil); !errors.Is(err, broken) {
		t.Errorf("Enter: %v", err)
	}
}
