// Package cniconf puts the CNI configuration that names Culvert where the container
// runtime looks for it, and says what else is there. What is in it is the operator's;
// when it is put there is the agent's to decide.
package cniconf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"culvert/ctrl/api"
	"culvert/ctrl/diskfile"
)

// PluginType is what a configuration calls Culvert's plugin.
const PluginType = "culvert-cni"

// extensions are those of files that runtimes read (libcni's ConfFiles).
var extensions = []string{".conf", ".conflist", ".json"}

// Conf is a configuration that was read and found to be Culvert's.
type Conf struct {
	Name string // of the file, without its directory
	text []byte
}

// plugin is what of a plugin's configuration says whose it is.
type plugin struct {
	Type   string `json:"type"`
	Socket string `json:"socket"`
}

// plugins are those that a configuration chains, or the one that it is.
func plugins(text []byte) ([]plugin, error) {
	var list struct {
		plugin
		Plugins []plugin `json:"plugins"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	if len(list.Plugins) == 0 {
		return []plugin{list.plugin}, nil
	}
	return list.Plugins, nil
}

// Ours reports whether a configuration has Culvert's plugin in it.
func Ours(text []byte) bool {
	all, err := plugins(text)
	return err == nil && slices.ContainsFunc(all, func(p plugin) bool { return p.Type == PluginType })
}

// Load reads the configuration that is to be installed, and checks that its plugin asks
// the agent of socket.
func Load(path, socket string) (*Conf, error) {
	if !slices.Contains(extensions, filepath.Ext(path)) {
		return nil, fmt.Errorf("%s: runtimes read .conflist, .conf and .json; rename it", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, err := plugins(text)
	if err != nil {
		return nil, fmt.Errorf("%s: is no JSON: %w", path, err)
	}
	if all[0].Type != PluginType {
		return nil, fmt.Errorf("%s: its first plugin is %q; write %s there", path, all[0].Type, PluginType)
	}
	if asks := cmp.Or(all[0].Socket, api.DefaultSocket); asks != socket {
		return nil, fmt.Errorf("%s: its plugin asks at %s, the agent answers at %s; make them the same", path, asks, socket)
	}
	return &Conf{Name: filepath.Base(path), text: text}, nil
}

// Install puts the configuration into dir, whole, unless it is there already. A file of
// its name that is somebody else's stays, and is an error.
func (c *Conf) Install(dir string) (changed bool, err error) {
	path := filepath.Join(dir, c.Name)
	there, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(there, c.text):
		return false, nil
	case err == nil && !Ours(there):
		return false, fmt.Errorf("%s is not Culvert's and stays as it is: pods get no network from Culvert until it is removed", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	return true, diskfile.Write(path, c.text, true)
}

// Other is a configuration of dir that is not the one asked for.
type Other struct {
	Name string
	// First: runtimes, which take the first by name, take it rather than ours.
	First bool
	// Ours: it has Culvert's plugin.
	Ours bool
}

// Others lists the configurations in dir besides name.
func Others(dir, name string) (all []Other, err error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == name || !slices.Contains(extensions, filepath.Ext(e.Name())) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it has gone since
		}
		all = append(all, Other{Name: e.Name(), First: e.Name() < name, Ours: Ours(text)})
	}
	return all, nil
}
