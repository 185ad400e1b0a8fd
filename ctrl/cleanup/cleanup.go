// Package cleanup takes off a node what Culvert has put there, when it is uninstalled:
// devices with their routes and addresses, and files. culvertd must not run, and nothing
// here speaks to one.
//
// Only what is known to be Culvert's is touched: devices by alias, record or name and
// kind, files by the names that culvertd gives them, configurations by the plugin in them.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"culvert/ctrl/api"
	"culvert/ctrl/cniconf"
	"culvert/ctrl/hostlink"
	"culvert/ctrl/podlink"
	"culvert/ctrl/pods"
	"culvert/ctrl/statedir"
)

// Options say where to look. Devices are those of the calling thread's network namespace.
type Options struct {
	Socket, StateDir string
	// CNIConfDir and CNIBinDir are where the runtime looks; empty: not looked at.
	CNIConfDir, CNIBinDir string
	// Force takes pods' devices too.
	Force bool
	// DryRun finds and removes nothing.
	DryRun bool
}

// Item is a thing that was found.
type Item struct {
	Kind string `json:"kind"` // link, file, directory
	Name string `json:"name"`
	What string `json:"what"` // for people
	// Removed: it is gone. With DryRun nothing is.
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"` // why it could not be removed
}

// step is an item and how it is removed.
type step struct {
	Item
	remove func() error
}

// PodsError says that there are pods whose network would be taken.
type PodsError struct{ Pods []string }

// maxNamed is how many pods an error names.
const maxNamed = 5

// Error names some of them.
func (e *PodsError) Error() string {
	named := strings.Join(e.Pods[:min(maxNamed, len(e.Pods))], ", ")
	if more := len(e.Pods) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("there are pods with Culvert's network on this node: %s; drain the node, or take their network with --force", named)
}

// Run removes what it finds and returns it, with what could not be removed. It refuses
// while culvertd runs, and while there are pods, unless it is forced. Running it again
// finds what is left.
func Run(ctx context.Context, o Options) ([]Item, error) {
	if err := running(ctx, &o); err != nil {
		return nil, err
	}
	links, inUse, err := findLinks(o.StateDir)
	if err != nil {
		return nil, err
	}
	if len(inUse) > 0 && !o.Force {
		return nil, &PodsError{inUse}
	}
	files, err := findFiles(&o)
	if err != nil {
		return nil, err
	}
	items := []Item{}
	var errs []error
	for _, s := range append(links, files...) {
		if !o.DryRun {
			err := s.remove()
			s.Removed = err == nil
			if err != nil {
				s.Error = err.Error()
				errs = append(errs, err)
			}
		}
		items = append(items, s.Item)
	}
	return items, errors.Join(errs...)
}

// running is an error while culvertd runs.
func running(ctx context.Context, o *Options) error {
	var held *statedir.HeldError
	switch err := statedir.Held(o.StateDir); {
	case errors.As(err, &held):
		return fmt.Errorf("culvertd runs: %w", err)
	case err != nil:
		return err
	}
	var s api.Status
	if api.NewClient(o.Socket).Get(ctx, "/v1/status", &s) == nil {
		return fmt.Errorf("culvertd runs: it answers at %s; stop it", o.Socket)
	}
	return nil
}

// findLinks finds the devices, and says which pods there are.
func findLinks(stateDir string) (steps []step, inUse []string, err error) {
	left, err := podlink.Leftovers()
	if err != nil {
		return nil, nil, err
	}
	known := map[string]bool{}
	for _, l := range left {
		what := "culvertd's own device (" + string(l.Made) + ")"
		if l.Made == podlink.MadeForPod {
			pod := strings.TrimPrefix(l.Alias, podlink.AliasPrefix)
			what = "pod " + pod
			inUse = append(inUse, strings.Fields(pod)[0])
		}
		known[l.Name] = true
		steps = append(steps, step{Item{Kind: "link", Name: l.Name, What: what}, l.Remove})
	}
	recs, err := pods.Records(stateDir)
	if err != nil {
		return nil, nil, err
	}
	for _, rec := range recs {
		if _, there, err := podlink.Find(rec.Link()); known[rec.HostName] || !there || err != nil {
			continue
		}
		inUse = append(inUse, rec.Name())
		name := rec.HostName
		if rec.Kind == podlink.TAP {
			name = rec.IfName + " in " + rec.Netns
		}
		steps = append(steps, step{Item{Kind: "link", Name: name, What: "pod " + rec.Name()}, func() error { return podlink.Remove(rec.Link()) }})
	}
	there, err := hostlink.Exists()
	if err != nil {
		return nil, nil, err
	}
	if there {
		steps = append(steps, step{Item{Kind: "link", Name: hostlink.Name, What: "the node's own way to pods, with its addresses and routes, and the table culvert of nftables"}, func() error {
			_, err := hostlink.Remove()
			return err
		}})
	}
	slices.Sort(inUse)
	return steps, slices.Compact(inUse), nil
}

// findFiles finds what is on disk, directories after what is in them.
func findFiles(o *Options) (steps []step, err error) {
	add := func(kind, path, what string) {
		remove := os.Remove
		if kind == "directory" {
			remove = os.RemoveAll
		}
		steps = append(steps, step{Item{Kind: kind, Name: path, What: what}, func() error { return remove(path) }})
	}
	if o.CNIConfDir != "" { // first: from here the runtime asks nobody
		confs, err := configurations(o.CNIConfDir)
		if err != nil {
			return nil, err
		}
		for _, path := range confs {
			add("file", path, "CNI configuration")
		}
	}
	if o.CNIBinDir != "" {
		if path := filepath.Join(o.CNIBinDir, cniconf.PluginType); exists(path) {
			add("file", path, "CNI plugin")
		}
	}
	if exists(o.Socket) {
		add("file", o.Socket, "socket")
	}
	if pending := api.PendingDir(o.Socket); exists(pending) {
		add("directory", pending, "DELs that found no culvertd")
	}
	for _, name := range statedir.Names {
		path := filepath.Join(o.StateDir, name)
		info, err := os.Lstat(path)
		if err != nil {
			continue
		}
		kind := "file"
		if info.IsDir() {
			kind = "directory"
		}
		add(kind, path, "state")
	}
	if exists(o.StateDir) {
		steps = append(steps, step{Item{Kind: "directory", Name: o.StateDir, What: "state"}, func() error { return removeEmpty(o.StateDir) }})
	}
	return steps, nil
}

// exists reports whether something has that name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeEmpty removes a directory, unless there are things in it that are not ours.
func removeEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s stays: %s in it is not of culvertd's making", path, entries[0].Name())
	}
	return os.Remove(path)
}

// configurations are the files of dir with Culvert's plugin in them.
func configurations(dir string) (ours []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("CNI configurations: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if text, err := os.ReadFile(path); err == nil && cniconf.Ours(text) {
			ours = append(ours, path)
		}
	}
	return ours, nil
}
