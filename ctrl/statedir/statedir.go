// Package statedir is what the parts of culvertd share of the state directory: that one
// process works with it at a time, which form its files have, and how they are called.
// What is in them is the affair of who writes them.
package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"culvert/ctrl/diskfile"
)

// Format is the form of the files that this culvertd writes. It grows when an older
// culvertd could misunderstand them; fields that it would only overlook leave it.
const Format = 1

// The names in the directory.
const (
	lockName   = "lock"
	formatName = "state.json"
)

// Names are all the files and directories that culvertd makes in a state directory.
var Names = []string{"calico-ipam", "ipam.json", "node.json", "objects.json.gz", "pods", formatName, lockName}

// Dir is a state directory that this process works with.
type Dir struct{ lock *os.File }

// form is the file that tells it.
type form struct {
	Format   int    `json:"format"`
	Culvertd string `json:"culvertd"` // for people: the version that wrote it
}

// Open makes the directory if it is missing, and takes it, until Close or the end of the
// process. It refuses one that another process works with (a *HeldError), and one of a
// newer form.
func Open(path, version string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := lock(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &Dir{lock: f}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for people, and HeldError
	}
	if err == nil {
		err = checkForm(filepath.Join(path, formatName), version)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), d.Close())
	}
	return d, nil
}

// Close lets another process have the directory.
func (d *Dir) Close() error { return d.lock.Close() }

// HeldError says that another process works with a state directory.
type HeldError struct {
	Path string
	PID  int // 0: not known
}

// Error says what to do about it.
func (e *HeldError) Error() string {
	who := "another culvertd"
	if e.PID != 0 {
		who += fmt.Sprintf(" (process %d)", e.PID)
	}
	return fmt.Sprintf("state directory %s: %s works with it; stop it, or set another 'stateDir' and 'socket'", e.Path, who)
}

// lock takes a lock that ends with the process.
func lock(f *os.File, path string) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		text, _ := os.ReadFile(f.Name())
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return &HeldError{Path: path, PID: pid}
	}
	if err != nil {
		return fmt.Errorf("state directory: locking %s: %w", f.Name(), err)
	}
	return nil
}

// Held is a *HeldError if a process works with the directory. It makes nothing.
func Held(path string) error {
	f, err := os.Open(filepath.Join(path, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	defer f.Close()
	return lock(f, path)
}

// checkForm refuses a newer form, and writes this one's in the place of another. A
// directory without it is one of a version that wrote none.
func checkForm(path, version string) error {
	mine := form{Format: Format, Culvertd: version}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var there form
	if err == nil {
		if err := json.Unmarshal(text, &there); err != nil {
			return fmt.Errorf("%s: %w; remove it if no newer culvertd has written it", path, err)
		}
	}
	if there.Format > Format {
		return fmt.Errorf("%s: culvertd %s has left it in form %d and this one, %s, knows forms up to %d: run that version again, "+
			"or drain the node and remove what is there with `culvert cleanup`", path, there.Culvertd, there.Format, version, Format)
	}
	if there == mine {
		return nil
	}
	text, err = json.Marshal(mine)
	if err != nil {
		return err
	}
	return diskfile.Write(path, append(text, '\n'), true)
}
