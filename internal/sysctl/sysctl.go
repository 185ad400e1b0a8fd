// Package sysctl writes the kernel's network settings. In a container that is not
// privileged /proc/sys is read-only; the node's own, mounted somewhere else, is not, and
// knows the network namespace of the thread that looks as well. Nothing but the way to
// those files lives here.
package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Variable is the environment variable that says where the node's /proc/sys is mounted
// for writing; of that directory net alone is needed. Without it, it is /proc/sys.
const Variable = "CULVERTD_PROC_SYS"

const procSys = "/proc/sys"

var root = rootFrom(os.Getenv(Variable))

func rootFrom(value string) string {
	if value == "" {
		return procSys
	}
	return filepath.Clean(value)
}

// Path is the file of a setting such as net/ipv4/ip_forward, for the network namespace
// of the calling thread.
func Path(name string) string { return filepath.Join(root, name) }

// Write sets a setting of the calling thread's network namespace. A setting that this
// kernel does not have is fs.ErrNotExist; a read-only /proc/sys is told with its way out.
func Write(name, value string) error {
	err := os.WriteFile(Path(name), []byte(value), 0)
	if errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: culvertd needs the node's /proc/sys/net writable, and %s to say where it is mounted", err, Variable)
	}
	return err
}

// Get is the trimmed value of a setting of the calling thread's network namespace, empty
// if this kernel does not have it.
func Get(name string) string {
	text, _ := os.ReadFile(Path(name))
	return strings.TrimSpace(string(text))
}

// Set is Write where a setting that this kernel does not have is none to set, and one
// that has the value already need not be writable.
func Set(name, value string) error {
	err := Write(name, value)
	if err == nil || errors.Is(err, fs.ErrNotExist) || Get(name) == value {
		return nil
	}
	return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
}

// Glob is the names that a pattern such as net/ipv6/conf/*/accept_ra matches.
func Glob(pattern string) (names []string) {
	paths, _ := filepath.Glob(Path(pattern))
	for _, p := range paths {
		names = append(names, strings.TrimPrefix(p, root+"/"))
	}
	return names
}
