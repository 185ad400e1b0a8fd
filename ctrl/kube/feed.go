package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Times between requests. Thousands of nodes lose their watches at the same moment.
const (
	// shortest is how long a watch must last without an event to count as one.
	shortest = time.Second
	// steady is how long one must last for the waits to begin anew.
	steady = 10 * time.Second
	// resumeWithin spreads the resumption of watches that were cut off, and
	// relistWithin the lists of those whose version the API server has forgotten.
	resumeWithin, relistWithin = time.Second, 2 * time.Second
	firstWait, longestWait     = 500 * time.Millisecond, 30 * time.Second
)

// feed keeps a store in step with an API server: a list, and then watches, each from
// where the last one ended, whatever became of it. It lists again only when the API server has
// forgotten that version, never because it cannot be reached. client-go's Reflector would:
// it keeps whole lists in memory too, and says what is wrong to a log of its own.
type feed struct {
	*Source
	store *store
	path  string
	end   context.CancelFunc
	// random is a number from 0 up to 1.
	random func() float64

	// What follows is written by run's goroutine with the Source's lock held.
	version    string // to watch from; empty: list first
	seen       string // the newest that was seen, which no list may be older than
	consistent bool   // seen is from another history than the API server's
	noInitial  bool   // the API server does not begin watches with all objects
	synced     bool   // the store is from this API server
	since      time.Time
	err        error // why it is out of touch since then; nil while that is only late
	failures   int   // in a row
	lists      uint64
	resumes    uint64
	heardAt    time.Time
	gone       bool // the store is no longer this feed's
}

// run keeps in step until ctx ends.
func (f *feed) run(ctx context.Context) {
	for {
		f.trying()
		start := time.Now()
		err := f.once(ctx)
		if ctx.Err() != nil {
			return
		}
		wait, back := f.lost(err, time.Since(start))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-back:
			timer.Reset(time.Duration(f.random() * float64(resumeWithin)))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
		}
	}
}

// once lists if it has to and watches until that breaks, which it always does.
func (f *feed) once(ctx context.Context) error {
	if f.version == "" {
		if !f.noInitial && !f.consistent {
			err := f.watch(ctx, true)
			if !refused(err) {
				return err
			}
			f.noInitial = true
		}
		if err := f.list(ctx); err != nil {
			return err
		}
	} else {
		f.resuming()
	}
	return f.watch(ctx, false)
}

// resuming counts.
func (f *feed) resuming() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resumes++
}

// refused reports whether the API server does not know such a watch.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// trying notes that there is nothing to hear from, unless that was so before.
func (f *feed) trying() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() {
		f.since = time.Now()
		f.signal() // what is wrong may have to be said later
	}
}

// heard notes that the API server is there.
func (f *feed) heard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heardAt = time.Now()
	if !f.since.IsZero() {
		if f.away() && f.failures > 1 {
			close(f.back)
			f.back = make(chan struct{})
		}
		f.since, f.err = time.Time{}, nil
		f.signal()
	}
}

// away reports whether the API server did not answer. The lock is held.
func (f *feed) away() bool { return f.err != nil && !answered(f.err) }

// lost notes why a list or watch ended, after so long, and returns how long to wait,
// or until the API server that is away has answered about another kind.
func (f *feed) lost(err error, lasted time.Duration) (wait time.Duration, back <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	connected := f.since.IsZero() // until now
	if connected {
		f.since = time.Now()
	}
	if lasted >= steady && connected {
		f.failures = 0
	}
	spread := resumeWithin
	switch {
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		f.version, spread = "", relistWithin
		f.failures++ // or lists would come one after the other
	case futureVersion(err):
		f.version, f.seen, f.consistent = "", "", true
		f.failures++
	case connected && !answered(err):
		if lasted >= watchFor {
			spread /= 10 // its time was over
		}
	default:
		f.failures++
		f.err = err
	}
	if f.err != nil || !connected {
		f.signal()
	}
	wait = time.Duration(f.random() * float64(spread))
	if f.failures > 0 {
		step := min(firstWait<<min(f.failures-1, 10), longestWait)
		wait = max(wait, step/2+time.Duration(f.random()*float64(step)))
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = max(wait, min(time.Duration(seconds)*time.Second, longestWait)+wait/2)
	}
	if f.away() {
		back = f.back
	}
	return wait, back
}

// answered reports whether an error is what the API server said, and not that it went away.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError
}

// futureVersion reports whether the API server has not seen the version that was asked for and
// does not come to see it: its history is another one, from a backup.
func futureVersion(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// replace puts a list in place.
func (f *feed) replace(all []change, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return
	}
	f.store.replace(all)
	f.version, f.seen, f.consistent, f.synced = version, version, false, true
	f.lists++
	f.signal()
}

// change takes a version of an object, or that it is gone.
func (f *feed) change(c change, gone bool, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return
	}
	f.version, f.seen = version, version
	before := len(f.store.bad)
	if gone {
		f.store.remove(c.ref)
	} else {
		f.store.put(c)
	}
	if f.store.changed || c.what != "" || len(f.store.bad) != before {
		f.signal()
	}
}

// at notes how far a watch has come.
func (f *feed) at(version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version, f.seen = version, version
}

// ended reports whether an error only says that a connection ended.
func ended(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
