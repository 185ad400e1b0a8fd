package guard

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	proc := t.TempDir()
	for pid, name := range map[string]string{"1": "init", "20": "bash", "self": "kubelet"} {
		if err := os.Mkdir(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Check(proc, 0); err != nil {
		t.Errorf("nobody uses the machine, but: %v", err)
	}
	if err := Check(proc, 1000); !errors.Is(err, ErrNotRoot) {
		t.Errorf("not root: %v", err)
	}
	if err := os.WriteFile(filepath.Join(proc, "20", "comm"), []byte("kubelet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Check(proc, 0); err == nil || !strings.Contains(err.Error(), "kubelet (process 20)") {
		t.Errorf("a node in use: %v", err)
	}
	if err := Check("/proc", 0); err != nil && strings.Contains(err.Error(), "looking") {
		t.Errorf("the real /proc cannot be read: %v", err)
	}
}
