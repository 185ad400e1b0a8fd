// Package guard looks before a benchmark begins whether it would disturb
// something: its traffic stays in namespaces of its own, but its load takes all
// processors of the machine.
package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// nodes are the programs of a node that serves somebody, by their names in
// /proc/PID/comm, which are cut after 15 bytes.
var nodes = []string{
	"kubelet", "culvertd", "flanneld", "calico-node", "cilium-agent", "vpp_main", "qemu-system-x86", "qemu-kvm",
}

// ErrNotRoot says that namespaces and BPF programs take root.
var ErrNotRoot = errors.New("the benchmark makes network namespaces and loads BPF programs: run it as root")

// Check says why the benchmark should not run here. proc is /proc; uid is that of
// the caller.
func Check(proc string, uid int) error {
	if uid != 0 {
		return ErrNotRoot
	}
	found, err := running(proc)
	if err != nil {
		return fmt.Errorf("looking who uses this machine: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("this machine is in use by %s: the load would take its processors; run elsewhere, or with --force",
			strings.Join(found, ", "))
	}
	return nil
}

// running are the programs of nodes that run, each with its process.
func running(proc string) (found []string, err error) {
	comms, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm"))
	if err != nil {
		return nil, err
	}
	for _, path := range comms {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process") {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		if name := string(bytes.TrimSpace(b)); slices.Contains(nodes, name) {
			found = append(found, fmt.Sprintf("%s (process %s)", name, filepath.Base(filepath.Dir(path))))
		}
	}
	return found, nil
}
