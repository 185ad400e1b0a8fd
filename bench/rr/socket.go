package rr

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// tick is how long a system call waits before its thread looks whether the run
// has ended.
const tick = 25 * time.Millisecond

// errStopped ends a thread whose run has ended.
var errStopped = errors.New("stopped")

// stopped makes an end of errStopped.
func stopped(err error) error {
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// open makes a socket in the calling thread's namespace that waits for a tick at
// most, whatever it does.
func open(network string, a netip.Addr) (int, error) {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	if a.Is4() {
		family = unix.AF_INET
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	wait := unix.NsecToTimeval(tick.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait))
	if network == "tcp" {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("setting a socket up: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// listen makes a server's socket and returns where it listens. What is accepted
// from it has its settings (tcp(7)).
func listen(network string, at netip.AddrPort) (int, netip.AddrPort, error) {
	fd, err := open(network, at.Addr())
	if err != nil {
		return -1, at, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err == nil && network == "tcp" {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	var local unix.Sockaddr
	if err == nil {
		local, err = unix.Getsockname(fd)
	}
	if err != nil {
		return -1, at, errors.Join(fmt.Errorf("listening on %s: %w: the server's namespace needs the address", at, err), unix.Close(fd))
	}
	switch a := local.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(at.Addr(), uint16(a.Port))
	case *unix.SockaddrInet6:
		at = netip.AddrPortFrom(at.Addr(), uint16(a.Port))
	}
	return fd, at, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// accept takes a connection from a listener. It waits for one until the run ends.
func (c *crew) accept(listener int) (int, error) {
	for !c.stop.Load() {
		// By hand, for unix.Accept4 allocates the peer's address.
		fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		switch {
		case errno == 0:
			return int(fd), nil
		case !again(errno):
			return -1, fmt.Errorf("accepting a connection: %w", errno)
		}
	}
	return -1, errStopped
}

// connect connects a socket, for at most the given time; false without an error
// says that it took longer.
func (c *crew) connect(fd int, to unix.Sockaddr, patience time.Duration) (bool, error) {
	var begun time.Time // read when the first attempt took a tick
	for !c.stop.Load() {
		err := unix.Connect(fd, to)
		switch {
		case err == nil || errors.Is(err, unix.EISCONN):
			return true, nil
		// A call that finds the attempt under way waits for it on (net/ipv4/af_inet.c,
		// __inet_stream_connect).
		case !again(err) && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EALREADY):
			return false, err
		}
		if begun.IsZero() {
			begun = time.Now()
		} else if time.Since(begun) > patience {
			return false, nil
		}
	}
	return false, errStopped
}

// read fills b, for at most the given time. An answer that ends before is io.EOF
// if nothing of it came, and io.ErrUnexpectedEOF else; false without an error says
// that it took longer.
func (c *crew) read(fd int, b []byte, patience time.Duration) (bool, error) {
	var begun time.Time
	for got := 0; got < len(b); {
		n, err := unix.Read(fd, b[got:])
		switch {
		case n > 0:
			got += n
			continue
		case err == nil && got == 0:
			return false, io.EOF
		case err == nil:
			return false, io.ErrUnexpectedEOF
		case !again(err):
			return false, err
		case c.stop.Load():
			return false, errStopped
		}
		if begun.IsZero() {
			begun = time.Now()
		} else if time.Since(begun) > patience {
			return false, nil
		}
	}
	return true, nil
}

// write sends all of b.
func (c *crew) write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case n > 0:
			b = b[n:]
		case !again(err):
			return err
		case c.stop.Load():
			return errStopped
		}
	}
	return nil
}

// again reports whether a call did nothing yet: a tick went by, or a signal came.
func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}
