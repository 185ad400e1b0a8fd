package kube

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"culvert/ctrl/source"
)

// coldWait is how long the API server has, at the start, until what was kept on disk
// is used.
const coldWait = 2 * time.Second

// SourceOptions say what to read.
type SourceOptions struct {
	// Node is this node's name: of its own objects more is kept.
	Node string
	// Mode is native, flannel, calico or auto, which reads what all of them do.
	Mode string
	// StateDir is where the last good objects are kept; empty: nowhere.
	StateDir string
	// Warm reports, when Run begins, whether pods are there already, whose traffic waits for
	// the first objects: those that were kept are then used until the API server has sent its
	// own. nil: none are.
	Warm func() bool
	Log  *slog.Logger
}

// Source is an API server's objects, stripped to what the flavours read: an update
// that changes nothing of that is none. Objects that stay the same stay the same
// pointers from set to set.
type Source struct {
	client *Client
	opt    SourceOptions
	log    *slog.Logger
	state  *state
	wake   chan struct{} // has room for one

	always, custom []kind
	group          sync.WaitGroup // the feeds

	mu     sync.Mutex
	back   chan struct{} // closed, and made anew, when the API server is there again
	stores []*store      // of all kinds, whether they are there or not
	feeds  []*feed       // nil where there is none; as stores
	// planned: the CustomResourceDefinitions have been looked at.
	planned bool
	begun   bool // all kinds have been read from the API server
	stale   bool // what was kept on disk is, or was, in force
	warm    bool // SourceOptions.Warm
	began   time.Time
	last    *source.Objects
}

var _ source.Source = (*Source)(nil)

// NewSource prepares reading; Run does it.
func NewSource(client *Client, opt SourceOptions) *Source {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{client: client, opt: opt, log: opt.Log.With("source", "kube"), wake: make(chan struct{}, 1), back: make(chan struct{}), last: &source.Objects{}}
	s.always, s.custom = kindsOf(opt.Mode)
	kinds := slices.Concat(s.always, s.custom)
	s.state = newState(client, opt, kinds)
	for _, k := range kinds {
		s.stores = append(s.stores, newStore(k, opt.Node))
	}
	s.feeds = make([]*feed, len(s.stores))
	return s
}

// Name is kube.
func (s *Source) Name() string { return "kube" }

// Run reads until ctx ends. It may be called once.
func (s *Source) Run(ctx context.Context, apply func(*source.Objects), report func([]error)) error {
	began := time.Now()
	s.state.load(s.stores)
	s.began, s.warm = began, s.opt.Warm != nil && s.opt.Warm()
	feeding, stop := context.WithCancel(ctx)
	s.mu.Lock()
	for i := range s.always {
		s.start(feeding, i, s.stores[i].kind.path(layout{}))
	}
	s.mu.Unlock()
	s.group.Go(func() { s.state.keep(ctx) })
	defer s.group.Wait() // the last
	defer stop()
	timer := time.NewTimer(coldWait)
	defer timer.Stop()
	var p pace
	var told []string
	s.signal()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		case <-timer.C:
		}
		now := time.Now()
		objs, problems, again := s.turn(feeding, now, now.Sub(began) >= coldWait, p.wait(now))
		if objs != nil {
			apply(objs)
			p.ran(now, time.Now())
		}
		if lines := texts(problems); !slices.Equal(lines, told) {
			told = lines
			report(problems)
		}
		if again.IsZero() {
			again = now.Add(time.Hour)
		}
		if cold := began.Add(coldWait); now.Before(cold) && cold.Before(again) {
			again = cold
		}
		timer.Reset(time.Until(again))
	}
}

// turn looks at everything once: what is to be applied, what is wrong, and when to look again.
// A set that may only be applied after wait is kept back.
func (s *Source) turn(ctx context.Context, now time.Time, cold bool, wait time.Duration) (objs *source.Objects, problems []error, again time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followDefinitions(ctx)
	first := false
	if !s.begun && s.allSynced() {
		s.begun, first = true, !s.stale
		s.log.Info("objects read", "counts", s.counts())
	}
	if !s.begun && !s.stale && s.state.loaded && (cold || s.warm) {
		s.stale, first = true, true
		if cold {
			s.log.Warn("the API server does not answer: the objects that were kept are used", "file", s.state.path, "saved", s.state.saved)
		} else {
			s.log.Info("there are pods: the objects that were kept are used until the API server has sent its own", "saved", s.state.saved)
		}
	}
	if (s.begun || s.stale) && (first || s.dirty()) {
		if wait > 0 {
			again = now.Add(wait)
		} else {
			objs = s.snapshot()
		}
	}
	if s.begun && objs != nil {
		s.state.changed(objs)
	}
	problems, due := s.problems(now)
	if !due.IsZero() && (again.IsZero() || due.Before(again)) {
		again = due
	}
	return objs, problems, again
}

// signal makes Run look. The lock may be held.
func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// start begins to read a kind. The lock is held.
func (s *Source) start(ctx context.Context, i int, path string) {
	ctx, end := context.WithCancel(ctx)
	f := &feed{Source: s, store: s.stores[i], path: path, end: end, random: rand.Float64}
	s.feeds[i] = f
	s.group.Go(func() {
		defer end()
		f.run(ctx)
	})
}

// defined is the feed of CustomResourceDefinitions, nil if the mode needs none.
func (s *Source) defined() *feed {
	if len(s.custom) == 0 {
		return nil
	}
	return s.feeds[len(s.always)-1]
}

// followDefinitions begins to read the kinds that have come to be, and ends what is gone.
// The lock is held.
func (s *Source) followDefinitions(ctx context.Context) {
	d := s.defined()
	if d == nil || !d.synced || s.planned && !d.store.changed {
		return
	}
	s.planned, d.store.changed = true, false
	l := layoutOf(d.store)
	for i := len(s.always); i < len(s.stores); i++ {
		st, f := s.stores[i], s.feeds[i]
		there := d.store.has(st.kind.definition(l))
		path := st.kind.path(l)
		if f != nil && (!there || f.path != path) {
			f.end()
			f.gone, s.feeds[i] = true, nil
		}
		switch {
		case !there:
			st.replace(nil)
		case s.feeds[i] == nil:
			s.log.Info("custom resource found", "path", path)
			s.start(ctx, i, path)
		}
	}
}

// following are the feeds that there are. The lock is held.
func (s *Source) following() []*feed {
	return slices.DeleteFunc(slices.Clone(s.feeds), func(f *feed) bool { return f == nil })
}

func (s *Source) allSynced() bool {
	return !slices.ContainsFunc(s.following(), func(f *feed) bool { return !f.synced })
}

// dirty reports whether the last set is not what there is.
func (s *Source) dirty() bool {
	return slices.ContainsFunc(s.stores, func(st *store) bool { return st.changed && st.kind.fill != nil })
}

// snapshot is the set as it is now: the lists of kinds without a change are those of
// the last one. The lock is held.
func (s *Source) snapshot() *source.Objects {
	next := *s.last
	for _, st := range s.stores {
		if st.changed && st.kind.fill != nil {
			st.kind.fill(&next, st.sorted)
			st.changed = false
		}
	}
	s.last = &next
	return &next
}

func (s *Source) counts() map[string]int {
	counts := map[string]int{}
	for i, st := range s.stores {
		if s.feeds[i] != nil && st.kind.fill != nil {
			counts[st.kind.name] = len(st.sorted)
		}
	}
	return counts
}

// KindStatus says how far the reading of a kind has come.
type KindStatus struct {
	Kind    string // Node
	Path    string // /api/v1/nodes
	Objects int
	// Version is the newest resource version that was seen, empty before the first list.
	Version string
	// Heard is when the API server last sent something about it.
	Heard time.Time
	// Lists and Resumes count how often everything was read, and how often a watch
	// went on where the one before had ended.
	Lists, Resumes uint64
	// Error is why the API server is not heard of just now.
	Error string
}

// Kinds lists the kinds that are read, in the order of their names. Any goroutine may call it.
func (s *Source) Kinds() []KindStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var all []KindStatus
	for _, f := range s.following() {
		st := KindStatus{Kind: f.store.kind.name, Path: f.path, Objects: len(f.store.sorted), Version: f.seen, Heard: f.heardAt, Lists: f.lists, Resumes: f.resumes}
		_, st.Error = f.trouble(now)
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b KindStatus) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

func texts(errs []error) []string {
	lines := make([]string, len(errs))
	for i, err := range errs {
		lines[i] = err.Error()
	}
	return lines
}
