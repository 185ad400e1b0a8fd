package agent

import (
	"cmp"
	"context"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/ctrl/kube"
	"culvert/ctrl/source"
)

// publisher takes what this node says of itself to an API server. A *kube.Publisher is one.
type publisher interface {
	Publish(annotations map[string]string, ready *kube.NetworkReady)
	Seen(objects *source.Objects)
	Conflicts(list []flavour.Conflict)
	Problems() []string
	Run(ctx context.Context) error
}

// publishTo makes the publisher of an API server, before Run.
func (a *Agent) publishTo(c *kube.Client) {
	p := kube.NewPublisher(c, a.cfg.Node, a.log)
	p.Failed = func() { a.metrics.SyncError("publish") }
	a.publisher = p
}

// networkReady is what the Node's condition says once pods can be added.
var networkReady = &kube.NetworkReady{Reason: "CulvertIsUp", Message: "Culvert carries the traffic of this node's pods"}

// publish hands over what the objects ask this node to say. It costs little if that
// is what was handed over before.
func (a *Agent) publish(d *flavour.Desired, objects *source.Objects) {
	if a.publisher == nil || objects == nil {
		return
	}
	ready := networkReady
	if a.readyForPods() != nil {
		ready = nil
	}
	a.publisher.Publish(d.Annotations, ready)
	a.publisher.Seen(objects)
	a.publisher.Conflicts(d.Conflicts)
}

// publishAgain is publish after something but the objects has changed.
func (a *Agent) publishAgain() {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.mu.Lock()
	objects := a.objects
	a.mu.Unlock()
	a.publish(a.program.Desired(), objects)
}

// noteConflicts remembers since when each conflict is there.
func (a *Agent) noteConflicts(list []flavour.Conflict) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	since := make(map[flavour.Conflict]time.Time, len(list))
	for _, c := range list {
		if was, ok := a.since[c]; ok {
			since[c] = was
		} else {
			since[c] = now
		}
	}
	a.since = since
}

// conflicts is the list as status shows it.
func (a *Agent) conflicts(list []flavour.Conflict) []api.Conflict {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]api.Conflict, 0, len(list))
	for _, c := range list {
		out = append(out, api.Conflict{
			Object: api.Object{Kind: c.Object.Kind, Namespace: c.Object.Namespace, Name: c.Object.Name},
			Key:    c.Key, Reason: string(cmp.Or(c.Reason, flavour.NotFollowed)), What: c.What, Since: a.since[c],
		})
	}
	return out
}
