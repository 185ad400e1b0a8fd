package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// within is what the contract grants a change to take effect.
const within = time.Second

// watched is a running Dir and what it said.
type watched struct {
	t    *testing.T
	dir  string
	d    *Dir
	mu   sync.Mutex
	objs *Objects
	sets int
	errs []string
}

func watchDir(t *testing.T, dir string) *watched {
	w := &watched{t: t, dir: dir, d: NewDir(dir, nil)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- w.d.Run(ctx, func(o *Objects) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.objs, w.sets = o, w.sets+1
		}, func(errs []error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.errs = texts(errs)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return w
}

// names is the nodes in force, or none before the first set.
func (w *watched) state() (nodes string, errs string, sets int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.objs == nil {
		return "none", strings.Join(w.errs, "|"), 0
	}
	var names []string
	for _, n := range w.objs.Nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, " "), strings.Join(w.errs, "|"), w.sets
}

// want waits for nodes and errors; DIR in errors stands for the directory.
func (w *watched) want(what, nodes, errs string) {
	w.t.Helper()
	errs = strings.ReplaceAll(errs, "DIR", w.dir)
	var gotNodes, gotErrs string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if gotNodes, gotErrs, _ = w.state(); gotNodes == nodes && gotErrs == errs {
			return
		}
	}
	w.t.Fatalf("%s: after %v\n got nodes %q, errors %q\nwant nodes %q, errors %q", what, within, gotNodes, gotErrs, nodes, errs)
}

// stays checks that nothing changes for longer than a change takes.
func (w *watched) stays(what string) {
	w.t.Helper()
	nodes, _, sets := w.state()
	time.Sleep(2*settle + rescanEvery)
	if got, _, gotSets := w.state(); got != nodes || gotSets != sets {
		w.t.Fatalf("%s: nodes went from %q to %q in %d sets", what, nodes, got, gotSets-sets)
	}
}

func (w *watched) write(name string, nodes ...string) {
	w.t.Helper()
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Node\nmetadata: {name: %s}\n", n)
	}
	w.raw(name, b.String())
}

func (w *watched) raw(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) path(name string) string { return filepath.Join(w.dir, name) }

func TestDirFollowsEdits(t *testing.T) {
	w := watchDir(t, t.TempDir())
	w.want("empty directory", "", "")
	w.write("a.yaml", "n1")
	w.want("new file", "n1", "")
	w.write("b.yml", "n3", "n2")
	w.write("c.json")
	w.raw("c.json", `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n4"}}`)
	w.want("more files", "n1 n2 n3 n4", "")
	w.write("a.yaml", "n1", "n0")
	w.want("edit in place", "n0 n1 n2 n3 n4", "")
	w.write(".a.yaml.swp", "x")
	w.write(".hidden.yaml", "x")
	w.write("a.yaml~", "x")
	w.write("#a.yaml", "x")
	w.write("d.tmp.yaml", "x")
	w.write("notes.txt", "x")
	w.do(os.Mkdir(w.path("dir.yaml"), 0o700))
	w.stays("files that are none of ours")
	w.write("tmp", "n9")
	w.do(os.Rename(w.path("tmp"), w.path("a.yaml")))
	w.want("renamed over", "n2 n3 n4 n9", "")
	w.do(os.Remove(w.path("b.yml")))
	w.want("removed", "n4 n9", "")
	now := time.Now()
	w.do(os.Chtimes(w.path("a.yaml"), now, now))
	w.stays("touched")
	w.raw("a.yaml", "# nothing\n")
	w.want("emptied", "n4", "")
}

func TestDirKeepsLastGood(t *testing.T) {
	w := watchDir(t, t.TempDir())
	w.write("a.yaml", "n1")
	w.write("b.yaml", "n2")
	w.want("start", "n1 n2", "")
	_, _, sets := w.state()
	w.raw("a.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.0.0.0/99}\n")
	w.want("bad edit", "n1 n2", `DIR/a.yaml:4: spec.podCIDR: "10.0.0.0/99" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`)
	if _, _, now := w.state(); now != sets {
		t.Errorf("a bad edit made %d new sets", now-sets)
	}
	if f := w.d.Files(); len(f) != 2 || f[0].Error == "" || f[0].Objects != 1 || f[1].Error != "" || f[1].Name != "b.yaml" {
		t.Errorf("files are %+v", f)
	}
	w.raw("a.yaml", "a: [\n")
	w.write("b.yaml", "n2", "n3")
	w.want("another file goes on", "n1 n2 n3", "DIR/a.yaml:1: is no YAML: sequence end token ']' not found; check the quoting and the indentation")
	w.write("a.yaml", "n1", "n4")
	w.want("mended", "n1 n2 n3 n4", "")
	w.raw("c.yaml", "kind: Node\n")
	w.want("new and bad", "n1 n2 n3 n4", "DIR/c.yaml:1: apiVersion: is missing; every object begins with apiVersion and kind")
	w.do(os.Remove(w.path("c.yaml")))
	w.want("removed", "n1 n2 n3 n4", "")
	w.do(os.Symlink("nowhere", w.path("d.yaml")))
	w.want("dangling link", "n1 n2 n3 n4", "DIR/d.yaml: cannot be read: no such file or directory; remove it or check where it links to")
}

func TestDirDuplicates(t *testing.T) {
	w := watchDir(t, t.TempDir())
	w.write("b.yaml", "n1")
	w.write("c.yaml", "n2")
	w.want("start", "n1 n2", "")
	w.write("a.yaml", "n0", "n1")
	w.want("the new file loses, whatever its name", "n1 n2", "DIR/a.yaml:6: metadata.name: Node n1 is also in DIR/b.yaml:2; keep one of them")
	w.do(os.Remove(w.path("b.yaml")))
	w.want("moved", "n0 n1 n2", "")
	w.write("a.yaml", "n0", "n2")
	w.want("the edit loses", "n0 n1 n2", "DIR/a.yaml:6: metadata.name: Node n2 is also in DIR/c.yaml:2; keep one of them")
	_, _, sets := w.state()
	w.write("a.yaml", "n0")
	w.write("c.yaml", "n1", "n2")
	w.want("moved at once", "n0 n1 n2", "")
	if _, _, now := w.state(); now != sets+1 {
		t.Errorf("moving an object took %d sets, want 1", now-sets)
	}
}

func TestDirDuplicatesAtStart(t *testing.T) {
	dir := t.TempDir()
	w := &watched{t: t, dir: dir}
	w.write("b.yaml", "n1", "n2")
	w.write("a.yaml", "n1")
	watchDir(t, dir).want("start", "n1", "DIR/b.yaml:2: metadata.name: Node n1 is also in DIR/a.yaml:2; keep one of them")
}

// TestDirConfigMap plays what the kubelet does with a mounted ConfigMap.
func TestDirConfigMap(t *testing.T) {
	dir := t.TempDir()
	w := &watched{t: t, dir: dir}
	version := func(name string, a, b string) {
		w.do(os.Mkdir(w.path(name), 0o700))
		w.write(name+"/a.yaml", a)
		w.write(name+"/b.yaml", b)
		w.do(os.Symlink(name, w.path("..data_tmp")))
		w.do(os.Rename(w.path("..data_tmp"), w.path("..data")))
	}
	version("..1", "n1", "n2")
	w.do(os.Symlink("..data/a.yaml", w.path("a.yaml")))
	w.do(os.Symlink("..data/b.yaml", w.path("b.yaml")))
	w = watchDir(t, dir)
	w.want("start", "n1 n2", "")
	version("..2", "n2", "n3")
	w.want("swapped", "n2 n3", "")
	if _, _, sets := w.state(); sets != 2 {
		t.Errorf("two versions were %d sets", sets)
	}
	w.do(os.RemoveAll(w.path("..1")))
	w.stays("old version removed")
}

func TestDirMayComeLater(t *testing.T) {
	w := watchDir(t, filepath.Join(t.TempDir(), "later"))
	w.want("missing", "none", "DIR: directory does not exist; create it or change source")
	w.do(os.Mkdir(w.dir, 0o700))
	w.write("a.yaml", "n1")
	w.want("there", "n1", "")
	w.do(os.Rename(w.dir, w.dir+".old"))
	w.want("gone again", "n1", "DIR: directory does not exist; create it or change source")
	w.do(os.Mkdir(w.dir, 0o700))
	w.write("b.yaml", "n2")
	w.want("another one", "n2", "")
	w.write("b.yaml", "n3")
	w.want("watched too", "n3", "")
	w.do(os.RemoveAll(w.dir))
	w.raw("", "x")
	w.want("a file", "n3", "DIR: is no directory; name one in source")
}

// TestDirWaitsForWriters: a file that is being written does not count until it
// has been left alone for a moment.
func TestDirWaitsForWriters(t *testing.T) {
	w := watchDir(t, t.TempDir())
	w.write("a.yaml", "n1", "n2")
	w.want("start", "n1 n2", "")
	_, _, sets := w.state()
	f, err := os.Create(w.path("a.yaml"))
	w.do(err)
	for _, n := range []string{"n1", "n2", "n3"} {
		time.Sleep(settle / 3)
		fmt.Fprintf(f, "---\napiVersion: v1\nkind: Node\nmetadata: {name: %s}\n", n)
	}
	w.do(f.Close())
	w.want("written slowly", "n1 n2 n3", "")
	if _, _, now := w.state(); now != sets+1 {
		t.Errorf("a slow write made %d sets, want 1", now-sets)
	}
	// Renamed away and written anew, as editors do.
	w.do(os.Rename(w.path("a.yaml"), w.path("a.yaml~")))
	time.Sleep(settle / 3)
	w.write("a.yaml", "n1", "n2", "n3", "n4")
	w.want("edited", "n1 n2 n3 n4", "")
	if _, _, now := w.state(); now != sets+2 {
		t.Errorf("an edit by renaming made %d sets, want 1", now-sets-1)
	}
}

// TestDirIsNotStarvedByAWriter: somebody who never stops writing one file
// cannot keep the others from taking effect.
func TestDirIsNotStarvedByAWriter(t *testing.T) {
	w := watchDir(t, t.TempDir())
	w.want("empty", "", "")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(settle / 4):
			}
			_ = os.WriteFile(w.path("busy.yaml"), fmt.Appendf(nil, "# %d\n", i), 0o600)
		}
	}()
	w.write("a.yaml", "n1")
	w.want("beside a busy file", "n1", "")
	close(stop)
	<-done
}

func TestManifestNames(t *testing.T) {
	var got []string
	for _, n := range []string{"a.yaml", "b.yml", "c.json", ".a.yaml", "..data", "a.yaml~", "#a.yaml", "x.tmp.yaml", "README.md", "yaml", "a.yaml.bak"} {
		if isManifest(n) {
			got = append(got, n)
		}
	}
	if !slices.Equal(got, []string{"a.yaml", "b.yml", "c.json"}) {
		t.Errorf("manifests are %q", got)
	}
}
