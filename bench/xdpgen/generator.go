package xdpgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/thread"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Generator sends frames from a thread of its own. Its methods are safe from
// any goroutine.
type Generator struct {
	*thread.Thread
	coll  *ebpf.Collection
	plan  *load.Plan
	frame []byte // what every run begins with
}

var _ load.Generator = (*Generator)(nil)

// longest is how many times one system call runs the program. Each call ends
// with about 20 ms of waiting in the kernel, for the release of its pages; so
// it is made once, and interrupted at the end.
const longest = math.MaxInt32

// Start loads the program and begins to send. The caller must Stop the
// generator, also when it has come to its bounds by itself.
func Start(ctx context.Context, cfg load.Config) (*Generator, error) {
	plan, err := cfg.Plan()
	if err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	coll, err := loadGenerator(plan)
	if err != nil {
		return nil, fmt.Errorf("generator: loading its program: %w", err)
	}
	g := &Generator{coll: coll, plan: plan, frame: make([]byte, plan.Largest)}
	copy(g.frame, plan.Template)
	if g.Thread, err = thread.Start(ctx, &plan.Config, thread.NoPreemption, g.run); err != nil {
		coll.Close()
		return nil, fmt.Errorf("generator: %w", err)
	}
	return g, nil
}

// run is the generator's thread.
func (g *Generator) run(ctx context.Context, own *thread.Thread) error {
	ctx, cancel := context.WithCancel(ctx)
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		g.watch(ctx, cancel, own, ended)
	}()
	defer func() {
		close(ended)
		cancel()
		<-watched // the program must not be released under it
	}()
	for ctx.Err() == nil {
		made, err := g.Generated()
		if err != nil || made >= g.plan.MaxFrames {
			return err
		}
		n := uint64(longest)
		if g.plan.Rate == 0 {
			n = min(n, g.plan.MaxFrames-made) // every run is a frame
		}
		err = runLive(g.coll.Programs["generate"].FD(), g.frame, uint32(n))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("generator: running its program: %w", err)
		}
	}
	return nil
}

// watch ends the run of the program when the context does, or when a generator
// that has a pace has made all its frames: the program cannot end a run itself.
func (g *Generator) watch(ctx context.Context, cancel func(), own *thread.Thread, ended <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			if made, err := g.Generated(); err != nil || made >= g.plan.MaxFrames {
				cancel()
			}
		}
	}
	// It can fail only for a program without the variable, which loading checked.
	_ = g.coll.Variables["stopped"].Set(uint32(1))
	own.InterruptUntil(ended)
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

// Stop ends the generator, releases its program and returns what went wrong
// while it ran.
func (g *Generator) Stop() error {
	err := g.Thread.Stop()
	g.coll.Close()
	return err
}
