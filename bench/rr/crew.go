package rr

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"culvert/bench/testbed"
)

// crew are the threads of one run. The first that fails ends all.
type crew struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	unwatch func() bool
	// stop is set when ctx ends. Whoever waits in the kernel looks at it every tick.
	stop    atomic.Bool
	threads sync.WaitGroup
	clients sync.WaitGroup
	ready   chan struct{} // one for each client that has had an answer
	begin   chan struct{} // closed when all have

	// What is known when begin is closed: what starts from from on counts, and
	// nothing starts from until on.
	started, from, until time.Time
}

func newCrew(ctx context.Context, clients int) *crew {
	c := &crew{ready: make(chan struct{}, clients), begin: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.unwatch = context.AfterFunc(c.ctx, func() { c.stop.Store(true) })
	return c
}

// thread runs f on a thread of its own in the namespace. The thread ends with f.
func (c *crew) thread(s *testbed.Space, f func() error) {
	c.threads.Add(1)
	go testbed.OwnThread(func() {
		defer c.threads.Done()
		err := s.Enter()
		if err == nil {
			err = f()
		}
		if err != nil {
			c.cancel(err)
		}
	})
}

// client is a thread that the end of the run waits for.
func (c *crew) client(s *testbed.Space, f func() error) {
	c.clients.Add(1)
	c.thread(s, func() error {
		defer c.clients.Done()
		return f()
	})
}

// meet says that the calling client is ready, and waits until all are. It
// reports false if there is nothing to begin.
func (c *crew) meet() bool {
	c.ready <- struct{}{}
	select {
	case <-c.begin:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// measure begins when all clients are ready, and waits for the end of all threads.
func (c *crew) measure(o *Options) error {
	defer func() {
		c.cancel(nil)
		c.threads.Wait()
		c.unwatch()
	}()
	for range o.Connections {
		select {
		case <-c.ready:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
	c.started = time.Now()
	c.from = c.started.Add(o.WarmUp)
	c.until = c.from.Add(o.Duration)
	close(c.begin)
	c.clients.Wait()
	return context.Cause(c.ctx)
}
