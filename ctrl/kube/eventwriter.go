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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/flowcontrol"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

// Limits of what one node does about Events. All nodes choose the same ones of too many
// conflicts, so that the cluster gets no more of them either.
const (
	maxEvents       = 32
	eventsPerSecond = 0.5
	eventsAtOnce    = 10
)

// eventWriter keeps an Event for every conflict. What is over is left to expire.
type eventWriter struct {
	client  typed.EventsGetter
	node    string
	outcome outcome
	wake    chan struct{}

	mu      sync.Mutex
	objects *source.Objects
	list    []flavour.Conflict
	changed bool
}

// eventState is an Event that this node looks after. It is run's.
type eventState struct {
	event *corev1.Event
	own   bool
	next  time.Time // when to look whether it is there
}

func (w *eventWriter) seen(objects *source.Objects) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects = objects
}

func (w *eventWriter) conflicts(list []flavour.Conflict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(list, w.list) {
		w.list, w.changed = list, true
		nudge(w.wake)
	}
}

func (w *eventWriter) run(ctx context.Context) {
	all := map[string]*eventState{}
	limit := flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsAtOnce)
	defer limit.Stop()
	retry := pauses{least: time.Second, most: 5 * time.Minute}
	var pause time.Time // nothing before, after a failure
	for {
		nodes := w.renew(all, time.Now())
		first := earliest(all)
		var at time.Time
		if first != nil {
			if at = first.next; at.Before(pause) {
				at = pause
			}
		}
		due, more := sleepUntil(ctx, at, w.wake)
		if !more || due && limit.Wait(ctx) != nil {
			return
		}
		if !due {
			continue
		}
		last, err := w.tell(ctx, first.event)
		if ctx.Err() != nil {
			return
		}
		w.outcome.set(err)
		now := time.Now()
		if err != nil {
			pause = now.Add(retry.next())
			first.next = pause // the others go first
			continue
		}
		retry.reset()
		if last.After(now) { // by another node's clock
			last = now
		}
		first.next = last.Add(refreshAfter + turn(first.event.Name, w.node, nodes, first.own))
	}
}

// earliest is the Event to look at next; nil if there is none.
func earliest(all map[string]*eventState) (first *eventState) {
	for _, s := range all {
		if first == nil || s.next.Before(first.next) || s.next.Equal(first.next) && s.event.Name < first.event.Name {
			first = s
		}
	}
	return first
}

// renew brings the Events to look after in line with the conflicts, and returns the
// number of nodes.
func (w *eventWriter) renew(all map[string]*eventState, now time.Time) (nodes int) {
	w.mu.Lock()
	objects, list, changed := w.objects, w.list, w.changed
	w.changed = false
	w.mu.Unlock()
	nodes = 1
	if objects != nil {
		nodes = max(nodes, len(objects.Nodes))
	}
	if !changed {
		return nodes
	}
	wanted := map[string]*eventState{}
	for i := range list {
		c := &list[i]
		e := eventOf(c, referenceTo(objects, c.Object), w.node)
		wanted[e.Name] = &eventState{event: e, own: concerns(c, w.node)}
	}
	keep(wanted)
	maps.DeleteFunc(all, func(name string, _ *eventState) bool { return wanted[name] == nil })
	for name, s := range wanted {
		if all[name] == nil {
			s.next = now.Add(turn(name, w.node, nodes, s.own))
			all[name] = s
		}
	}
	return nodes
}

// keep leaves maxEvents: what is about this node, and of the others those that
// all nodes keep.
func keep(wanted map[string]*eventState) {
	if len(wanted) <= maxEvents {
		return
	}
	names := slices.SortedFunc(maps.Keys(wanted), func(a, b string) int {
		switch {
		case wanted[a].own != wanted[b].own && wanted[a].own:
			return -1
		case wanted[a].own != wanted[b].own:
			return 1
		}
		return strings.Compare(digestOf(a), digestOf(b))
	})
	for _, name := range names[maxEvents:] {
		delete(wanted, name)
	}
}

// digestOf is the end of an Event's name, which is spread evenly.
func digestOf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// tell makes sure that an Event is there and not about to expire, and returns when it
// was last written.
func (w *eventWriter) tell(ctx context.Context, want *corev1.Event) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	client, object := w.client.Events(want.Namespace), eventName(want)
	have, err := client.Get(ctx, want.Name, metav1.GetOptions{})
	now := metav1.Now()
	switch {
	case apierrors.IsNotFound(err):
		e := want.DeepCopy()
		e.FirstTimestamp, e.LastTimestamp, e.Count = now, now, 1
		_, err = client.Create(ctx, e, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsAlreadyExists(err) { // another node was faster
			err = nil
		}
		return now.Time, writeError(err, "create", "events", object)
	case err != nil:
		return now.Time, writeError(err, "get", "events", object)
	}
	if last := lastOf(have); now.Sub(last) < refreshAfter {
		return last, nil
	}
	return w.refresh(ctx, have)
}

// refresh keeps an Event from expiring. Of two nodes that do it at the same time the
// second is told of a conflict, which is as good.
func (w *eventWriter) refresh(ctx context.Context, have *corev1.Event) (last time.Time, err error) {
	now := metav1.Now()
	object := eventName(have)
	body, err := json.Marshal(map[string]any{
		"metadata":      map[string]any{"resourceVersion": have.ResourceVersion},
		"count":         have.Count + 1,
		"lastTimestamp": now,
	})
	if err != nil {
		return now.Time, fmt.Errorf("patch of %s: %w", object, err)
	}
	_, err = w.client.Events(have.Namespace).Patch(ctx, have.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{FieldManager: fieldManager})
	if apierrors.IsConflict(err) {
		err = nil
	}
	return now.Time, writeError(err, "patch", "events", object)
}

func eventName(e *corev1.Event) string { return "Event " + e.Namespace + "/" + e.Name }
