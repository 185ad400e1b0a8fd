package agent

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestKept(t *testing.T) {
	dir := t.TempDir()
	load := func(node string) *kept {
		t.Helper()
		k, err := loadKept(dir, node)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := load("n1")
	if len(k.annotations) != 0 {
		t.Errorf("nothing was kept, and it is %v", k.annotations)
	}
	for _, step := range []struct{ put, want map[string]string }{
		{map[string]string{"a.io/mac": "1", "a.io/ip": "2"}, map[string]string{"a.io/mac": "1", "a.io/ip": "2"}},
		{nil, map[string]string{"a.io/mac": "1", "a.io/ip": "2"}},                                               // nothing is known of the node
		{map[string]string{"b.io/ip": "3"}, map[string]string{"a.io/mac": "1", "a.io/ip": "2", "b.io/ip": "3"}}, // another mode
		{map[string]string{"a.io/mac": "4"}, map[string]string{"a.io/mac": "4", "b.io/ip": "3"}},
	} {
		if err := k.put(step.put); err != nil {
			t.Fatal(err)
		}
		if again := load("n1"); !maps.Equal(k.annotations, step.want) || !maps.Equal(again.annotations, step.want) {
			t.Errorf("after %v it is %v, on the disk %v", step.put, k.annotations, again.annotations)
		}
	}
	if other := load("n2"); len(other.annotations) != 0 {
		t.Errorf("another node's was taken: %v", other.annotations)
	}
	path := filepath.Join(dir, "node.json")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.put(map[string]string{"a.io/mac": "4"}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same was written again: %v", err)
	}

	// What cannot be read is begun anew, and can be written.
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err = loadKept(dir, "n1")
	if err == nil || len(k.annotations) != 0 {
		t.Errorf("broken: %v, %v", k.annotations, err)
	}
	if err := k.put(map[string]string{"a.io/mac": "5"}); err != nil || load("n1").annotations["a.io/mac"] != "5" {
		t.Errorf("written over what was broken: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, ".node-*")); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	k.path = filepath.Join(dir, "nowhere", "node.json")
	if err := k.put(map[string]string{"a.io/mac": "6"}); err == nil || k.annotations["a.io/mac"] != "5" {
		t.Errorf("a write that failed was taken for done: %v", err)
	}
}
