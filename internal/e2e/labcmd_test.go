package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// labJSON runs 'culvert lab' and decodes what it prints.
func labJSON[T any](t *testing.T, args ...string) (v T) {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, "culvert"), append([]string{"lab", "-o", "json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("culvert lab %v: %v", args, err)
	}
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("culvert lab %v: %v\n%s", args, err, out)
	}
	return v
}

// Every command of the lab speaks JSON, and nothing else, if asked to.
func TestLabCommandsSpeakJSON(t *testing.T) {
	type named struct{ Name string }
	up := labJSON[named](t, "up", "--bin", binDir, "--nodes", "1", "--pods", "1")
	if down := labJSON[[]named](t, "down", up.Name); len(down) != 1 || down[0] != up {
		t.Errorf("%+v went up and %+v down", up, down)
	}
	demo := labJSON[struct {
		OK       *bool
		Failures []string
	}](t, "demo", "--bin", binDir, "--nodes", "1")
	if demo.OK == nil || !*demo.OK || demo.Failures == nil || len(demo.Failures) != 0 {
		t.Errorf("the demo: %+v", demo)
	}
}
