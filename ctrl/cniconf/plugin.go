package cniconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// InstallPlugin copies the plugin's program into dir, whole: one that runs from there
// goes on, and who starts it finds the one of before or this one. It says whether
// that was needed.
func InstallPlugin(program, dir string) (changed bool, err error) {
	path := filepath.Join(dir, filepath.Base(program))
	content, err := os.ReadFile(program)
	if err != nil {
		return false, err
	}
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case !st.Mode().IsRegular():
		return false, fmt.Errorf("%s is no regular file (%s) and stays as it is; remove it", path, st.Mode().Type())
	default:
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, content) && st.Mode().Perm() == 0o755 {
			return false, nil
		}
	}
	return true, place(path, content)
}

// place writes a program beside path and renames it. Runtimes know programs by their
// whole names: the one that is being written is not in anybody's way.
func place(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(content))
	if err = errors.Join(err, f.Chmod(0o755), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
