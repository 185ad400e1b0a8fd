package underlay

import (
	"math/rand/v2"
	"time"

	"github.com/vishvananda/netlink"
)

// The kernel confirms a neighbour by the traffic it sees, and ours it does not
// see. So Run looks at each next hop now and then and has it confirmed. What
// that costs is bounded: a next hop that the kernel has heard of lately is left
// alone, and with many next hops each has its turn less often.
//
// The alternative, NTF_EXT_MANAGED, is not used: it needs Linux 5.16, notices a
// changed address only after a minute, and the mark stays on the kernel's entry
// after culvertd is gone.
type pace struct {
	// confirm is how old a neighbour's last sign of life may be.
	confirm time.Duration
	// retryFirst and retryMost bound the pauses between attempts to resolve a
	// next hop that does not answer. Each attempt is three broadcasts, in three
	// seconds.
	retryFirst, retryMost time.Duration
}

var usualPace = pace{confirm: 5 * time.Second, retryFirst: 4 * time.Second, retryMost: 30 * time.Second}

const (
	// confirmShare is how much each next hop lengthens every next hop's turn: at
	// most 50 unicast requests a second in all.
	confirmShare = 20 * time.Millisecond
	// Of the next hops that are due, at most keepBatch are dealt with at once,
	// and the next ones keepPause later.
	keepBatch = 32
	keepPause = 50 * time.Millisecond
)

// keep deals with the next hops that are due: reads the kernel's entry, and has
// it resolved or confirmed. It sets l.keepAt to when the next one is.
func (l *loop) keep(now time.Time) {
	w := l.w
	l.keepAt = now.Add(resyncEvery)
	turn := max(l.pace.confirm, time.Duration(len(w.hops))*confirmShare)
	left := keepBatch
	for key, h := range w.hops { // Run is the only writer: no lock to read
		if h.due.After(now) {
			l.keepBy(h.due)
			continue
		}
		if left == 0 {
			l.keepBy(now.Add(keepPause))
			continue
		}
		left--
		due, err := l.keepHop(key, h, now, turn)
		if err != nil {
			l.complain(err)
		}
		h.due = due
		l.keepBy(due)
	}
}

// keepBy makes keep run at t at the latest.
func (l *loop) keepBy(t time.Time) {
	if t.Before(l.keepAt) {
		l.keepAt = t
	}
}

// keepHop deals with one next hop and returns when its next turn is.
func (l *loop) keepHop(key hopKey, h *hop, now time.Time, turn time.Duration) (time.Time, error) {
	next := now.Add(jitter(turn))
	// Asked right before it is acted on: a neighbour that somebody has just made
	// permanent would lose that by solicit or confirm.
	n, err := l.w.kernel.neighbour(key)
	if err != nil {
		return next, err
	}
	l.takeHop(h, n, now)
	up := l.w.uplink(key.ifindex)
	switch {
	case n.state&staticStates != 0 || n.foreign:
		return next, nil
	case up == nil || !up.Up:
		return next, nil // LinkUp makes it due
	case n.usable():
		if n.state == netlink.NUD_PROBE {
			return next, nil // the kernel is asking; a failure makes it due
		}
		if n.state == netlink.NUD_REACHABLE && n.confirmed < turn*9/10 {
			return now.Add(jitter(turn - n.confirmed)), nil
		}
		return next, l.w.kernel.confirm(key)
	case n.state == netlink.NUD_INCOMPLETE:
		return now.Add(jitter(time.Second)), nil // the kernel is asking
	}
	pause := min(l.pace.retryFirst<<min(h.tries, 8), l.pace.retryMost)
	h.tries++
	next = now.Add(jitter(max(pause, turn)))
	if err := l.w.kernel.solicit(key); err != nil {
		return next, err
	}
	n, err = l.w.kernel.neighbour(key) // INCOMPLETE is not notified
	if err == nil {
		l.takeHop(h, n, now)
	}
	return next, err
}

// takeHop enters what the kernel says of a next hop into the mirror.
func (l *loop) takeHop(h *hop, n neighbour, now time.Time) {
	was := h.usable()
	l.w.mu.Lock()
	changed := h.take(n)
	l.w.mu.Unlock()
	if changed {
		l.push(Event{Kind: Changed})
	}
	switch {
	case h.usable() && !was:
		h.tries = 0
		h.due = now.Add(jitter(l.pace.confirm))
		l.keepBy(h.due)
	case was && !h.usable():
		h.due = now // perhaps it has another address now: ask everybody
		l.keepBy(now)
	}
}

// hurry makes the next hops of an uplink due, as after a cable was plugged in.
func (l *loop) hurry(ifindex int, now time.Time) {
	for key, h := range l.w.hops {
		if key.ifindex == ifindex {
			h.tries, h.due = 0, now
		}
	}
	l.keepBy(now)
}

// jitter is d, shorter or longer by up to a tenth: next hops that were tracked
// together do not stay together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
