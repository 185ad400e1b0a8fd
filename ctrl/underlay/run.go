package underlay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// settle is how long changes are collected before routes are looked up.
	settle = 20 * time.Millisecond
	// share bounds the time spent on lookups: a tenth.
	share = 10
	// resyncEvery is how often everything is read again without a reason: what
	// the kernel does not notify (path MTUs, queue counts) is seen then.
	resyncEvery = time.Minute
	// retryAfter is the pause after the kernel refused to answer.
	retryAfter = time.Second
)

// loop is the state of Run.
type loop struct {
	w     *Watcher
	pace  pace
	sub   *sub
	queue []Event // not taken yet; at most one is Changed

	resync    bool // read everything
	uplinks   bool // read the uplinks' addresses
	routes    bool // look up the tracked destinations
	refreshAt time.Time
	notBefore time.Time // for refreshAt: the share
	resyncAt  time.Time
	keepAt    time.Time

	told map[string]time.Time // what was logged when, to log it rarely
}

// Run mirrors the kernel until ctx ends, then closes the sockets and returns
// nil. It may run once. When notifications are lost, because there were more
// than the socket holds or because it broke, it subscribes anew and reads
// everything again.
func (w *Watcher) Run(ctx context.Context) error { return w.run(ctx, usualPace) }

func (w *Watcher) run(ctx context.Context, p pace) error {
	if w.started.Swap(true) {
		return errors.New("the underlay is watched already, or was: make a new Watcher")
	}
	l := &loop{w: w, pace: p, sub: w.first, told: map[string]time.Time{}, keepAt: time.Now(), resyncAt: time.Now().Add(resyncEvery)}
	w.first = nil
	l.sub.start()
	l.want(&l.routes)
	err := l.run(ctx)
	return errors.Join(err, w.stop(l.sub))
}

func (l *loop) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var out chan<- Event
		var head Event
		if len(l.queue) > 0 {
			out, head = l.w.events, l.queue[0]
		}
		select {
		case <-ctx.Done():
			return nil
		case out <- head:
			l.queue = l.queue[1:]
		case b := <-l.sub.in:
			if b.err != nil {
				if err := l.resubscribe(ctx, b.err); err != nil {
					return err
				}
			}
			l.apply(b.msgs)
		case <-l.w.kick:
			l.want(&l.routes)
		case <-timer.C:
		}
		timer.Reset(time.Until(l.work(time.Now())))
	}
}

// work does what is due and returns when there is more.
func (l *loop) work(now time.Time) time.Time {
	if !now.Before(l.resyncAt) {
		l.want(&l.resync)
	}
	if pending := l.resync || l.uplinks || l.routes; pending && !now.Before(l.refreshAt) {
		err := l.refresh(now)
		end := time.Now()
		l.notBefore = end.Add(share * end.Sub(now))
		if err != nil {
			l.complain(err)
			l.refreshAt = end.Add(retryAfter) // what was not done is wanted still
		}
	}
	if !now.Before(l.keepAt) {
		l.keep(now)
	}
	next := l.resyncAt
	if l.resync || l.uplinks || l.routes {
		next = l.refreshAt
	}
	if l.keepAt.Before(next) {
		next = l.keepAt
	}
	return next
}

// want asks for a part of the mirror to be read again, soon.
func (l *loop) want(part *bool) {
	if !l.resync && !l.uplinks && !l.routes {
		l.refreshAt = time.Now().Add(settle)
		if l.refreshAt.Before(l.notBefore) {
			l.refreshAt = l.notBefore
		}
	}
	*part = true
}

// push queues an event for the consumer.
func (l *loop) push(e Event) {
	if e.Kind == Changed {
		for _, waiting := range l.queue {
			if waiting.Kind == Changed {
				return
			}
		}
	}
	l.queue = append(l.queue, e)
}

// resubscribe replaces a subscription that failed, trying until ctx ends.
func (l *loop) resubscribe(ctx context.Context, cause error) error {
	l.complain(fmt.Errorf("notifications were lost, everything is read again: %w", cause))
	l.sub.close()
	for {
		s, err := l.w.kernel.subscribe()
		if err == nil {
			s.start()
			l.sub = s
			l.want(&l.resync)
			return nil
		}
		l.complain(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

// complain logs what the kernel refused; the same again after a minute only.
func (l *loop) complain(err error) {
	text, now := err.Error(), time.Now()
	if now.Sub(l.told[text]) < time.Minute {
		return
	}
	if len(l.told) >= 100 { // not the same few
		clear(l.told)
	}
	l.told[text] = now
	l.w.log.Warn("trouble with the kernel's view of the network", "cause", text)
}
