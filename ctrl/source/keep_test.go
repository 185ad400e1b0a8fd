package source

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file that changes gives new lists of its kinds; lists and objects of files that
// did not are those of before.
func TestListsThatDidNotChangeAreKept(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	node := func(name string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n", name)
	}
	write("a.yaml", node("a"))
	write("pool.yaml", "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/8}\n")
	now := time.Now().Add(time.Hour) // the files are not being written any more
	s := newScanner(dir, func() time.Time { return now })
	scan := func() *Objects {
		t.Helper()
		for range 5 {
			if objs, _ := s.scan(); objs != nil {
				return objs
			}
			now = now.Add(time.Minute)
		}
		t.Fatalf("no set: %v", s.problems)
		return nil
	}
	first := scan()
	write("b.yaml", node("b"))
	second := scan()
	if len(second.Nodes) != 2 || second.Nodes[0] != first.Nodes[0] {
		t.Errorf("nodes %v, then %v", first.Nodes, second.Nodes)
	}
	if len(first.IPPools) != 1 || &second.IPPools[0] != &first.IPPools[0] {
		t.Error("the list of pools is another one")
	}
	write("pool.yaml", "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/9}\n")
	third := scan()
	if third.IPPools[0].Spec.CIDR != "10.0.0.0/9" || first.IPPools[0].Spec.CIDR != "10.0.0.0/8" || &third.Nodes[0] != &second.Nodes[0] {
		t.Errorf("pools %+v, then %+v", first.IPPools[0].Spec, third.IPPools[0].Spec)
	}
}
