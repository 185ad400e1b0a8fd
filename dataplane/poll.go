package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// poller decides what a worker does when no port has a frame: look again, or
// sleep until a device or a job wakes it.
//
// It sleeps in poll(2), not epoll: a descriptor in an epoll set has a sleeper on
// its wait queue even while the worker is awake, and the kernel then runs a
// wake-up for every frame it has sent (net/core/sock.c, sock_wfree and
// sock_def_write_space). poll puts the sleeper there for the length of the
// sleep only. Its cost, a visit to every port, is paid when there is nothing to do.
type poller struct {
	fds    []unix.PollFd // fds[0] is event
	event  int           // eventfd: jobs wait
	spin   time.Duration
	adapts bool      // spin follows what comes
	rounds uint32    // of looking without a frame, since busy
	idleAt time.Time // when the clock was first read in them
	asleep atomic.Bool
}

// spinTime is how long an adaptive worker looks again before it sleeps, at least: about
// the time that a sleep and a wake-up would cost on a busy machine.
const spinTime = 30 * time.Microsecond

// longSpin is how long it looks when frames come after pauses no longer than that: a
// sleep and a wake-up in each of them would be most of what an answer takes. A request and
// its answer cross a node within it.
const longSpin = 150 * time.Microsecond

// roundsPerClock is how many rounds of looking go by between two looks at the
// clock, which costs more than a round.
const roundsPerClock = 16

// sleepMillis bounds a sleep: AF_XDP sockets of a device that is gone never
// report an event (net/xdp/xsk.c, xsk_poll), and flows must expire.
const sleepMillis = 100

func (p *poller) open(mode Poll) error {
	switch mode {
	case PollBusy:
		p.spin = time.Duration(1<<63 - 1)
	case PollAdaptive:
		p.spin, p.adapts = spinTime, true
	case PollInterrupt:
		p.spin = 0
	default:
		return fmt.Errorf("poll mode %q: must be busy, adaptive or interrupt", mode)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("creating an eventfd: %w", err)
	}
	p.event = fd
	p.add(fd)
	return nil
}

func (p *poller) close() error {
	return unix.Close(p.event)
}

// add watches fd for input. A negative fd is a device that cannot be waited
// on: the worker then sees its frames when it next wakes.
func (p *poller) add(fd int) {
	if fd >= 0 {
		p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
}

// remove stops watching fd. Do it before fd is closed.
func (p *poller) remove(fd int) {
	p.fds = slices.DeleteFunc(p.fds, func(f unix.PollFd) bool { return f.Fd == int32(fd) })
}

// busy notes that there were frames.
func (p *poller) busy() { p.rounds = 0 }

// idle is called when no port had a frame. It sleeps when the worker has been
// idle for long enough and no job is pending, and reports whether it slept.
func (p *poller) idle(pending *atomic.Bool) bool {
	if p.spin > 0 {
		if p.rounds++; p.rounds%roundsPerClock != 1 {
			return false
		}
		now := time.Now()
		if p.rounds == 1 {
			p.idleAt = now
		}
		if quiet := now.Sub(p.idleAt); quiet < p.spin {
			if p.adapts && quiet > spinTime {
				_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // whoever waits for this processor
			}
			return false
		}
	}
	p.asleep.Store(true)
	defer p.asleep.Store(false)
	if pending.Load() {
		return false
	}
	n, err := unix.Poll(p.fds, sleepMillis)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false // the worker goes on without sleep rather than not at all
	}
	if n > 0 {
		p.rounds = 0
		p.adapt()
		if p.fds[0].Revents != 0 {
			var count [8]byte
			_, _ = unix.Read(p.event, count[:]) // it is there to be emptied
		}
	}
	return true
}

// adapt makes the worker look for longer if that would have spared it the sleep that
// has just ended, and for less long if not.
func (p *poller) adapt() {
	switch {
	case !p.adapts:
	case time.Since(p.idleAt) < longSpin:
		p.spin = longSpin
	default:
		p.spin = max(p.spin/2, spinTime)
	}
}

// wake ends a sleep. Safe from any goroutine.
func (p *poller) wake() {
	if !p.asleep.Load() {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(p.event, one[:]) // full: it wakes all the same
}
