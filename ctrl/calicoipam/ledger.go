package calicoipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"culvert/ctrl/diskfile"
)

// entry is what this node owes the API server about one owner's addresses, a file
// each. It is there from before the first write until after the last one.
type entry struct {
	Owner     string            `json:"owner"`
	Handle    string            `json:"handle"`
	Attrs     map[string]string `json:"attrs,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Addrs     []netip.Addr      `json:"addrs,omitempty"`
	// Settled: the blocks say what Addrs says.
	Settled bool `json:"settled,omitempty"`
	// Release: the owner is gone.
	Release bool `json:"release,omitempty"`

	conflict error     // why it cannot be settled
	tried    time.Time // when that was seen last
}

func (e *entry) request() Request {
	r := Request{Handle: e.Handle, Attrs: e.Attrs, Namespace: e.Namespace}
	if !e.Release {
		r.Want = e.Addrs
	}
	return r
}

// ledger is the entries on disk. A lost file costs nothing but time: the records of
// the pods and the blocks are compared.
type ledger struct{ dir string }

const entrySuffix = ".json"

// path is an entry's file. An owner's name is safe in one: package pods has seen to that.
func (l ledger) path(owner string) string { return filepath.Join(l.dir, owner+entrySuffix) }

func (l ledger) put(e *entry) error {
	data, err := json.Marshal(e)
	if err == nil {
		// What a crash of the machine loses is found again, from pods and blocks.
		err = diskfile.Write(l.path(e.Owner), append(data, '\n'), false)
	}
	if err != nil {
		return fmt.Errorf("keeping the addresses of %s: %w", e.Owner, err)
	}
	return nil
}

func (l ledger) remove(owner string) error {
	if err := os.Remove(l.path(owner)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forgetting the addresses of %s: %w", owner, err)
	}
	return nil
}

// load reads every entry; files that are none go.
func (l ledger) load() (map[string]*entry, error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	all := map[string]*entry{}
	for _, f := range files {
		path := filepath.Join(l.dir, f.Name())
		owner, ok := strings.CutSuffix(f.Name(), entrySuffix)
		data, err := os.ReadFile(path)
		var e entry
		if !ok || err != nil || json.Unmarshal(data, &e) != nil || e.Owner != owner || e.Handle == "" {
			_ = os.Remove(path) // the leftover of a crash
			continue
		}
		all[owner] = &e
	}
	return all, nil
}
