package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// dirPrefix begins the names of testbeds' directories; the number of the process
// that made one follows.
const dirPrefix = "cvb-"

// swept has directories of dead processes removed once.
var swept sync.Once

// NewDir makes a directory for a testbed's files. Who makes it removes it. What
// processes have left that were killed before they could is removed, too.
func NewDir() (string, error) {
	swept.Do(func() { _ = sweep(os.TempDir(), "/proc") }) // it is in nobody's way
	return os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
}

// sweep removes the directories in temp whose processes are not in proc.
func sweep(temp, proc string) error {
	dirs, err := filepath.Glob(filepath.Join(temp, dirPrefix+"*-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue // somebody else's
		}
		if _, err := os.Stat(filepath.Join(proc, pid)); errors.Is(err, os.ErrNotExist) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}
