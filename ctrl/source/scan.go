package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"culvert/ctrl/config/yamlfile"
)

// maxFile bounds one manifest: ten thousand nodes in full take a tenth of it.
const maxFile = 256 << 20

// scanner knows what the files of a directory said when they were last read.
// One goroutine uses it.
type scanner struct {
	path     string
	now      func() time.Time
	files    map[string]*file
	started  bool      // a set was delivered
	dirty    bool      // a file was read or removed since
	since    time.Time // since when something is being written; zero if not
	problems []error
	last     *Objects // the set that was delivered last
}

// file is one manifest file.
type file struct {
	name    string
	sig     signature
	sum     [sha256.Size]byte // of what parsed was made from
	missing time.Time         // since when it is not in the directory

	parsed *manifest // what it says; nil when err says why that is unknown
	err    error
	good   *manifest // what is in force of it, nil if nothing
	clash  error     // why parsed is not in force although it can be read
}

// signature tells whether a file has changed, as make and git do.
type signature struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func newScanner(path string, now func() time.Time) *scanner {
	return &scanner{path: path, now: now, files: map[string]*file{}}
}

// scan looks at the directory. It returns the new set if what is in force has
// changed, and how soon to look again if something is being written just now:
// until that is done, at most for patience, nothing changes at all, so that
// several files written together take effect together. s.problems is all that
// is wrong.
func (s *scanner) scan() (objs *Objects, again time.Duration) {
	before := s.configMapVersion()
	names, err := s.names()
	if err != nil {
		s.problems = append(s.fileProblems(), err)
		return nil, 0
	}
	now := s.now()
	hurry := !s.since.IsZero() && now.Sub(s.since) >= patience
	if again = s.lookAll(names, now, hurry); again > 0 {
		if s.since.IsZero() {
			s.since = now
		}
		return nil, again
	}
	s.since = time.Time{}
	if s.configMapVersion() != before {
		return nil, time.Millisecond // half of the files may be of the old version
	}
	if s.started && !s.dirty {
		s.problems = s.fileProblems()
		return nil, 0
	}
	removed := s.forget()
	changed := settleClashes(s.sorted()) || removed || !s.started
	s.dirty, s.started = false, true
	s.problems = s.fileProblems()
	if !changed {
		return nil, 0
	}
	return s.objects(), 0
}

// lookAll looks at all files there are and were. It returns how long to wait
// for those that are not being left alone; in a hurry that is never.
func (s *scanner) lookAll(names []string, now time.Time, hurry bool) (again time.Duration) {
	note := func(wait time.Duration) {
		if wait > 0 && !hurry && (again == 0 || wait < again) {
			again = wait
		}
	}
	present := make(map[string]bool, len(names))
	for _, name := range names {
		present[name] = true
		f := s.files[name]
		if f == nil {
			f = &file{name: name}
			s.files[name] = f
		}
		f.missing = time.Time{}
		note(s.look(f, now, hurry))
	}
	for name, f := range s.files {
		if present[name] {
			continue
		}
		if f.missing.IsZero() {
			f.missing = now // an editor may be about to put it back
		}
		s.dirty = true
		note(settle - now.Sub(f.missing))
	}
	return again
}

// forget drops the files that are gone and reports whether anything of them
// was in force.
func (s *scanner) forget() (removed bool) {
	for name, f := range s.files {
		if !f.missing.IsZero() {
			removed = removed || f.good != nil
			delete(s.files, name)
		}
	}
	return removed
}

// configMapVersion is where the link ..data of a mounted ConfigMap points: the
// kubelet changes all files at once by renaming it.
func (s *scanner) configMapVersion() string {
	to, err := os.Readlink(filepath.Join(s.path, "..data"))
	if err != nil {
		return ""
	}
	return to
}

// names lists the manifests in the directory, sorted.
func (s *scanner) names() ([]string, error) {
	entries, err := os.ReadDir(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: directory does not exist; create it or change source", s.path)
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s: is no directory; name one in source", s.path)
	case err != nil:
		return nil, fmt.Errorf("%s: directory cannot be read: %w; check its permissions", s.path, err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && isManifest(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// isManifest goes by the name: not what editors and the kubelet leave around.
func isManifest(name string) bool {
	ext := filepath.Ext(name)
	base := strings.TrimSuffix(name, ext)
	return (ext == ".yaml" || ext == ".yml" || ext == ".json") &&
		!strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#") && !strings.HasSuffix(base, ".tmp")
}

// nothing is what a directory or an empty file says.
var nothing = &manifest{}

// look reads a file if it has changed and is being left alone, or in a hurry.
// Otherwise it returns how long to wait.
func (s *scanner) look(f *file, now time.Time, hurry bool) time.Duration {
	path := filepath.Join(s.path, f.name)
	st, err := os.Stat(path)
	if err != nil {
		s.failed(f, signature{}, fmt.Sprintf("cannot be read: %v; remove it or check where it links to", unwrapPath(err)))
		return 0
	}
	sig := signatureOf(st)
	if sig == f.sig {
		return 0
	}
	if age := now.Sub(st.ModTime()); age >= 0 && age < settle && !hurry {
		return settle - age
	}
	switch {
	case st.IsDir():
		f.sig, f.parsed, f.err = sig, nothing, nil
	case !st.Mode().IsRegular():
		s.failed(f, sig, "is no regular file; remove it")
	case st.Size() > maxFile:
		s.failed(f, sig, fmt.Sprintf("has %d bytes, at most %d are read; split it", st.Size(), maxFile))
	default:
		s.read(f, sig, path)
	}
	return 0
}

// read reads and decodes a file.
func (s *scanner) read(f *file, sig signature, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		s.failed(f, signature{}, fmt.Sprintf("cannot be read: %v; check its permissions", unwrapPath(err)))
		return
	}
	sum := sha256.Sum256(text)
	if f.sig = sig; f.parsed != nil && sum == f.sum {
		return // touched, or replaced by its like
	}
	f.sum, s.dirty = sum, true
	if f.parsed, f.err = decodeManifest(path, text); f.err != nil {
		f.parsed = nil
	}
}

// failed notes that a file cannot be read; its last good content stays.
func (s *scanner) failed(f *file, sig signature, what string) {
	f.sig, f.parsed, f.clash = sig, nil, nil
	f.err = &yamlfile.Error{File: filepath.Join(s.path, f.name), What: what}
}

// unwrapPath drops the operation and the name, which the line has already.
func unwrapPath(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func signatureOf(st os.FileInfo) signature {
	sys := st.Sys().(*syscall.Stat_t)
	return signature{sys.Dev, sys.Ino, sys.Size, sys.Mtim, sys.Ctim}
}
