package kube

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	fakecore "k8s.io/client-go/kubernetes/typed/core/v1/fake"
	clienttest "k8s.io/client-go/testing"

	"culvert/ctrl/source"
)

// cluster is an API server in memory that notes what it is asked.
type cluster struct {
	t       *testing.T
	fake    *clienttest.Fake
	core    *fakecore.FakeCoreV1
	tracker clienttest.ObjectTracker

	failures atomic.Int32 // that a publisher told of

	mu   sync.Mutex
	away error // what every request gets
}

func newCluster(t *testing.T, objects ...runtime.Object) *cluster {
	c := &cluster{t: t, fake: &clienttest.Fake{}, tracker: clienttest.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
	for _, o := range objects {
		if err := c.tracker.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	c.fake.AddReactor("*", "*", func(clienttest.Action) (bool, runtime.Object, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.away != nil, nil, c.away
	})
	c.fake.AddReactor("*", "*", clienttest.ObjectReaction(c.tracker))
	c.core = &fakecore.FakeCoreV1{Fake: c.fake}
	return c
}

func (c *cluster) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = err
}

// asked counts the requests of a verb, and forgets all.
func (c *cluster) asked() map[string]int {
	n := map[string]int{}
	for _, a := range c.fake.Actions() {
		n[a.GetVerb()]++
	}
	c.fake.ClearActions()
	return n
}

// patches are the bodies of the patches, in order, and forgets all.
func (c *cluster) patches() (bodies []string) {
	for _, a := range c.fake.Actions() {
		if p, ok := a.(clienttest.PatchAction); ok {
			bodies = append(bodies, string(p.GetPatch()))
		}
	}
	c.fake.ClearActions()
	return bodies
}

func (c *cluster) node(name string) *corev1.Node {
	c.t.Helper()
	o, err := c.tracker.Get(corev1.SchemeGroupVersion.WithResource("nodes"), "", name)
	if err != nil {
		c.t.Fatal(err)
	}
	return o.(*corev1.Node)
}

func (c *cluster) put(n *corev1.Node) {
	c.t.Helper()
	if err := c.tracker.Update(corev1.SchemeGroupVersion.WithResource("nodes"), n, ""); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) events(namespace string) []corev1.Event {
	c.t.Helper()
	o, err := c.tracker.List(corev1.SchemeGroupVersion.WithResource("events"), corev1.SchemeGroupVersion.WithKind("Event"), namespace)
	if err != nil {
		c.t.Fatal(err)
	}
	return o.(*corev1.EventList).Items
}

func newNode(name string, annotations map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid-of-" + "node", Annotations: annotations}}
}

// managed notes that a manager wrote a Node's fields, as FieldsV1.
func managed(n *corev1.Node, manager, fields string) *corev1.Node {
	n.ManagedFields = append(n.ManagedFields, metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)}, Subresource: "status",
	})
	return n
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// logged is a logger and what it wrote.
func logged() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

func nodesOf(nodes ...*corev1.Node) *source.Objects { return &source.Objects{Nodes: nodes} }
