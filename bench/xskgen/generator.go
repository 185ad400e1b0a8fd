package xskgen

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/thread"

	"golang.org/x/sys/unix"
)

// Generator sends frames from a thread of its own. Its methods are safe from
// any goroutine.
type Generator struct {
	*thread.Thread
	plan   *load.Plan
	stream *load.Stream
	ports  []*port
	outs   []*port // by the number of the out
	made   atomic.Uint64
}

var _ load.Generator = (*Generator)(nil)

// longestSleep is how late the generator may notice that it is stopped.
const longestSleep = 10 * time.Millisecond

// Start opens the sockets and begins to send. The caller must Stop the
// generator, also when it has come to its bounds by itself.
func Start(ctx context.Context, cfg load.Config) (*Generator, error) {
	plan, err := cfg.Plan()
	if err != nil {
		return nil, fmt.Errorf("AF_XDP generator: %w", err)
	}
	g := &Generator{plan: plan, stream: plan.Stream()}
	if g.Thread, err = thread.Start(ctx, &plan.Config, g.open, g.run); err != nil {
		return nil, fmt.Errorf("AF_XDP generator: %w", err)
	}
	return g, nil
}

// open opens a socket on every device.
func (g *Generator) open() error {
	// Sleeps are short, and the kernel may make them 50 µs longer (man 2
	// PR_SET_TIMERSLACK).
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0); err != nil {
		return fmt.Errorf("asking for short sleeps: %w", err)
	}
	by := make(map[int]*port)
	for _, out := range g.plan.Outs {
		p := by[out.Device]
		if p == nil {
			var err error
			if p, err = open(out.Device); err != nil {
				return errors.Join(err, g.close())
			}
			by[out.Device] = p
			g.ports = append(g.ports, p)
		}
		g.outs = append(g.outs, p)
	}
	return nil
}

func (g *Generator) close() error {
	var errs []error
	for _, p := range g.ports {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// run is the generator's thread.
func (g *Generator) run(ctx context.Context, _ *thread.Thread) (err error) {
	defer func() { err = errors.Join(err, g.close()) }()
	defer func() {
		// The library panics when the kernel refuses to send, as for a device
		// that is down or gone.
		if refused := recover(); refused != nil {
			err = fmt.Errorf("AF_XDP generator: %v", refused)
		}
	}()
	start, pace := time.Now(), newPace(g.plan.Rate)
	for left := g.plan.MaxFrames; left > 0 && ctx.Err() == nil; {
		n := burst
		if g.plan.Rate > 0 {
			var sleep time.Duration
			if n, sleep = pace.due(time.Since(start)); n == 0 {
				doze(min(sleep, longestSleep))
				continue
			}
		}
		n = int(min(uint64(n), left))
		left -= uint64(n)
		g.send(ctx, n)
	}
	g.flush(ctx)
	return nil
}

// send sends a burst.
func (g *Generator) send(ctx context.Context, n int) {
	for range n {
		flow, size := g.stream.Next()
		p := g.outs[g.plan.Out(flow)]
		for !p.room() {
			if !g.flush(ctx) && !p.room() {
				doze(20 * time.Microsecond) // who received the frames has not freed them
			}
			if ctx.Err() != nil {
				return
			}
		}
		p.put(g.plan, flow, size)
	}
	g.flush(ctx)
}

// flush makes the kernel take all that was put. It reports whether that was
// anything.
func (g *Generator) flush(ctx context.Context) (some bool) {
	for _, p := range g.ports {
		if p.filled == 0 && p.socket.NumFreeTxSlots() == frames {
			continue
		}
		for {
			n, empty := p.kick()
			g.made.Add(uint64(n))
			some = some || n > 0
			if empty || ctx.Err() != nil {
				break
			}
			// More than one burst was there, or the socket's send buffer is full
			// until frames are freed.
			p.socket.Complete(p.socket.NumCompleted())
			doze(time.Microsecond)
		}
	}
	return some
}

// doze sleeps on the generator's own thread: the runtime's timers would wake
// another one, which wakes this. A signal ends it early.
func doze(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // EINTR is no harm
}

// Generated is the number of frames that the kernel has taken so far.
func (g *Generator) Generated() (uint64, error) { return g.made.Load(), nil }
