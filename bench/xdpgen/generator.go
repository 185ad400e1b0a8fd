package xdpgen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Config says what a generator sends, where, and how much of it at most.
type Config struct {
	// Ifindex is the device that the frames are redirected into.
	Ifindex int
	// Flow, and the Tunnel around it if not nil, are the frame.
	Flow   Flow
	Tunnel *Tunnel
	// Flows is the number of 5-tuples, sent in turn: 1 to 1<<20.
	Flows int
	// MaxFrames and MaxTime end the generator; both must be positive.
	MaxFrames uint64
	MaxTime   time.Duration
	// CPU is the processor to run on, -1 for any.
	CPU int
	// Enter puts the calling thread into the device's network namespace. The
	// thread ends with the generator.
	Enter func() error
}

// Generator sends frames from a thread of its own. Its methods are safe from
// any goroutine.
type Generator struct {
	coll   *ebpf.Collection
	cancel context.CancelFunc
	done   chan struct{}
	err    error         // valid after done
	cpu    time.Duration // valid after done
	tid    atomic.Int32
}

// batch is how many frames one system call makes at most. It is large because
// each call ends with about 20 ms of waiting in the kernel, for the release of
// its pages. A generator that is stopped is quick to run through the rest: the
// program then makes no frames.
const batch = 1 << 21

// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES (include/uapi/linux/bpf.h).
const liveFrames = 1 << 1

// Start loads the program and begins to send. The caller must Stop the
// generator, also when it has come to its bounds by itself.
func Start(ctx context.Context, cfg Config) (*Generator, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	tmpl, err := newTemplate(cfg.Flow, cfg.Tunnel)
	if err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	coll, err := loadGenerator(cfg, tmpl)
	if err != nil {
		return nil, fmt.Errorf("generator: loading its program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.MaxTime)
	g := &Generator{coll: coll, cancel: cancel, done: make(chan struct{})}
	started := make(chan error, 1)
	go g.run(ctx, cfg, tmpl.frame, started)
	if err := <-started; err != nil {
		<-g.done
		cancel()
		coll.Close()
		return nil, fmt.Errorf("generator: %w", err)
	}
	return g, nil
}

func (c *Config) check() error {
	switch {
	case c.Ifindex <= 0:
		return fmt.Errorf("device index %d: must be positive", c.Ifindex)
	case c.Flows < 1 || c.Flows > 1<<20:
		return fmt.Errorf("%d flows: must be 1 to %d", c.Flows, 1<<20)
	case c.MaxFrames == 0 || c.MaxTime <= 0:
		return errors.New("no bound: a generator needs a number of frames and a time at most")
	case c.Enter == nil:
		return errors.New("no way into a network namespace: refusing to send into the caller's")
	}
	return nil
}

func loadGenerator(cfg Config, tmpl template) (*ebpf.Collection, error) {
	spec, err := loadGenerate()
	if err != nil {
		return nil, err
	}
	outer := uint32(0)
	if cfg.Tunnel != nil {
		outer = 1
	}
	var head [128]byte
	copy(head[:], tmpl.frame)
	var asWords [16]uint64
	for i := range asWords {
		asWords[i] = binary.NativeEndian.Uint64(head[8*i:])
	}
	for name, value := range map[string]any{
		"out_ifindex": uint32(cfg.Ifindex), "flows": uint32(cfg.Flows), "frame_words": uint32(min(len(tmpl.frame)/8, 16)), "outer": outer,
		"udp_offset": uint32(tmpl.udp), "udp_sum": tmpl.sum, "frame_template": asWords,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return ebpf.NewCollection(spec)
}

// run is the generator's thread. It is never unlocked: the runtime ends it.
func (g *Generator) run(ctx context.Context, cfg Config, frame []byte, started chan<- error) {
	defer close(g.done)
	runtime.LockOSThread()
	if err := prepareThread(cfg); err != nil {
		started <- err
		return
	}
	g.tid.Store(int32(unix.Gettid()))
	started <- nil
	defer g.readCPU()
	quieted := make(chan struct{})
	cancelQuiet := context.AfterFunc(ctx, func() {
		defer close(quieted)
		g.quiet()
	})
	defer func() {
		if !cancelQuiet() {
			<-quieted // the program must not be released under it
		}
	}()
	for left := cfg.MaxFrames; left > 0 && ctx.Err() == nil; {
		n := min(left, batch)
		_, err := g.coll.Programs["generate"].Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(n), Flags: liveFrames})
		if err != nil {
			g.err = fmt.Errorf("generator: running its program: %w", err)
			return
		}
		left -= n
	}
}

// prepareThread enters the namespace, moves to the processor and blocks the
// signals by which the Go runtime preempts: each would abort a run of the
// program midway.
func prepareThread(cfg Config) error {
	if err := cfg.Enter(); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	if cfg.CPU >= 0 {
		var set unix.CPUSet
		set.Set(cfg.CPU)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("moving to processor %d: %w", cfg.CPU, err)
		}
	}
	var urgent unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil); err != nil {
		return fmt.Errorf("blocking SIGURG: %w", err)
	}
	return nil
}

// quiet makes the program make no more frames.
func (g *Generator) quiet() {
	// It can fail only for a program without the variable, which loading checked.
	_ = g.coll.Variables["stopped"].Set(uint32(1))
}

func (g *Generator) readCPU() {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &ru) == nil {
		g.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
}

// Generated is the number of frames made so far. Not all of them are in the
// device: those that found its ring full were dropped by the kernel.
func (g *Generator) Generated() (uint64, error) {
	var n uint64
	if err := g.coll.Variables["generated"].Get(&n); err != nil {
		return 0, fmt.Errorf("generator: reading its counter: %w", err)
	}
	return n, nil
}

// Running reports whether the generator has not come to its bounds.
func (g *Generator) Running() bool {
	select {
	case <-g.done:
		return false
	default:
		return true
	}
}

// TID is the kernel's number of the generator's thread.
func (g *Generator) TID() int { return int(g.tid.Load()) }

// Stop ends the generator and releases its program. It returns the processor
// time the thread took, interrupts and whatever they forwarded included, and
// what went wrong while it ran.
func (g *Generator) Stop() (cpu time.Duration, err error) {
	g.cancel()
	<-g.done
	g.coll.Close()
	return g.cpu, g.err
}
