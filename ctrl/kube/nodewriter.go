package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	// lookEvery is how often the Node is looked at although nobody said that it
	// changed: the source does not keep its conditions.
	lookEvery = 10 * time.Minute
	// lookAgain is the least time between two looks: for a moment after a write the
	// source still yields the Node of before.
	lookAgain = time.Second

	// A write that does not stay is repeated after pauses of up to rivalPause. It is told
	// from the rivalTold-th time on, of other network agents at once, and forgotten when
	// all was quiet for rivalCalm.
	rivalPause = 5 * time.Minute
	rivalTold  = 3
	rivalCalm  = 15 * time.Minute
)

// networkAgents are who else writes these annotations, as managedFields name them.
var networkAgents = []string{"flanneld", "calico-node"}

// nodeWriter keeps this node's annotations and condition on its Node object.
type nodeWriter struct {
	client  typed.NodeInterface
	name    string
	outcome outcome
	wake    chan struct{}

	mu    sync.Mutex
	wish  wish
	asked bool   // there is a wish
	dirty bool   // the Node may say something else
	rival string // who overwrites it, if somebody does

	// The rest is run's.

	stands wish // what the Node said when it was last looked at or written
	known  bool // stands is something
	losses int  // how often that was overwritten
	lostAt time.Time
	rewrite,
	next time.Time // not before
}

// wish is what the Node is to say. It is immutable.
type wish struct {
	annotations map[string]string
	ready       *NetworkReady
}

func (w *nodeWriter) publish(annotations map[string]string, ready *NetworkReady) {
	w.mu.Lock()
	defer w.mu.Unlock()
	same := w.asked && maps.Equal(annotations, w.wish.annotations) && (ready == w.wish.ready || ready != nil && w.wish.ready != nil && *ready == *w.wish.ready)
	if !same {
		w.wish, w.asked, w.dirty = wish{annotations, ready}, true, true
		nudge(w.wake)
	}
}

// seen compares the Node that the source yielded, which may be an old one and may
// lack its conditions, and is nil if there is none.
func (w *nodeWriter) seen(n *corev1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n == nil || !w.asked || w.dirty {
		return
	}
	c := conditionOf(n, corev1.NodeNetworkUnavailable)
	if len(overwritten(n, w.wish.annotations)) > 0 || w.wish.ready != nil && c != nil && !saysReady(n, w.wish.ready) {
		w.dirty = true
		nudge(w.wake)
	}
}

// rivalry says who overwrites what this node publishes; empty if nobody does.
func (w *nodeWriter) rivalry() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rival
}

func (w *nodeWriter) run(ctx context.Context) {
	var look time.Time // without being asked
	retry := pauses{least: time.Second, most: 2 * time.Minute}
	for {
		at := look
		if w.isDirty() {
			at = w.next
			if at.IsZero() {
				at = time.Now()
			}
		}
		due, more := sleepUntil(ctx, at, w.wake)
		if !more {
			return
		}
		if !due {
			continue
		}
		later, err := w.sync(ctx)
		if ctx.Err() != nil {
			return
		}
		w.outcome.set(err)
		now := time.Now()
		switch {
		case err != nil:
			w.setDirty()
			w.next = now.Add(retry.next())
		case later > 0:
			w.setDirty()
			w.next = now.Add(later)
		default:
			retry.reset()
			w.next, look = now.Add(lookAgain), now.Add(halfTo(lookEvery))
		}
	}
}

func (w *nodeWriter) isDirty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dirty
}

func (w *nodeWriter) setDirty() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = true
}

// sync looks at the Node and writes what is missing. A write that somebody undoes may
// have to wait: then later is for how long.
func (w *nodeWriter) sync(ctx context.Context) (later time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	w.mu.Lock()
	want := w.wish
	w.dirty = false
	w.mu.Unlock()
	object := "Node " + w.name
	n, err := w.client.Get(ctx, w.name, metav1.GetOptions{})
	if err != nil {
		return 0, writeError(err, "get", "nodes", object)
	}
	if later := w.compete(n, want, time.Now()); later > 0 {
		return later, nil
	}
	patch, needed := patchOf(n, want.annotations, want.ready, metav1.Now())
	if needed {
		body, err := json.Marshal(patch)
		if err != nil {
			return 0, fmt.Errorf("patch of %s: %w", object, err)
		}
		opts := metav1.PatchOptions{FieldManager: fieldManager}
		if _, err := w.client.Patch(ctx, w.name, types.StrategicMergePatchType, body, opts, "status"); err != nil {
			return 0, writeError(err, "patch", "nodes/status", object)
		}
		w.outcome.log.Info("published", "node", w.name, "patch", string(body))
	}
	w.stands, w.known = want, true
	return 0, nil
}

// compete counts what others have overwritten, and says how long to leave it to them:
// two programs that write by turns at full speed would load the API server for nothing.
func (w *nodeWriter) compete(n *corev1.Node, want wish, now time.Time) (later time.Duration) {
	lost, by := w.lost(n, want)
	if len(lost) == 0 {
		if now.Sub(w.lostAt) > rivalCalm && w.losses > 0 {
			w.losses = 0
			w.setRival("")
		}
		return 0
	}
	if now.Before(w.rewrite) {
		return w.rewrite.Sub(now)
	}
	if now.Sub(w.lostAt) > rivalCalm {
		w.losses = 0
	}
	pause := pauses{least: time.Second, most: rivalPause, failures: w.losses}
	w.losses++
	w.lostAt, w.rewrite = now, now.Add(pause.next())
	if w.losses >= rivalTold || slices.ContainsFunc(by, func(name string) bool { return slices.Contains(networkAgents, name) }) {
		who := "somebody"
		if len(by) > 0 {
			who = strings.Join(by, " and ")
		}
		w.setRival(fmt.Sprintf("Node %s: %s overwrote %s (overwritten %d times by now): let only culvertd write it, and stop flanneld or calico-node if it runs on this node",
			w.name, who, strings.Join(lost, ", "), w.losses))
	}
	return 0
}

// lost is what stood on the Node, is still to be there in some form and is another by now,
// also where the wish has followed, as flannel's MAC does; and who owns those fields.
func (w *nodeWriter) lost(n *corev1.Node, want wish) (what, by []string) {
	if !w.known {
		return nil, nil
	}
	add := func(name string, path ...string) {
		what = append(what, name)
		for _, owner := range ownersOf(n, path...) {
			if owner != fieldManager && !slices.Contains(by, owner) {
				by = append(by, owner)
			}
		}
	}
	for _, key := range overwritten(n, w.stands.annotations) {
		if _, wanted := want.annotations[key]; wanted {
			add("annotation "+key, "f:metadata", "f:annotations", "f:"+key)
		}
	}
	if r := w.stands.ready; r != nil && want.ready != nil && *r == *want.ready && !saysReady(n, r) {
		add("condition "+string(corev1.NodeNetworkUnavailable), conditionPath(corev1.NodeNetworkUnavailable)...)
	}
	return what, by
}

func (w *nodeWriter) setRival(text string) {
	w.mu.Lock()
	was := w.rival
	w.rival = text
	w.mu.Unlock()
	if was == "" && text != "" {
		w.outcome.log.Warn("what this node publishes is overwritten", "cause", text)
	}
}
