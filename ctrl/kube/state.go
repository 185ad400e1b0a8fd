package kube

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/diskfile"
	"culvert/ctrl/source"
)

// How often the objects are written to disk. A cold start without an API server, which
// is what they are for, is rare, and objects of half a minute ago are as good.
const (
	keepAfter = 5 * time.Second
	keepEvery = 30 * time.Second
	// keepShare bounds the time spent with it, where there are many objects.
	keepShare = 50
)

// stateVersion is the version of the file's form.
const stateVersion = 1

// state is the last good objects on disk: lines of JSON, compressed, of which the first
// is a header.
type state struct {
	path  string // empty: nothing is kept
	kinds []kind
	want  header
	log   *slog.Logger

	// As load found it.
	loaded  bool
	saved   time.Time
	problem string // why what there is cannot be used

	pending chan struct{}                  // has room for one
	objects atomic.Pointer[source.Objects] // to be written
}

// header says what a file is.
type header struct {
	Version int `json:"version"`
	// Node and Cluster are whose objects they are.
	Node    string    `json:"node"`
	Cluster string    `json:"cluster"`
	Saved   time.Time `json:"saved"`
}

// line is an object.
type line struct {
	Kind   string          `json:"kind"`
	Object json.RawMessage `json:"object"`
}

func newState(client *Client, opt SourceOptions, kinds []kind) *state {
	s := &state{log: opt.Log, kinds: kinds, pending: make(chan struct{}, 1)}
	s.want = header{Version: stateVersion, Node: opt.Node, Cluster: client.cluster()}
	if opt.StateDir != "" {
		s.path = filepath.Join(opt.StateDir, "objects.json.gz")
	}
	return s
}

// cluster tells clusters from one another: by the API server's address, and by who signs its
// certificate, since addresses of clusters are often the same.
func (c *Client) cluster() string {
	ca := c.config.CAData
	if len(ca) == 0 && c.config.CAFile != "" {
		ca, _ = os.ReadFile(c.config.CAFile) // who cannot read it cannot connect either
	}
	sum := sha256.Sum256(ca)
	return c.Host() + " " + hex.EncodeToString(sum[:8])
}

// load puts what was kept into the stores.
func (s *state) load(stores []*store) {
	if s.path == "" {
		return
	}
	file, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = s.read(file, stores)
		file.Close()
	}
	if err != nil {
		s.problem = fmt.Sprintf("%s: the objects that were kept are not used: %v", s.path, err)
		s.log.Warn("objects kept before are not used", "file", s.path, "cause", err)
		return
	}
	s.loaded = true
}

func (s *state) read(r io.Reader, stores []*store) error {
	z, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return fmt.Errorf("%w; it will be written anew", err)
	}
	d := json.NewDecoder(z)
	var h header
	if err := d.Decode(&h); err != nil {
		return fmt.Errorf("%w; it will be written anew", err)
	}
	switch {
	case h.Version != s.want.Version:
		return fmt.Errorf("they are in form %d and this culvertd reads form %d", h.Version, s.want.Version)
	case h.Node != s.want.Node:
		return fmt.Errorf("they are of node %q and this is node %q", h.Node, s.want.Node)
	case h.Cluster != s.want.Cluster:
		return fmt.Errorf("they are of API server %s and this node's is %s", h.Cluster, s.want.Cluster)
	}
	objects := make([][]change, len(stores))
	for {
		var l line
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("%w; it will be written anew", err)
		}
		i := slices.IndexFunc(stores, func(st *store) bool { return st.kind.name == l.Kind && st.kind.blank != nil })
		if i < 0 {
			continue // of another mode
		}
		o := stores[i].kind.blank()
		if err := json.Unmarshal(l.Object, o); err != nil {
			return fmt.Errorf("%s: %w; it will be written anew", l.Kind, err)
		}
		if key, what := source.Check(o); what != "" {
			return fmt.Errorf("%s %s: %s: %s; it will be written anew", l.Kind, o.GetName(), key, what)
		}
		objects[i] = append(objects[i], change{ref: source.Ref{Kind: l.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}, kept: o})
	}
	for i, all := range objects {
		stores[i].replace(all)
	}
	s.saved = h.Saved
	return nil
}

// changed takes a set that is to be kept.
func (s *state) changed(objects *source.Objects) {
	if s.path == "" {
		return
	}
	s.objects.Store(objects)
	select {
	case s.pending <- struct{}{}:
	default:
	}
}

// keep writes what has changed, now and then, and at the end.
func (s *state) keep(ctx context.Context) {
	every, last := keepEvery, time.Time{}
	for {
		select {
		case <-ctx.Done():
			if len(s.pending) == 0 {
				return
			}
		case <-s.pending:
			wait := keepAfter
			if !last.IsZero() {
				wait = max(wait, time.Until(last.Add(every)))
			}
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		select { // what has come since is written too
		case <-s.pending:
		default:
		}
		start := time.Now()
		if err := s.save(); err != nil {
			s.log.Error("the objects cannot be kept for a start without API server", "cause", err)
		}
		last = time.Now()
		every = max(keepEvery, keepShare*last.Sub(start))
	}
}

// save writes the file whole.
func (s *state) save() error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return err
	}
	h := s.want
	h.Saved = time.Now()
	return diskfile.WriteFrom(s.path, true, func(w io.Writer) error { return s.write(w, h, s.objects.Load()) })
}

func (s *state) write(w io.Writer, h header, objects *source.Objects) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	e := json.NewEncoder(z)
	err = e.Encode(h)
	for i := range s.kinds {
		k := &s.kinds[i]
		if k.each == nil || err != nil {
			continue
		}
		err = k.each(objects, func(o metav1.Object) error {
			return e.Encode(struct {
				Kind   string        `json:"kind"`
				Object metav1.Object `json:"object"`
			}{k.name, o})
		})
	}
	return errors.Join(err, z.Close())
}
