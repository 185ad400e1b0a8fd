package kube

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

// Names under which culvertd writes: in managedFields, and in Events.
const (
	fieldManager = "culvertd"
	controller   = "culvert.dev/culvertd"
)

// requestTimeout is how long one look and the write after it may take.
const requestTimeout = 15 * time.Second

// NetworkReady is why the Node's condition NetworkUnavailable is False.
type NetworkReady struct {
	Reason  string // one word in CamelCase
	Message string
}

// Publisher writes what this node says of itself to its Node object, and what
// cannot be carried out as Events of the objects concerned.
//
// It is level-triggered: its methods return at once, only the newest wish counts,
// and Run works towards it, for as long as it takes. All are safe for concurrent use.
type Publisher struct {
	// Failed is called for every attempt that failed. Set it before Run.
	Failed func()

	node   *nodeWriter
	events *eventWriter
}

// NewPublisher prepares the writes of a node.
func NewPublisher(c *Client, node string, log *slog.Logger) *Publisher {
	return newPublisher(c.core, node, log)
}

func newPublisher(core typed.CoreV1Interface, node string, log *slog.Logger) *Publisher {
	p := &Publisher{Failed: func() {}}
	failed := func() { p.Failed() }
	p.node = &nodeWriter{client: core.Nodes(), name: node, outcome: outcome{log: log, what: "publishing", failed: failed}, wake: make(chan struct{}, 1)}
	p.events = &eventWriter{client: core, node: node, outcome: outcome{log: log, what: "Events", failed: failed}, wake: make(chan struct{}, 1)}
	return p
}

// Publish says which annotations this node's Node object is to have, and that pods
// can be added here; nil: nothing is said of that, and what was said is not taken back.
// Annotations of the same domains that culvertd wrote and that are not wanted any
// more are removed; those of others never are. The map is kept: do not change it.
func (p *Publisher) Publish(annotations map[string]string, ready *NetworkReady) {
	p.node.publish(annotations, ready)
}

// Seen hands over the objects that the source yielded: a Node that says something
// else than what was published is put right, and Events name objects as they are there.
func (p *Publisher) Seen(objects *source.Objects) {
	p.node.seen(findObject(objects.Nodes, "", p.node.name))
	p.events.seen(objects)
}

// Conflicts says what cannot be carried out: all of it, each time. The slice is
// kept: do not change it.
func (p *Publisher) Conflicts(list []flavour.Conflict) { p.events.conflicts(list) }

// Problems are sentences about what could not be written, or does not stay.
func (p *Publisher) Problems() []string {
	var all []string
	for _, s := range []string{p.node.outcome.problem(), p.node.rivalry(), p.events.outcome.problem()} {
		if s != "" {
			all = append(all, s)
		}
	}
	return all
}

// Run writes until ctx ends; it returns ctx's error. What was written stays.
func (p *Publisher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { p.node.run(ctx) })
	wg.Go(func() { p.events.run(ctx) })
	wg.Wait()
	return ctx.Err()
}

// outcome remembers what is wrong, and tells of it once.
type outcome struct {
	log    *slog.Logger
	what   string
	failed func()

	mu   sync.Mutex
	told string
}

// set takes the outcome of an attempt.
func (r *outcome) set(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		r.failed()
	}
	r.mu.Lock()
	was := r.told
	r.told = text
	r.mu.Unlock()
	switch {
	case text == was:
	case text != "":
		r.log.Warn("not written to the API server; it is tried again", "what", r.what, "cause", text)
	default:
		r.log.Info("written to the API server again", "what", r.what)
	}
}

func (r *outcome) problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}

// nudge wakes a loop that may be awake already.
func nudge(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// sleepUntil waits until a moment, or to be woken, or for the end, when it says false.
// At the zero time nothing is due.
func sleepUntil(ctx context.Context, at time.Time, wake <-chan struct{}) (due, more bool) {
	var alarm <-chan time.Time
	if !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
		return false, false
	case <-wake:
		return false, true
	case <-alarm:
		return true, ctx.Err() == nil
	}
}

// conditionOf is a Node's condition of a type, or nil.
func conditionOf(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}
