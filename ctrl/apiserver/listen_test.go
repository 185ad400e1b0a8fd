package apiserver

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "s")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o600; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
}

// A path of 106 bytes is the longest: what ctrl/config checks.
func TestLongestSocketPath(t *testing.T) {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := func(n int) string { return filepath.Join(dir, strings.Repeat("x", n-len(dir)-1)) }
	l, err := ListenUnix(path(106))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if l, err := ListenUnix(path(107)); err == nil || !strings.Contains(err.Error(), "at most 106 bytes") {
		t.Errorf("a path of 107 bytes: %v, %v", l, err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as a killed agent leaves it
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the new socket does not answer: %v", err)
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := ListenUnix(path); err == nil {
		l.Close()
		t.Error("a second agent took the first one's socket")
	} else if !strings.Contains(err.Error(), "another culvertd is running") {
		t.Errorf("error %q does not say what is wrong", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("closing left %v behind", left)
	}
}

func TestOtherFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file is now %q", b)
	}
}

func TestLongPathIsExplained(t *testing.T) {
	if _, err := ListenUnix(filepath.Join(t.TempDir(), strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "at most 106 bytes") {
		t.Errorf("error %v", err)
	}
}

// TestSuccessorsSocketSurvives: an agent that is slow to end must not remove
// the socket of the one that replaced it.
func TestSuccessorsSocketSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the successor does not answer: %v", err)
	}
}
