package source

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Times of the directory source.
const (
	// rescanEvery bounds how long a change can go unseen where the kernel
	// tells nothing: files behind symbolic links, network file systems.
	rescanEvery = 400 * time.Millisecond
	// settle is how long a file must be left alone: whoever writes it in
	// several steps is not done.
	settle = 60 * time.Millisecond
	// patience is how long a file that is written all the time is left alone.
	patience = 300 * time.Millisecond
	// busyShare bounds the time spent looking at unchanged files: a rescan
	// that takes long makes the next one come later.
	busyShare = 50
)

// Dir is the manifest directory: every *.yaml, *.yml and *.json file of one
// directory, one or more objects each. Hidden files are left alone, so that the
// directory may be a mounted ConfigMap; it may appear later, vanish, and be
// replaced. A file that is bad changes nothing: its last good objects stay.
type Dir struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	files atomic.Pointer[[]FileStatus]
}

var _ Source = (*Dir)(nil)

// NewDir reads path, which need not exist yet.
func NewDir(path string, log *slog.Logger) *Dir {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Dir{path: path, log: log.With("source", "dir:"+path), now: time.Now}
}

// Name is dir: and the path.
func (d *Dir) Name() string { return "dir:" + d.path }

// Files says what each file gave. Any goroutine may call it.
func (d *Dir) Files() []FileStatus {
	if files := d.files.Load(); files != nil {
		return slices.Clone(*files)
	}
	return nil
}

// Run watches the directory until ctx ends. It may be called once.
func (d *Dir) Run(ctx context.Context, apply func(*Objects), report func([]error)) error {
	s := newScanner(d.path, d.now)
	w := newWatch(d.path, d.log)
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due time.Time // when the timer fires
	var problems []string
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.events(): // what changed is found by looking
			if soon := d.now().Add(settle); soon.Before(due) {
				due = soon
				timer.Reset(settle)
			}
			continue
		case err := <-w.errors():
			d.log.Debug("watching the manifest directory", "cause", err) // the next scan sees all
			continue
		case <-timer.C:
		}
		w.follow()
		start := d.now()
		objs, again := s.scan()
		files := s.status()
		d.files.Store(&files)
		took := d.now().Sub(start)
		if objs != nil {
			d.log.Info("manifests read", "files", len(files), "nodes", len(objs.Nodes), "took", took.Round(time.Microsecond))
			apply(objs)
		}
		if now := texts(s.problems); !slices.Equal(now, problems) {
			problems = now
			report(slices.Clone(s.problems))
		}
		if again == 0 {
			again = min(max(rescanEvery, busyShare*took), 2*rescanEvery)
		}
		due = d.now().Add(again)
		timer.Reset(again)
	}
}

func texts(errs []error) []string {
	out := make([]string, len(errs))
	for i, err := range errs {
		out[i] = err.Error()
	}
	return out
}

// watch tells of changes in a directory, which it follows when it is replaced.
// Without inotify it is silent, and the rescans find the changes.
type watch struct {
	path    string
	watcher *fsnotify.Watcher
	on      inode // the directory that is watched
}

// inode names a directory itself, whatever path leads to it.
type inode struct{ dev, ino uint64 }

func newWatch(path string, log *slog.Logger) *watch {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("no inotify: changes of manifests are found by looking", "cause", err, "every", rescanEvery)
		return &watch{path: path}
	}
	return &watch{path: path, watcher: w}
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *watch) errors() <-chan error {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Errors
}

func (w *watch) close() {
	if w.watcher != nil {
		w.watcher.Close()
	}
}

// follow watches the directory that is at the path now.
func (w *watch) follow() {
	if w.watcher == nil {
		return
	}
	st, err := os.Stat(w.path)
	if err != nil {
		w.on = inode{}
		return
	}
	sys := st.Sys().(*syscall.Stat_t)
	now := inode{sys.Dev, sys.Ino}
	if now == w.on {
		return
	}
	_ = w.watcher.Remove(w.path) // of the directory that was there before
	if w.watcher.Add(w.path) == nil {
		w.on = now
	}
}
