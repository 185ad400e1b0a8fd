package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"culvert/ctrl/diskfile"
	"culvert/ctrl/ipam"
)

// The names in the records' directory.
const (
	podsName      = "pods" // in the state directory
	recordSuffix  = ".json"
	corruptSuffix = ".corrupt"
)

// store is the records on disk, a file each, and the allocator's history. A
// file is there whole or not at all. Different records may be written at once.
type store struct {
	dir     string
	history string
	files   files
}

// files is how files are written and go; tests have it fail.
type files interface {
	Write(path string, data []byte, sync bool) error
	Remove(path string) error
}

// disk is the real one.
type disk struct{}

func (disk) Write(path string, data []byte, sync bool) error { return diskfile.Write(path, data, sync) }
func (disk) Remove(path string) error                        { return os.Remove(path) }

func (s *store) path(k Key) string { return filepath.Join(s.dir, k.String()+recordSuffix) }

// put writes a record. With sync it is on the disk when put returns; without,
// it survives this process but perhaps not the machine, which takes the link
// along anyway.
func (s *store) put(rec *Record, sync bool) error {
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return fmt.Errorf("pod record: %w", err)
	}
	key := rec.Key()
	if err := s.files.Write(s.path(key), append(data, '\n'), sync); err != nil {
		return fmt.Errorf("pod record: %w", err)
	}
	return nil
}

// remove deletes a record; one that is gone is no error.
func (s *store) remove(k Key) error {
	if err := s.files.Remove(s.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pod record: %w", err)
	}
	return nil
}

// load reads every record. A file that cannot be one is set aside under the
// suffix .corrupt and told in problems; what a crash left half-written goes.
func (s *store) load() (recs []Record, problems []error, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("pod records: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), diskfile.TempPrefix) {
			_ = os.Remove(path) // the leftover of a crash
			continue
		}
		if !strings.HasSuffix(e.Name(), recordSuffix) || e.IsDir() {
			continue
		}
		rec, err := readRecord(path)
		if err == nil && s.path(rec.Key()) != path {
			err = errors.New("file name and content name different attachments")
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("pod record %s is not usable (%w); it was set aside as %s%s, its pod needs a new ADD",
				path, err, path, corruptSuffix))
			_ = os.Rename(path, path+corruptSuffix)
			continue
		}
		recs = append(recs, rec)
	}
	return recs, problems, nil
}

// Records reads the records of a state directory that no Manager works with, and changes
// nothing. Files that are none are left out.
func Records(stateDir string) (recs []Record, err error) {
	files, err := filepath.Glob(filepath.Join(stateDir, podsName, "*"+recordSuffix))
	if err != nil {
		return nil, fmt.Errorf("pod records: %w", err)
	}
	for _, path := range files {
		if rec, err := readRecord(path); err == nil {
			recs = append(recs, rec)
		}
	}
	return recs, nil
}

func readRecord(path string) (rec Record, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, err
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return Record{}, err
	}
	return rec, rec.validate()
}

// putHistory keeps the allocator's order. It is a hint: no sync.
func (s *store) putHistory(h ipam.History) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return s.files.Write(s.history, data, false)
}

// loadHistory reads it; a missing or bad file is an empty history.
func (s *store) loadHistory() (h ipam.History) {
	data, err := os.ReadFile(s.history)
	if err != nil || json.Unmarshal(data, &h) != nil {
		return nil
	}
	return h
}
