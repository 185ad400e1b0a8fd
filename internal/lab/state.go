package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// stateDir keeps a file a lab. It is on a memory file system: namespaces and
// processes end with the machine's run, and so does what is known of them.
const stateDir = "/run/culvert-lab"

// ErrNoLab says that there is no lab to load.
var ErrNoLab = errors.New("no lab is up: `culvert lab up` builds one")

func (l *Lab) stateFile() string { return filepath.Join(stateDir, l.Name+".json") }

// save keeps what the lab consists of so far.
func (l *Lab) save() error {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return fmt.Errorf("lab state: %w", err)
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("lab state: %w", err)
	}
	temp := l.stateFile() + ".tmp"
	if err := os.WriteFile(temp, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("lab state: %w", err)
	}
	if err := os.Rename(temp, l.stateFile()); err != nil {
		return fmt.Errorf("lab state: %w", err)
	}
	return nil
}

// forget removes the state file, and the directory with the last one.
func (l *Lab) forget() error {
	if err := os.Remove(l.stateFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab state: %w", err)
	}
	_ = os.Remove(stateDir) // fails while there are other labs
	return nil
}

// Load finds the lab that was built last. Without one it returns ErrNoLab.
func Load() (*Lab, error) {
	labs, err := LoadAll()
	if err != nil {
		return nil, err
	}
	if len(labs) == 0 {
		return nil, ErrNoLab
	}
	return labs[len(labs)-1], nil
}

// LoadAll finds every lab of this machine, the newest last.
func LoadAll() ([]*Lab, error) {
	files, err := filepath.Glob(filepath.Join(stateDir, "cvl-*.json"))
	if err != nil {
		return nil, err
	}
	var labs []*Lab
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken down meanwhile
		}
		l := &Lab{}
		if err == nil {
			err = json.Unmarshal(data, l)
		}
		if err != nil {
			return nil, fmt.Errorf("lab state %s: %w", file, err)
		}
		labs = append(labs, l)
	}
	slices.SortStableFunc(labs, func(a, b *Lab) int { return a.Created.Compare(b.Created) })
	return labs, nil
}
