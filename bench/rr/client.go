package rr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// client is the asking end of a connection. All of it is its thread's.
type client struct {
	*recorder
	crew *crew
	o    *Options
	at   netip.AddrPort // the server
	// ask sends a request and waits for its answer.
	ask               func() error
	fd                int
	request, response []byte
	number            uint64        // of the last UDP request
	interval, offset  time.Duration // between requests and of the first one; 0 without a rate
}

func newClient(c *crew, o *Options, index int, at netip.AddrPort) *client {
	a := &client{
		recorder: newRecorder(), crew: c, o: o, at: at,
		request: make([]byte, o.Request), response: make([]byte, o.Response),
	}
	a.ask = a.askTCP
	if o.Network == "udp" {
		a.ask = a.askUDP
	}
	if o.Rate > 0 {
		each := float64(time.Second) / o.Rate
		a.interval, a.offset = time.Duration(each*float64(o.Connections)), time.Duration(each*float64(index))
	}
	return a
}

// run is the client's life.
func (a *client) run() error {
	if err := a.open(); err != nil {
		return err
	}
	defer unix.Close(a.fd)
	if err := a.ask(); err != nil {
		return err
	}
	if !a.crew.meet() {
		return nil
	}
	if a.interval > 0 {
		return a.paced()
	}
	return a.unpaced()
}

// open makes the client's socket and connects it.
func (a *client) open() (err error) {
	if a.fd, err = open(a.o.Network, a.at.Addr()); err != nil {
		return err
	}
	if err := a.connect(sockaddr(a.at)); err != nil {
		return errors.Join(err, unix.Close(a.fd))
	}
	return nil
}

// connect connects the client's socket.
func (a *client) connect(to unix.Sockaddr) error {
	ok, err := a.crew.connect(a.fd, to, a.o.Patience)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", a.at, err)
	}
	if !ok {
		return noAnswer(a.o, a.at, a.o.Patience)
	}
	return nil
}

// unpaced asks as soon as there is an answer. The clock is read once for each.
func (a *client) unpaced() error {
	c := a.crew
	for start := time.Now(); start.Before(c.until) && !c.stop.Load(); {
		if err := a.ask(); err != nil {
			return err
		}
		now := time.Now()
		if !start.Before(c.from) {
			a.note(now.Sub(start))
		}
		start = now
	}
	return nil
}

// paced asks when it is time to.
func (a *client) paced() error {
	// The default slack of 50 µs is more than many an answer takes (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting the timers' slack: %w", err)
	}
	c := a.crew
	for due := c.started.Add(a.offset); due.Before(c.until) && !c.stop.Load(); due = due.Add(a.interval) {
		start := time.Now()
		switch {
		case !start.Before(c.until):
			return nil // behind, and not to catch up
		case start.Before(due):
			a.sleep(due.Sub(start))
			start = time.Now()
		default:
			start = due // the answer before came too late: the wait counts
		}
		if err := a.ask(); err != nil {
			return err
		}
		if !due.Before(c.from) {
			a.note(time.Since(start))
		}
	}
	return nil
}

// sleep waits in the kernel, so that the thread is woken by it alone.
func (a *client) sleep(d time.Duration) {
	for end := time.Now().Add(d); d > 0 && !a.crew.stop.Load(); d = time.Until(end) {
		part := unix.NsecToTimespec(int64(min(d, tick)))
		_ = unix.Nanosleep(&part, nil) // by a signal it ends early, and begins anew
	}
}

func (a *client) askTCP() error {
	if err := a.crew.write(a.fd, a.request); err != nil {
		return fmt.Errorf("sending a request to %s: %w", a.at, err)
	}
	ok, err := a.crew.read(a.fd, a.response, a.o.Patience)
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", a.at, err)
	}
	if !ok {
		return noAnswer(a.o, a.at, a.o.Patience)
	}
	return nil
}

// resend is how long after its last sending a UDP request counts as lost.
const resend = 100 * time.Millisecond

// askUDP sends again what gets no answer. Answers that come late, to what was
// sent again, are not counted twice: their number is an old one.
func (a *client) askUDP() error {
	a.number++
	binary.NativeEndian.PutUint64(a.request, a.number)
	if err := a.crew.write(a.fd, a.request); err != nil {
		return fmt.Errorf("sending a request to %s: %w", a.at, err)
	}
	var first, sent time.Time // read when a tick has gone by
	for {
		n, err := unix.Read(a.fd, a.response)
		switch {
		case err == nil && n == len(a.response) && binary.NativeEndian.Uint64(a.response) == a.number:
			return nil
		case err != nil && !again(err):
			return fmt.Errorf("reading the answer of %s: %w", a.at, err)
		case a.crew.stop.Load():
			return errStopped
		case err == nil:
			continue
		}
		now := time.Now()
		switch {
		case first.IsZero():
			first, sent = now, now
		case now.Sub(first) > a.o.Patience:
			return noAnswer(a.o, a.at, a.o.Patience)
		case now.Sub(sent) > resend:
			a.lost, sent = a.lost+1, now
			if err := a.crew.write(a.fd, a.request); err != nil {
				return fmt.Errorf("sending a request to %s again: %w", a.at, err)
			}
		}
	}
}
