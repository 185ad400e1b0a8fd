package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ListenUnix listens on a socket that only its owner may use (mode 0600). A
// socket file that nobody listens on is replaced; one that a live agent holds,
// or a file that is no socket, is an error. Closing the listener removes it.
func ListenUnix(path string) (net.Listener, error) {
	if err := claim(path); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: making its directory: %w", err)
	}
	// Bound under another name first: under its own it shall never be open
	// to others, and never be missing while it is replaced.
	temporary := path + "~"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w (a socket's path has at most 106 bytes)", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close(), os.Remove(temporary))
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return &unixListener{UnixListener: l, path: path, file: info}, nil
}

// claim reports why path cannot be taken, nil when it can.
func claim(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket; remove it or set another 'socket'", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // nobody listens: left over from an agent that was killed
	}
	if err != nil {
		return fmt.Errorf("%s: cannot tell whether an agent listens there: %w", path, err)
	}
	_ = c.Close()
	return fmt.Errorf("%s: another culvertd is running; stop it, or set another 'socket' and 'stateDir'", path)
}

// unixListener removes its file when closed, unless another one took its place.
type unixListener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
}

func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	if info, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(info, l.file) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

// shutdownGrace is how long requests in hand may take when the agent stops.
const shutdownGrace = 2 * time.Second

// Serve answers requests on l until ctx ends, lets those in hand finish for two
// seconds, and closes l. It returns nil after ctx ended.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Serve(l) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if s.Shutdown(grace) != nil {
		_ = s.Close() // a client that will not finish is cut off
	}
	if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return nil
}
