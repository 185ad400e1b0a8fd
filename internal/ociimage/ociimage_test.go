package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// entry is one entry of a tar.
type entry struct {
	header  tar.Header
	content []byte
}

// untar reads a tar whole.
func untar(t *testing.T, r io.Reader) (names []string, entries map[string]entry) {
	t.Helper()
	entries = map[string]entry{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names, entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		entries[h.Name] = entry{*h, content}
	}
}

// decode reads the JSON of an entry.
func decode[T any](t *testing.T, e entry) (v T) {
	t.Helper()
	if err := json.Unmarshal(e.content, &v); err != nil {
		t.Fatalf("%s: %v", e.header.Name, err)
	}
	return v
}

// index, manifest and config are what an importer reads of an image.
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type config struct {
	Architecture, OS string
	Created          time.Time
	Config           struct {
		Entrypoint, Env []string
		User            string
	}
	RootFS struct {
		Type    string
		DiffIDs []string `json:"diff_ids"`
	}
}

// sample writes an image of two files.
func sample(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"b": "the second", "a": "the first"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "image.tar")
	err := Write(out, names, []File{
		{Path: "/usr/bin/b", Mode: 0o755, From: filepath.Join(dir, "b")},
		{Path: "/bin/a", Mode: 0o555, From: filepath.Join(dir, "a")},
	}, Config{
		Architecture: "arm64", Created: time.Unix(1_700_000_000, 0), Entrypoint: []string{"/bin/a"},
		Env: []string{"PATH=/bin"}, User: "0:0", Labels: map[string]string{"x": "y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestArchive follows the archive as an importer does: index, manifest, config, layer,
// each by the digest and size that the one before gives.
func TestArchive(t *testing.T) {
	f, err := os.Open(sample(t, "localhost/culvert:v1", "localhost/culvert:latest"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, all := untar(t, f)
	blob := func(d descriptor) entry {
		t.Helper()
		e, ok := all[d.path()]
		sum := sha256.Sum256(e.content)
		if !ok || d.Digest != "sha256:"+hex.EncodeToString(sum[:]) || d.Size != len(e.content) {
			t.Fatalf("%+v: there %v, %d bytes of digest %x", d, ok, len(e.content), sum)
		}
		return e
	}
	if layout := decode[map[string]string](t, all["oci-layout"]); layout["imageLayoutVersion"] != "1.0.0" {
		t.Errorf("oci-layout %v", layout)
	}
	idx := decode[index](t, all["index.json"])
	if len(idx.Manifests) != 2 || idx.SchemaVersion != 2 {
		t.Fatalf("index %+v", idx)
	}
	for i, name := range []string{"localhost/culvert:v1", "localhost/culvert:latest"} {
		d := idx.Manifests[i]
		if d.Annotations["io.containerd.image.name"] != name || d.MediaType != typeManifest || d.Platform["architecture"] != "arm64" {
			t.Errorf("index entry %+v, want the name %s", d, name)
		}
	}
	m := decode[manifest](t, blob(idx.Manifests[0]))
	if len(m.Layers) != 1 || m.Layers[0].MediaType != typeLayer || m.Config.MediaType != typeConfig || m.SchemaVersion != 2 {
		t.Fatalf("manifest %+v", m)
	}
	c := decode[config](t, blob(m.Config))
	if c.OS != "linux" || c.Architecture != "arm64" || c.Config.User != "0:0" || !c.Created.Equal(time.Unix(1_700_000_000, 0)) ||
		!reflect.DeepEqual(c.Config.Entrypoint, []string{"/bin/a"}) {
		t.Errorf("config %+v", c)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob(m.Layers[0]).content))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(plain)
	if want := "sha256:" + hex.EncodeToString(sum[:]); len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0] != want {
		t.Errorf("diff_ids %v, want %s", c.RootFS.DiffIDs, want)
	}
	names, files := untar(t, bytes.NewReader(plain))
	if want := []string{"bin/", "bin/a", "usr/", "usr/bin/", "usr/bin/b"}; !reflect.DeepEqual(names, want) {
		t.Errorf("layer %v, want %v", names, want)
	}
	if a, b := files["bin/a"], files["usr/bin/b"]; string(a.content) != "the first" || a.header.Mode != 0o555 || string(b.content) != "the second" ||
		b.header.Mode != 0o755 || b.header.Uid != 0 || !b.header.ModTime.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("files %+v, %+v", a, b)
	}
	docker := decode[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, all["manifest.json"])
	if len(docker) != 1 || docker[0].Config != m.Config.path() || docker[0].Layers[0] != m.Layers[0].path() || len(docker[0].RepoTags) != 2 {
		t.Errorf("manifest.json %+v", docker)
	}
}

// TestReproducible: other directories and times of the inputs change nothing.
func TestReproducible(t *testing.T) {
	one, err1 := os.ReadFile(sample(t, "localhost/culvert:v1"))
	two, err2 := os.ReadFile(sample(t, "localhost/culvert:v1"))
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("%d and %d bytes differ: %v, %v", len(one), len(two), err1, err2)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := []File{{Path: "/f", Mode: 0o755, From: file}}
	for _, c := range []struct {
		names []string
		files []File
		text  string
	}{
		{nil, good, "needs a name"},
		{[]string{"culvert:v1"}, good, "HOST/PATH:TAG"},
		{[]string{"localhost/culvert"}, good, "HOST/PATH:TAG"},
		{[]string{"localhost/culvert:v1+changes"}, good, "HOST/PATH:TAG"},
		{[]string{"localhost/culvert:v1"}, []File{{Path: "f", From: file}}, "absolute"},
		{[]string{"localhost/culvert:v1"}, []File{{Path: "/../f", From: file}}, "absolute"},
		{[]string{"localhost/culvert:v1"}, append(good, good...), "twice"},
		{[]string{"localhost/culvert:v1"}, []File{{Path: "/f", From: file + "x"}}, "no such file"},
	} {
		out := filepath.Join(dir, "image.tar")
		if err := Write(out, c.names, c.files, Config{}); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v %v: %v, want %q", c.names, c.files, err, c.text)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestMachine: what needs a library cannot be in the image.
func TestMachine(t *testing.T) {
	if _, err := Machine("/bin/sh"); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a program that needs libc: %v", err)
	}
	if _, err := Machine("/etc/passwd"); err == nil {
		t.Error("a text is taken for a program")
	}
}
