// Package diskfile puts files in place whole: who reads one finds what was there before
// or all that is there now, whatever ends in between. Nothing else lives here.
package diskfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// TempPrefix begins the names of files that are being written. One that is there when
// nobody writes is the leftover of a crash.
const TempPrefix = ".tmp-"

// Write is WriteFrom with data.
func Write(path string, data []byte, sync bool) error {
	return WriteFrom(path, sync, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(data))
		return err
	})
}

// WriteFrom writes a file, readable by its owner alone, beside path and renames it. With sync
// it is on the disk when it returns; without, a crash of the machine may lose it, and
// one of the program may not. On an error what was there before stays.
func WriteFrom(path string, sync bool, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = write(f)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil || !sync {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
