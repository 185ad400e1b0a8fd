// Package thread runs a generator of frames on a thread of its own, in the
// network namespace and on the processor that its configuration names, until
// its time is over. What the generator does there is not its affair.
package thread

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"culvert/bench/load"

	"golang.org/x/sys/unix"
)

// Thread is a generator's thread. Its methods are safe from any goroutine.
type Thread struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid after done

	mu     sync.Mutex
	tid    int           // 0 when it has ended
	before time.Duration // what the clock of the runtime's thread said when it was given to us
	cpu    time.Duration // that it took in all, when it has ended
}

// Start starts the thread. In the caller's own network namespace it refuses to
// work: nothing may be sent there. It calls prepare on the thread, whose error is Start's, and
// then run, which returns when its work is done or its context ends; the latter
// is no error. The caller must Stop the thread.
func Start(ctx context.Context, cfg *load.Config, prepare func() error, run func(context.Context, *Thread) error) (*Thread, error) {
	callers, err := namespace()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.MaxTime)
	t := &Thread{cancel: cancel, done: make(chan struct{})}
	started := make(chan error, 1)
	go t.serve(ctx, cfg, callers, prepare, run, started)
	if err := <-started; err != nil {
		<-t.done
		cancel()
		return nil, err
	}
	return t, nil
}

// serve is the thread. It is never unlocked: the runtime ends it.
func (t *Thread) serve(ctx context.Context, cfg *load.Config, callers string,
	prepare func() error, run func(context.Context, *Thread) error, started chan<- error,
) {
	defer close(t.done)
	runtime.LockOSThread()
	if err := settle(cfg, callers); err != nil {
		started <- err
		return
	}
	if err := prepare(); err != nil {
		started <- err
		return
	}
	t.mu.Lock()
	t.tid = unix.Gettid()
	t.before, _ = clock(t.tid) // the thread is there: it is this one
	t.mu.Unlock()
	started <- nil
	if err := run(ctx, t); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		t.err = err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cpu, _ = clock(t.tid)
	t.cpu -= t.before
	t.tid = 0
}

// settle enters the namespace, which is not the caller's, and moves to the
// processor.
func settle(cfg *load.Config, callers string) error {
	if err := cfg.Enter(); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	own, err := namespace()
	if err != nil {
		return err
	}
	if own == callers {
		return fmt.Errorf("refusing to send into the caller's own network namespace, %s", own)
	}
	if cfg.CPU < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cfg.CPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("moving to processor %d: %w", cfg.CPU, err)
	}
	return nil
}

// namespace names the calling thread's network namespace.
func namespace() (string, error) {
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("looking up the network namespace: %w", err)
	}
	return name, nil
}

// clock is the processor time of a thread, by the clock that
// pthread_getcpuclockid names (CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_SCHED of
// the kernel's include/linux/posix-timers_types.h).
func clock(tid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^tid<<3|4|2), &ts); err != nil {
		return 0, fmt.Errorf("reading the clock of thread %d: %w", tid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Running reports whether the thread has not ended.
func (t *Thread) Running() bool {
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

// CPU is the processor time the thread took so far, interrupts included that it
// was the one to serve, and whatever they forwarded.
func (t *Thread) CPU() (time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tid == 0 {
		return t.cpu, nil
	}
	now, err := clock(t.tid)
	return now - t.before, err
}

// NoPreemption blocks the signal by which the Go runtime preempts, on the calling
// thread: for those whose system calls last, and are not to be cut short.
func NoPreemption() error {
	var urgent unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil); err != nil {
		return fmt.Errorf("blocking SIGURG: %w", err)
	}
	return nil
}

// Interrupt sends the thread a signal that does nothing but end the system
// call it is in (SIGWINCH: Go handles it, and ignores it unless asked).
func (t *Thread) Interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tid != 0 {
		_ = unix.Tgkill(unix.Getpid(), t.tid, unix.SIGWINCH) // it cannot fail for a thread of ours
	}
}

// InterruptUntil interrupts the thread again and again: it may have been on its
// way into the system call.
func (t *Thread) InterruptUntil(ended <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		t.Interrupt()
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// Stop ends the thread's context, waits for its end, and returns what went wrong.
func (t *Thread) Stop() error {
	t.cancel()
	<-t.done
	return t.err
}
