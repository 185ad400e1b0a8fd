package podlink

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Netns is an open network namespace. Close it.
type Netns struct {
	path string
	fd   int
}

// OpenNetns opens the network namespace that path names. The path comes from
// the runtime and may be anything: a missing file, a FIFO, another kind of
// namespace, or the node's own namespace are each refused with a *NetnsError.
func OpenNetns(path string) (*Netns, error) {
	refuse := func(err error) (*Netns, error) { return nil, &NetnsError{Path: path, Err: err} }
	if path == "" {
		return refuse(errors.New("no path given"))
	}
	// O_NONBLOCK: opening a FIFO must not hang.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return refuse(err)
	}
	ns := &Netns{path: path, fd: fd}
	if err := ns.verify(); err != nil {
		_ = ns.Close()
		return refuse(err)
	}
	return ns, nil
}

// errNotThere says that a path is there and no namespace (any more).
var errNotThere = errors.New("not a namespace (nothing is mounted there, or the pod is gone)")

// netnsGone reports whether an error of OpenNetns says that the path is no
// namespace any more, rather than that it could not be looked at.
func netnsGone(err error) bool {
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ESRCH, errNotThere, errNotNetwork, errOwn} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// What else a path can be that was a pod's namespace once.
var (
	errNotNetwork = errors.New("a namespace of another kind than network")
	errOwn        = errors.New("that is the node's own namespace, not a pod's")
)

// verify makes sure that the file is a network namespace and not this process's.
func (n *Netns) verify() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(n.fd, &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errNotThere
	}
	kind, err := unix.IoctlRetInt(n.fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return err
	}
	if kind != unix.CLONE_NEWNET {
		return errNotNetwork
	}
	var theirs, ours unix.Stat_t
	if err := unix.Fstat(n.fd, &theirs); err != nil {
		return err
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &ours); err != nil {
		return err
	}
	if theirs.Dev == ours.Dev && theirs.Ino == ours.Ino {
		return errOwn
	}
	return nil
}

// Close releases the namespace.
func (n *Netns) Close() error { return unix.Close(n.fd) }

// FD is the open descriptor, valid until Close.
func (n *Netns) FD() int { return n.fd }

// Do runs f on a thread inside the namespace. The thread serves nobody else
// meanwhile, and is thrown away if it cannot be brought back.
func (n *Netns) Do(f func() error) error {
	result := make(chan error, 1)
	go func() { result <- n.do(f) }()
	return <-result
}

func (n *Netns) do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return &NetnsError{Path: n.path, Err: fmt.Errorf("entering it: %w", err)}
	}
	defer func() {
		// A thread that stays there keeps its lock and dies with this goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}
