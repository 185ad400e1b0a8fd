package testbed

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace with a thread that lives in it. The namespace
// ends when it is closed or the process ends.
type Space struct {
	handle netns.NsHandle
	work   chan func() // never closed: Do may be sending
	quit   chan struct{}
	ended  chan struct{}
}

// ErrClosed is returned for work in a Space that was closed.
var ErrClosed = errors.New("network namespace is closed")

// NewSpace makes an empty network namespace with its loopback up.
func NewSpace() (*Space, error) {
	s := &Space{handle: netns.None(), work: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error)
	go OwnThread(func() { s.serve(ready) })
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("making a network namespace: %w (it takes root)", err)
	}
	if err := s.Do(func() error { return up("lo") }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OwnThread runs f, which may do to its thread what it likes, such as Enter: the
// thread ends with it. It is called as a goroutine and may return before f does.
func OwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // never unlocked: the runtime ends the thread
		return
	}
	// The process' first thread is one that the runtime cannot end (runtime/proc.go,
	// mexit): it would stay as f leaves it. While it is held here f gets another.
	taken := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(taken)
		f()
	}()
	<-taken
	runtime.UnlockOSThread()
}

// serve is the namespace's thread. The processes that it started end with it.
func (s *Space) serve(ready chan<- error) {
	defer close(s.ended)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- err
		return
	}
	handle, err := netns.Get()
	s.handle = handle
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case f := <-s.work:
			f()
		case <-s.quit:
			return
		}
	}
}

// Do runs f on the namespace's thread. Calls of Do run one after the other;
// f must not call Do of the same Space.
func (s *Space) Do(f func() error) (err error) {
	finished := make(chan struct{})
	select {
	case <-s.ended:
		return ErrClosed
	case s.work <- func() {
		defer close(finished)
		err = f()
	}:
	}
	<-finished
	return err
}

// Enter moves the calling thread into the namespace. The caller has locked its
// goroutine to the thread and never unlocks it.
func (s *Space) Enter() error { return netns.Set(s.handle) }

// Path names the namespace for other processes while this process lives.
func (s *Space) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.handle) }

// Close ends the namespace's thread and the processes started on it, and lets
// the namespace go. Only its creator calls it, once, when no Do is running.
func (s *Space) Close() error {
	close(s.quit)
	<-s.ended
	return s.handle.Close()
}

// up brings a device of the calling thread's namespace up.
func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}
