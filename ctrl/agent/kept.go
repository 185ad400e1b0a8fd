package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"culvert/ctrl/diskfile"
)

// kept is what this node publishes about itself, which with manifests as the source
// goes to a file under stateDir, in the form of a Node object, and not to an API server:
// the VTEP's MAC and the tunnel addresses stay the same over a restart.
type kept struct {
	path, node  string
	annotations map[string]string
}

// keptNode is the part of a Node object that is kept.
type keptNode struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// loadKept reads what was kept. A file of another node is none; one that cannot be
// read is an error, and what it said is to be found again otherwise.
func loadKept(stateDir, node string) (*kept, error) {
	k := &kept{path: filepath.Join(stateDir, "node.json"), node: node, annotations: map[string]string{}}
	data, err := os.ReadFile(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	var n keptNode
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err != nil {
		return k, fmt.Errorf("what this node published before: %s: %w", k.path, err)
	}
	if n.Metadata.Name == node {
		maps.Copy(k.annotations, n.Metadata.Annotations)
	}
	return k, nil
}

// put keeps annotations in the place of all of the same prefixes, if they are others.
func (k *kept) put(annotations map[string]string) error {
	domains := map[string]bool{}
	for key := range annotations {
		domain, _, _ := strings.Cut(key, "/")
		domains[domain] = true
	}
	next := maps.Clone(k.annotations)
	maps.DeleteFunc(next, func(key, _ string) bool {
		domain, _, _ := strings.Cut(key, "/")
		return domains[domain]
	})
	maps.Copy(next, annotations)
	if maps.Equal(next, k.annotations) {
		return nil
	}
	n := keptNode{APIVersion: "v1", Kind: "Node"}
	n.Metadata.Name, n.Metadata.Annotations = k.node, next
	data, err := json.MarshalIndent(n, "", "  ")
	if err == nil {
		err = diskfile.Write(k.path, append(data, '\n'), true)
	}
	if err != nil {
		return fmt.Errorf("keeping what this node publishes: %w", err)
	}
	k.annotations = next
	return nil
}
