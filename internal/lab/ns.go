package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"culvert/ctrl/podlink"
)

// netnsDir is where `ip netns` looks for namespaces.
const netnsDir = "/run/netns"

func netnsPath(name string) string { return filepath.Join(netnsDir, name) }

// newNetns makes a named namespace with its loopback up, forwarding as on a
// Kubernetes node if it is one.
func newNetns(name string, node bool) error {
	if err := shareNetnsDir(); err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	errc := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, in whatever
		// namespace it is then.
		runtime.LockOSThread()
		h, err := netns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		errc <- err
	}()
	if err := <-errc; err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return enter(name, func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err == nil && node {
			err = errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
				os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0),
				// Link-local addresses are usable at once, as they are on a node that
				// has been up for more than two seconds.
				os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0))
		}
		if err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
		return nil
	})
}

// shareNetnsDir makes the directory a mount of its own, shared with other mount
// namespaces, as the first 'ip netns add' of a machine does (ip/ipnetns.c of iproute2,
// netns_add). Did that do it later, its mount would hide ours, which could then
// be neither entered nor removed.
func shareNetnsDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil { // as ip does
		return fmt.Errorf("locking %s: %w", netnsDir, err)
	}
	err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // it is no mount
		if err = unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("making %s a shared mount: %w", netnsDir, err)
	}
	return nil
}

// enter runs f on a thread inside a namespace: sockets and processes that f
// makes belong to it.
func enter(name string, f func() error) error {
	ns, err := podlink.OpenNetns(netnsPath(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

// start starts a command inside a namespace.
func start(name string, cmd *exec.Cmd) error { return enter(name, cmd.Start) }

// deleteNetns removes a namespace's name; it ends with its last process. One
// that is gone is no error.
func deleteNetns(name string) error {
	path := netnsPath(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return nil
}

// netnsFd opens a namespace for netlink's PeerNamespace.
func withNetnsFd(name string, f func(fd netlink.NsFd) error) error {
	ns, err := podlink.OpenNetns(netnsPath(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	return f(netlink.NsFd(ns.FD()))
}
