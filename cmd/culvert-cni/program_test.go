package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the program may be, as it is installed: a runtime starts it several times for each
// pod, and its file is copied to every node.
const (
	maxSize  = 12 << 20
	maxStart = 10 * time.Millisecond
)

// TestProgram builds it as `make build` does, and asks for its versions. The best of
// several starts counts: the others share the machine.
func TestProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "culvert-cni")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	for range 30 {
		cmd := exec.Command(path)
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
		begin := time.Now()
		out, err := cmd.Output()
		best = min(best, time.Since(begin))
		if err != nil || !bytes.HasPrefix(out, []byte(`{"cniVersion":"1.0.0","supportedVersions":["0.3.1",`)) {
			t.Fatalf("%s, %v", out, err)
		}
	}
	t.Logf("%d bytes; VERSION takes %v at best", info.Size(), best)
	if info.Size() > maxSize || best > maxStart {
		t.Errorf("%d bytes, VERSION takes %v: at most %d and %v", info.Size(), best, maxSize, maxStart)
	}
}
