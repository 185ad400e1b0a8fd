// Package ociimage writes container images as OCI archives: a tar of an OCI image layout that
// containerd, CRI-O, podman, docker and kind import without a registry. An image is one
// layer of files from scratch, and the same input gives the same bytes.
//
// No registry and no image that somebody else made belongs here.
package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// File is one regular file of the image.
type File struct {
	Path string // absolute, in the image
	Mode int64  // permission bits
	From string // the file that it is a copy of
}

// Config is what a runtime is told of the image.
type Config struct {
	Architecture string // GOARCH
	Created      time.Time
	Entrypoint   []string
	Cmd          []string
	Env          []string
	User         string
	Labels       map[string]string
}

// nameForm is a name with a tag, as containerd wants it: HOST/PATH:TAG.
var nameForm = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// The media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Write makes the archive at path, whole or not at all. The image has every one of
// names (such as localhost/culvert:v1.2.3) once it is imported.
func Write(path string, names []string, files []File, c Config) (err error) {
	if len(names) == 0 {
		return errors.New("an image needs a name")
	}
	for _, name := range names {
		if !nameForm.MatchString(name) {
			return fmt.Errorf("%q is no image name of the form HOST/PATH:TAG", name)
		}
	}
	content, err := archive(names, files, c)
	if err != nil {
		return fmt.Errorf("image %s: %w", names[0], err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// archive is the content of the archive.
func archive(names []string, files []File, c Config) ([]byte, error) {
	compressed, plain, err := layer(files, c.Created)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	b := blobs{w: w, when: c.Created}
	b.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	layerOf := b.blob(typeLayer, compressed)
	configOf := b.blob(typeConfig, marshal(imageConfig(c, plain)))
	manifest := b.blob(typeManifest, marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": configOf, "layers": []descriptor{layerOf},
	}))
	var named []descriptor
	for _, name := range names {
		d := manifest
		// containerd and CRI-O take the whole name from the first, podman from the second.
		d.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
		d.Platform = map[string]string{"architecture": c.Architecture, "os": "linux"}
		named = append(named, d)
	}
	b.file("index.json", marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": named}))
	// What docker before version 25, and kind, look for instead.
	b.file("manifest.json", marshal([]map[string]any{{
		"Config": configOf.path(), "RepoTags": names, "Layers": []string{layerOf.path()},
	}}))
	return out.Bytes(), errors.Join(b.err, w.Close())
}

// imageConfig is the image's configuration; plain is the digest of the layer's tar.
func imageConfig(c Config, plain string) map[string]any {
	return map[string]any{
		"created": c.Created.UTC().Format(time.RFC3339), "architecture": c.Architecture, "os": "linux",
		"config": map[string]any{
			"Entrypoint": c.Entrypoint, "Cmd": c.Cmd, "Env": c.Env, "User": c.User, "WorkingDir": "/", "Labels": c.Labels,
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{plain}},
		"history": []map[string]any{{"created": c.Created.UTC().Format(time.RFC3339), "created_by": "culvert make image"}},
	}
}

// layer is the files as a compressed tar, and the digest of the tar before that.
// Directories come before what is in them; everything belongs to root.
func layer(files []File, when time.Time) (compressed []byte, digest string, err error) {
	var out bytes.Buffer
	sum := sha256.New()
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, "", err
	}
	w := tar.NewWriter(io.MultiWriter(z, sum))
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	made := map[string]bool{".": true}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return nil, "", fmt.Errorf("%q is no clean absolute path", f.Path)
		}
		if err := add(w, f, when, made); err != nil {
			return nil, "", err
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, "", err
	}
	return out.Bytes(), "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// add writes one file, and the directories above it that are not in made.
func add(w *tar.Writer, f File, when time.Time, made map[string]bool) error {
	name := strings.TrimPrefix(f.Path, "/")
	if made[name] {
		return fmt.Errorf("%s is there twice", f.Path)
	}
	made[name] = true
	var above []string
	for dir := path.Dir(name); !made[dir]; dir = path.Dir(dir) {
		made[dir] = true
		above = append(above, dir)
	}
	for _, dir := range slices.Backward(above) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: when, Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	content, err := os.ReadFile(f.From)
	if err != nil {
		return err
	}
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.Mode, Size: int64(len(content)), ModTime: when, Format: tar.FormatPAX})
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

// descriptor is one blob as another one cites it.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
}

func (d *descriptor) path() string { return "blobs/" + strings.ReplaceAll(d.Digest, ":", "/") }

// blobs writes the parts of the archive, and keeps the first error.
type blobs struct {
	w    *tar.Writer
	when time.Time
	err  error
}

func (b *blobs) file(name string, content []byte) {
	if b.err == nil {
		b.err = b.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: b.when, Format: tar.FormatPAX})
	}
	if b.err == nil {
		_, b.err = b.w.Write(content)
	}
}

func (b *blobs) blob(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(content)}
	b.file(d.path(), content)
	return d
}

// marshal is JSON of what always has one; keys of maps come sorted.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and what is made of them
	}
	return data
}
