package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// poller decides what a worker does when no port has a frame: look again, or
// sleep in epoll until a device or a job wakes it.
type poller struct {
	epoll  int
	event  int // eventfd: jobs and new tables
	spin   time.Duration
	idleAt time.Time // when the worker ran out of frames; zero while busy
	events [8]unix.EpollEvent
	asleep atomic.Bool
}

// spinTime is how long an adaptive worker looks again before it sleeps: about
// the time that a sleep and a wake-up would cost on a busy machine. Longer
// spinning takes the core from the pods where cores are few.
const spinTime = 30 * time.Microsecond

// sleepMillis bounds a sleep: AF_XDP sockets of a device that is gone never
// report an event (net/xdp/xsk.c, xsk_poll), and flows must expire.
const sleepMillis = 100

func (p *poller) open(mode Poll) error {
	switch mode {
	case PollBusy:
		p.spin = time.Duration(1<<63 - 1)
	case PollAdaptive:
		p.spin = spinTime
	case PollInterrupt:
		p.spin = 0
	default:
		return fmt.Errorf("poll mode %q: must be busy, adaptive or interrupt", mode)
	}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("creating an epoll descriptor: %w", err)
	}
	if p.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return errors.Join(fmt.Errorf("creating an eventfd: %w", err), unix.Close(p.epoll))
	}
	if err := p.add(p.event); err != nil {
		p.close()
		return err
	}
	return nil
}

func (p *poller) close() {
	unix.Close(p.event)
	unix.Close(p.epoll)
}

// add watches fd for input. A negative fd is a device that cannot be waited
// on: the worker then never sleeps longer than its housekeeping interval.
func (p *poller) add(fd int) error {
	if fd < 0 {
		return nil
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watching descriptor %d: %w", fd, err)
	}
	return nil
}

func (p *poller) remove(fd int) {
	if fd >= 0 {
		_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) // a closed descriptor has left by itself
	}
}

// busy notes that there were frames.
func (p *poller) busy() { p.idleAt = time.Time{} }

// idle is called when no port had a frame. It sleeps when the worker has been
// idle for long enough and no job is pending, and reports whether it slept.
func (p *poller) idle(pending *atomic.Bool) bool {
	now := time.Now()
	if p.idleAt.IsZero() {
		p.idleAt = now
	}
	if now.Sub(p.idleAt) < p.spin {
		return false
	}
	p.asleep.Store(true)
	defer p.asleep.Store(false)
	if pending.Load() {
		return false
	}
	n, err := unix.EpollWait(p.epoll, p.events[:], sleepMillis)
	if err != nil {
		return true // EINTR: the loop comes back
	}
	for i := range n {
		if int(p.events[i].Fd) == p.event {
			var count [8]byte
			_, _ = unix.Read(p.event, count[:]) // it is there to be emptied
		}
	}
	if n > 0 {
		p.idleAt = time.Time{}
	}
	return true
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
