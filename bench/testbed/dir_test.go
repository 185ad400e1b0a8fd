package testbed

import (
	"os"
	"path/filepath"
	"testing"
)

// Directories of processes that are gone are removed, and no others.
func TestSweep(t *testing.T) {
	temp, proc := t.TempDir(), t.TempDir()
	for _, dir := range []string{
		filepath.Join(temp, "cvb-12-abc", "state"), filepath.Join(temp, "cvb-13-abc"), filepath.Join(temp, "cvb-x-abc"),
		filepath.Join(temp, "other-12-abc"), filepath.Join(proc, "13"),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweep(temp, proc); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("left are %v, %v", left, err)
	}
	for _, dir := range left {
		if filepath.Base(dir) == "cvb-12-abc" {
			t.Errorf("%s is still there", dir)
		}
	}
}
