package intake

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"culvert/internal/sysctl"
)

// namespace is a network namespace without a name: it ends when nobody holds a
// descriptor of it, a socket in it, or runs in it.
type namespace int

// threadNamespace is where a thread finds its own network namespace.
const threadNamespace = "/proc/thread-self/ns/net"

// newNamespace makes an empty network namespace whose devices have no IPv6: the
// kernel would send router solicitations and group reports from them.
func newNamespace() (ns namespace, err error) {
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w: grant CAP_SYS_ADMIN, or run as root", err)
		}
		fd, err := unix.Open(threadNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the new network namespace: %w", err)
		}
		ns = namespace(fd)
		silence("default")
		return nil
	})
	return ns, err
}

// do runs f inside the namespace. Sockets that f makes are in it and stay there.
func (ns namespace) do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering the intake's network namespace: %w", err)
		}
		return f()
	})
}

func (ns namespace) close() error { return unix.Close(int(ns)) }

// onOwnThread runs f on a thread that ends with it.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}

// silence switches IPv6 off on a device of the calling thread's network namespace,
// or for all that are made later with "default". Where the kernel has no IPv6, or
// the container no right to switch it off, it stays as it is: a Queue's worker
// drops what no program has tagged.
func silence(device string) {
	_ = sysctl.Write("net/ipv6/conf/"+device+"/disable_ipv6", "1")
}
