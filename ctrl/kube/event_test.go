package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	clienttest "k8s.io/client-go/testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

func conflictOn(node, what string) flavour.Conflict {
	return flavour.Conflict{Object: source.Ref{Kind: "Node", Name: node}, Key: "spec.podCIDRs[0]", Reason: flavour.DuplicatePodCIDR, What: what}
}

func TestEventOf(t *testing.T) {
	objects := nodesOf(newNode("w1", nil), newNode("w2", nil))
	objects.Nodes[1].UID = "uid-2"
	v3 := &source.IPPool{}
	v3.Name, v3.APIVersion, v3.UID = "p", "projectcalico.org/v3", "uid-p"
	objects.IPPools = []*source.IPPool{v3}
	c := conflictOn("w2", "10.244.1.0/24 overlaps 10.244.1.0/24 of Node w1, so it is left out; give each node its own")
	event := func(c flavour.Conflict, node string) *corev1.Event {
		e := eventOf(&c, referenceTo(objects, c.Object), node)
		if what := validation.IsDNS1123Subdomain(e.Name); len(what) > 0 {
			t.Errorf("name %q: %v", e.Name, what)
		}
		if what := validation.IsQualifiedName(e.ReportingController); len(what) > 0 {
			t.Errorf("controller %q: %v", e.ReportingController, what)
		}
		return e
	}
	e := event(c, "a")
	if e.Namespace != "default" || e.Type != "Warning" || e.Reason != "DuplicatePodCIDR" || e.Message != c.Key+": "+c.What ||
		e.ReportingInstance != "a" || e.ReportingController != "culvert.dev/culvertd" ||
		e.InvolvedObject != (corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "w2", UID: "uid-2"}) {
		t.Errorf("%+v", e)
	}
	if other := event(c, "b"); other.Name != e.Name {
		t.Errorf("two nodes make %s and %s of it", e.Name, other.Name)
	}
	another := c
	another.What += " "
	if event(another, "a").Name == e.Name {
		t.Error("another conflict, the same name")
	}
	objects.Nodes[1].UID = "uid-3"
	if event(c, "a").Name == e.Name {
		t.Error("another Node of that name, the same Event")
	}
	long := flavour.Conflict{Object: source.Ref{Kind: "ConfigMap", Namespace: "kube-flannel", Name: strings.Repeat("a.", 126) + "a"}, Key: "data", What: strings.Repeat("ä", 1000)}
	if e := event(long, strings.Repeat("n", 253)); e.Namespace != "kube-flannel" || len(e.Message) > 1024 || !strings.HasSuffix(e.Message, "ä") ||
		e.InvolvedObject.APIVersion != "v1" || e.Reason != "NotFollowed" || len(e.ReportingInstance) > 128 {
		t.Errorf("%+v", e)
	}
	for kind, want := range map[string]corev1.ObjectReference{
		"IPPool":    {APIVersion: "projectcalico.org/v3", Kind: "IPPool", Name: "p", UID: "uid-p"},
		"IPAMBlock": {APIVersion: "crd.projectcalico.org/v1", Kind: "IPAMBlock", Name: "p"},
	} {
		if got := event(flavour.Conflict{Object: source.Ref{Kind: kind, Name: "p"}}, "a").InvolvedObject; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// crowd runs the publishers of nodes n0, n1, ... that see the same objects.
func crowd(t *testing.T, c *cluster, nodes int, conflicts []flavour.Conflict, then func(all []*Publisher)) {
	objects := &source.Objects{}
	for i := range nodes {
		objects.Nodes = append(objects.Nodes, newNode(fmt.Sprintf("n%04d", i), nil))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var all []*Publisher
	for _, n := range objects.Nodes {
		p := newPublisher(c.core, n.Name, quiet())
		p.Seen(objects)
		p.Conflicts(conflicts)
		all = append(all, p)
		wg.Go(func() { _ = p.Run(ctx) })
	}
	then(all)
	cancel()
	wg.Wait()
}

// TestOneEventInTheCluster: of many nodes that see a conflict one writes it, and one
// refreshes it before the API server forgets it.
func TestOneEventInTheCluster(t *testing.T) {
	for _, nodes := range []int{1, 2, 100, 5000} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				conflict := conflictOn("elsewhere", "is wrong")
				crowd(t, c, nodes, []flavour.Conflict{conflict}, func(all []*Publisher) {
					time.Sleep(20 * time.Second)
					if got := len(c.events("default")); got != 1 {
						t.Fatalf("%d Events", got)
					}
					last := c.events("default")[0].LastTimestamp.Time
					for end := time.Now().Add(6 * time.Hour); time.Now().Before(end); time.Sleep(time.Minute) {
						e := c.events("default")[0]
						if d := e.LastTimestamp.Sub(last); d != 0 && d < refreshAfter-time.Second || time.Since(e.LastTimestamp.Time) > 55*time.Minute {
							t.Errorf("refreshed after %v, seen %v later", d, time.Since(e.LastTimestamp.Time))
						}
						last = e.LastTimestamp.Time
					}
					e, asked := c.events("default")[0], c.asked()
					t.Logf("%d nodes, 6 hours: count %d, asked %v", nodes, e.Count, asked)
					if len(c.events("default")) != 1 || e.Count < 7 || e.Count > 13 || asked["create"] > 2 || asked["patch"] > 2*int(e.Count) {
						t.Errorf("count %d, asked %v", e.Count, asked)
					}
					if most := nodes * 14; asked["get"] > most {
						t.Errorf("%d looks, at most %d", asked["get"], most)
					}
					for _, p := range all { // it is over
						p.Conflicts(nil)
					}
					time.Sleep(3 * time.Hour)
					if asked := c.asked(); len(asked) > 0 {
						t.Errorf("afterwards asked %v", asked)
					}
				})
			})
		})
	}
}

// TestANodeTellsOfItself at once, however many others there are.
func TestANodeTellsOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		objects := &source.Objects{}
		for i := range 5000 {
			objects.Nodes = append(objects.Nodes, newNode(fmt.Sprintf("n%04d", i), nil))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1100*time.Millisecond)
		defer cancel()
		p := newPublisher(c.core, "n0042", quiet())
		p.Seen(objects)
		p.Conflicts([]flavour.Conflict{conflictOn("n0042", "is wrong"), conflictOn("n0043", "is wrong"), conflictOn("n0044", "is wrong")})
		_ = p.Run(ctx)
		if all := c.events("default"); len(all) != 1 || all[0].InvolvedObject.Name != "n0042" {
			t.Errorf("Events: %v", all)
		}
	})
}

// TestTooManyConflicts: all nodes keep the same few, and those about themselves.
func TestTooManyConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conflicts []flavour.Conflict
		for i := range 1000 {
			conflicts = append(conflicts, conflictOn(fmt.Sprintf("gone-%d", i), "is wrong"))
		}
		conflicts = append(conflicts, conflictOn("n0003", "is wrong"))
		c := newCluster(t)
		crowd(t, c, 20, conflicts, func([]*Publisher) {
			time.Sleep(20 * time.Second) // ten at once for each node
			if got := c.asked(); got["create"] > maxEvents+20 || got["get"] > 20*(eventsAtOnce+11) {
				t.Errorf("asked %v", got)
			}
			time.Sleep(10 * time.Minute)
			all := c.events("default")
			own := slices.ContainsFunc(all, func(e corev1.Event) bool { return e.InvolvedObject.Name == "n0003" })
			if len(all) > maxEvents+1 || len(all) < maxEvents || !own {
				t.Errorf("%d Events, one's own %v", len(all), own)
			}
		})
	})
}

// TestOneEventThatFails does not keep the others back, and is told.
func TestOneEventThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.fake.PrependReactor("create", "events", func(a clienttest.Action) (bool, runtime.Object, error) {
			e := a.(clienttest.CreateAction).GetObject().(*corev1.Event)
			if e.Namespace != "closing" {
				return false, nil, nil
			}
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, e.Name, errors.New("no"))
		})
		var conflicts []flavour.Conflict
		for i := range 9 {
			conflicts = append(conflicts, conflictOn(fmt.Sprint("x", i), "is wrong"))
		}
		bad := flavour.Conflict{Object: source.Ref{Kind: "ConfigMap", Namespace: "closing", Name: "cm"}, Key: "data", What: "is wrong"}
		failed := 0
		ctx, cancel := context.WithCancel(t.Context())
		p := newPublisher(c.core, "w1", quiet())
		p.Failed = func() { failed++ }
		p.Seen(nodesOf(newNode("w1", nil)))
		p.Conflicts(append(conflicts, bad))
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		cancel()
		<-done
		if n := len(c.events("default")); n != 9 || failed < 2 || failed > 20 {
			t.Errorf("%d Events, %d failures", n, failed)
		}
		if got := strings.Join(p.Problems(), ""); !strings.Contains(got, "create of Event closing/cm.") || !strings.Contains(got, "the permission to create events is missing") {
			t.Errorf("told %q", got)
		}
	})
}

// TestTwoRefreshAtOnce: the second one's patch is refused, and counts as done.
func TestTwoRefreshAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conflict := conflictOn("x", "is wrong")
		e := eventOf(&conflict, referenceTo(nil, conflict.Object), "other")
		e.ResourceVersion, e.Count = "41", 3
		e.LastTimestamp = metav1.NewTime(time.Now().Add(-31 * time.Minute))
		c := newCluster(t, e)
		c.fake.PrependReactor("patch", "events", func(a clienttest.Action) (bool, runtime.Object, error) {
			if !strings.Contains(string(a.(clienttest.PatchAction).GetPatch()), `"resourceVersion":"41"`) {
				t.Errorf("patch %s", a.(clienttest.PatchAction).GetPatch())
			}
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "events"}, e.Name, errors.New("changed"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		p := newPublisher(c.core, "w1", quiet())
		p.Conflicts([]flavour.Conflict{conflict})
		_ = p.Run(ctx)
		if got := c.asked(); got["patch"] != 1 || len(p.Problems()) > 0 {
			t.Errorf("asked %v, told %v", got, p.Problems())
		}
	})
}
