package lab

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespaces can be removed although 'ip netns add' ran for the first time on the
// machine after they were made.
func TestNamespacesAreNotHidden(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: its mounts end with the thread
		done <- hideNamespaces()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// hideNamespaces works on a machine of which only the mounts are pretended: those of
// the calling thread.
func hideNamespaces() error {
	err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
		unix.Mount("none", "/run", "tmpfs", 0, ""))
	if err != nil {
		return err
	}
	if err := errors.Join(shareNetnsDir(), shareNetnsDir()); err != nil {
		return err
	}
	path := netnsPath("ours")
	if err := os.WriteFile(path, nil, 0); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "netns", "add", "theirs").CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return errors.Join(deleteNetns("ours"), deleteNetns("theirs"))
}
