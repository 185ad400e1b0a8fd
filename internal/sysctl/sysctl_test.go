package sysctl

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/internal/testnet"
)

func TestRoot(t *testing.T) {
	for value, want := range map[string]string{"": "/proc/sys", "/host/proc/sys/": "/host/proc/sys"} {
		if got := rootFrom(value); got != want {
			t.Errorf("%s=%s: %s, want %s", Variable, value, got, want)
		}
	}
}

// TestMountedElsewhere: where /proc/sys is read-only, as in a container, a bind mount of the
// node's writes the settings of the namespace that the thread is in, not the node's.
func TestMountedElsewhere(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	was := root
	t.Cleanup(func() { root = was })
	ns := testnet.NewNS(t)
	ns.Do(t, func() {
		if err := inContainer(dir); err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"1", "0"} {
			root = procSys
			if err := Write("net/ipv4/ip_forward", value); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), Variable) {
				t.Errorf("a read-only /proc/sys: %v", err)
			}
			root = dir
			if err := Write("net/ipv4/ip_forward", value); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(Path("net/ipv4/ip_forward")); err != nil || strings.TrimSpace(string(got)) != value {
				t.Errorf("wrote %s, is %q, %v", value, got, err)
			}
		}
		if names := Glob("net/ipv4/conf/*/rp_filter"); len(names) != 3 || Get(names[0]) == "" {
			t.Errorf("all, default and lo have one: %v", names)
		}
		if err := errors.Join(Set("net/ipv4/no_such_thing", "1"), Set("net/ipv4/ip_forward", "0")); err != nil {
			t.Error(err)
		}
		root = procSys
		if err := Set("net/ipv4/ip_forward", "0"); err != nil {
			t.Errorf("what has the value already: %v", err)
		}
		if err := Set("net/ipv4/ip_forward", "1"); err == nil {
			t.Error("a read-only setting was set")
		}
		root = dir
		if err := Write("net/ipv4/no_such_thing", "1"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a setting that is not there: %v", err)
		}
	})
	if after, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || string(after) != string(before) {
		t.Errorf("the node's own was %q and is %q, %v", before, after, err)
	}
}

// inContainer gives the calling thread a mount namespace with /proc/sys read-only, and
// its net writable in dir.
func inContainer(dir string) error {
	if err := os.Mkdir(dir+"/net", 0o755); err != nil {
		return err
	}
	return errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("/proc/sys/net", dir+"/net", "", unix.MS_BIND, ""),
		unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
		unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	)
}
