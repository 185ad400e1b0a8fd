//go:build kube

package kube

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
	"culvert/internal/kubetest"
)

// account is whom deploy/rbac.yaml gives permissions.
const account = "system:serviceaccount:kube-system:culvert"

// realCluster is a real API server with RBAC on.
type realCluster struct {
	t      *testing.T
	server *kubetest.Server
	admin  *Client
	// culvert is a client of account, whose requests are noted in asked.
	culvert, unnoted *Client
	asked            *noted
}

// TestKubePublisher is what a node writes, under the permissions of deploy/rbac.yaml.
func TestKubePublisher(t *testing.T) {
	server := kubetest.Start(t, kubetest.User{Name: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}})
	for _, test := range []struct {
		name string
		run  func(*testing.T, *realCluster)
	}{{"annotations", testAnnotations}, {"events", testEvents}, {"away", testAway}, {"source", testSource}, {"permissions", testPermissions}} {
		t.Run(test.name, func(t *testing.T) {
			c := &realCluster{t: t, server: server, asked: &noted{}}
			c.admin, c.unnoted = c.client(server.Kubeconfig(t, kubetest.Admin)), c.client(server.Kubeconfig(t, account))
			c.culvert = c.noting(server.Kubeconfig(t, account))
			for _, e := range c.events() { // of another test
				if err := c.admin.core.Events(e.Namespace).Delete(t.Context(), e.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			c.apply("")
			c.untilMay("create events", true)
			test.run(t, c)
		})
	}
}

func (c *realCluster) client(kubeconfig string) *Client {
	c.t.Helper()
	client, err := NewClient(kubeconfig, "culvertd/test")
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// events are all that culvertd wrote.
func (c *realCluster) events() []corev1.Event {
	c.t.Helper()
	list, err := c.admin.core.Events("").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return e.ReportingController != controller })
}

// noting is a client whose requests are noted.
func (c *realCluster) noting(kubeconfig string) *Client {
	c.t.Helper()
	config, err := restConfig(kubeconfig)
	if err != nil {
		c.t.Fatal(err)
	}
	config.AcceptContentTypes, config.ContentType = "application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &notes{next, c.asked} })
	client := &Client{config: config}
	if client.core, err = typed.NewForConfig(config); err != nil {
		c.t.Fatal(err)
	}
	return client
}

// notes notes the requests that go through it.
type notes struct {
	http.RoundTripper
	to *noted
}

func (n *notes) RoundTrip(r *http.Request) (*http.Response, error) {
	n.to.add(requestOf(r.Method, r.URL))
	return n.RoundTripper.RoundTrip(r)
}

// apply puts deploy/rbac.yaml in force, without one verb of a resource: "patch nodes/status".
func (c *realCluster) apply(without string) {
	c.t.Helper()
	text, err := os.ReadFile(rbacFile)
	if err != nil {
		c.t.Fatal(err)
	}
	verb, resource, less := strings.Cut(without, " ")
	before, after, found := strings.Cut(string(text), "resources: ["+resource+"]\n    verbs: [")
	if less {
		if !found {
			c.t.Fatalf("%s has no rule for %s", rbacFile, resource)
		}
		verbs, rest, _ := strings.Cut(after, "]")
		kept := slices.DeleteFunc(strings.Split(verbs, ", "), func(v string) bool { return v == verb })
		if len(kept) == 0 {
			kept = []string{"none"}
		}
		text = []byte(before + "resources: [" + resource + "]\n    verbs: [" + strings.Join(kept, ", ") + "]" + rest)
	}
	c.server.Apply(c.t, string(text))
}

// untilMay waits until the API server has seen a new role.
func (c *realCluster) untilMay(what string, want bool) {
	c.t.Helper()
	verb, resource, _ := strings.Cut(what, " ")
	resource, sub, _ := strings.Cut(resource, "/")
	ask := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: resource, Subresource: sub},
	}}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var got authorizationv1.SelfSubjectAccessReview
		err := c.unnoted.core.RESTClient().Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").Body(ask).Do(c.t.Context()).Into(&got)
		if err != nil {
			c.t.Fatal(err)
		}
		if got.Status.Allowed == want {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: allowed is %v", what, got.Status.Allowed)
		}
	}
}

// node makes a Node anew.
func (c *realCluster) node(name string, annotations map[string]string) *corev1.Node {
	c.t.Helper()
	err := c.admin.core.Nodes().Delete(c.t.Context(), name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
	n, err := c.admin.core.Nodes().Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}, metav1.CreateOptions{FieldManager: "kubelet"})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// until waits for a Node to be as it should.
func (c *realCluster) until(name, what string, ok func(*corev1.Node) bool) *corev1.Node {
	c.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		n, err := c.admin.core.Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		if ok(n) {
			return n
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: annotations %v, conditions %v", what, n.Annotations, n.Status.Conditions)
		}
	}
}

// run runs a publisher until the test ends.
func run(t *testing.T, p *Publisher) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func testAnnotations(t *testing.T, c *realCluster) {
	c.node("w1", map[string]string{fl + "public-ip-overwrite": "192.168.0.41"})
	p := NewPublisher(c.culvert, "w1", quiet())
	first := maps.Clone(flannelWish)
	first[fl+"public-ipv6"] = "2001:db8::41"
	p.Publish(first, isUp)
	run(t, p)
	says := func(want map[string]string) func(*corev1.Node) bool {
		return func(n *corev1.Node) bool { return len(overwritten(n, want)) == 0 && saysReady(n, isUp) }
	}
	n := c.until("w1", "published", says(first))
	if got := ownersOf(n, "f:metadata", "f:annotations", "f:"+fl+"backend-data"); !slices.Equal(got, []string{fieldManager}) {
		t.Errorf("backend-data is of %v", got)
	}
	// What flanneld of the node's past reads back: the exact bytes.
	if got := n.Annotations[fl+"backend-data"]; got != `{"VNI":1,"VtepMAC":"66:c0:2a:ba:db:54"}` {
		t.Errorf("backend-data is %s", got)
	}
	p.Publish(flannelWish, isUp) // the network has IPv4 alone by now
	n = c.until("w1", "removed", func(n *corev1.Node) bool { _, there := n.Annotations[fl+"public-ipv6"]; return !there })
	if len(overwritten(n, flannelWish)) > 0 || n.Annotations[fl+"public-ip-overwrite"] != "192.168.0.41" {
		t.Errorf("annotations are %v", n.Annotations)
	}
	// flanneld runs as well.
	patch := `{"metadata":{"annotations":{"` + fl + `backend-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}"}}}`
	if n, err := c.admin.core.Nodes().Patch(t.Context(), "w1", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "flanneld"}, "status"); err != nil {
		t.Fatal(err)
	} else {
		p.Seen(nodesOf(n))
	}
	c.until("w1", "written again", says(flannelWish))
	if got := p.Problems(); len(got) != 1 || !strings.Contains(got[0], "Node w1: flanneld overwrote annotation flannel.alpha.coreos.com/backend-data") {
		t.Errorf("told %q", got)
	}
	// The node goes and comes.
	n = c.node("w1", nil)
	p.Seen(nodesOf(n))
	c.until("w1", "published on the new Node", says(flannelWish))
}

func testEvents(t *testing.T, c *realCluster) {
	objects := nodesOf(c.node("w1", nil), c.node("w2", nil))
	conflicts := []flavour.Conflict{
		conflictOn("w2", "10.244.1.0/24 overlaps 10.244.1.0/24 of Node w1, so it is left out; give each node its own"),
		{Object: source.Ref{Kind: "ConfigMap", Namespace: "kube-system", Name: "kube-flannel-cfg"}, Key: `data["net-conf.json"]`, What: "is no JSON"},
		{Object: source.Ref{Kind: "IPPool", Name: "default-ipv4-ippool"}, Key: "spec.cidr", Reason: flavour.OverlappingPool, What: "overlaps"},
	}
	for _, name := range []string{"w1", "w2"} {
		p := NewPublisher(c.culvert, name, quiet())
		p.Seen(objects)
		p.Conflicts(conflicts)
		run(t, p)
	}
	name := eventOf(&conflicts[0], referenceTo(objects, conflicts[0].Object), "").Name
	for end := time.Now().Add(30 * time.Second); len(c.events()) < 3 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(time.Second) // the other node's turn
	if all := c.events(); len(all) != 3 {
		t.Fatalf("%d Events: %+v", len(all), all)
	}
	e, err := c.admin.core.Events("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e.InvolvedObject.UID != objects.Nodes[1].UID || e.Count != 1 || e.Reason != "DuplicatePodCIDR" || e.Type != "Warning" || e.ReportingInstance == "" {
		t.Errorf("%+v", e)
	}
	// As events.k8s.io has it.
	u, err := c.admin.dynamic.Resource(schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}).Namespace("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := unstructured.NestedString(u.Object, "regarding", "name"); got != "w2" || u.Object["reportingController"] != controller || u.Object["note"] != conflicts[0].Key+": "+conflicts[0].What {
		t.Errorf("%v", u.Object)
	}
	// Half an hour later: of two nodes that refresh it, one does.
	old := map[string]any{"lastTimestamp": metav1.NewTime(time.Now().Add(-31 * time.Minute))}
	body, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	stale, err := c.admin.core.Events("default").Patch(t.Context(), name, types.StrategicMergePatchType, body, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &eventWriter{client: c.culvert.core, node: "w1"}
	want := eventOf(&conflicts[0], referenceTo(objects, conflicts[0].Object), "w1")
	if last, err := w.tell(t.Context(), want); err != nil || time.Since(last) > time.Minute {
		t.Errorf("refreshed at %v: %v", last, err)
	}
	if _, err := w.refresh(t.Context(), stale); err != nil { // the other one read it before
		t.Error(err)
	}
	got, err := c.admin.core.Events("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || got.Count != 2 || time.Since(got.LastTimestamp.Time) > time.Minute || got.Message != e.Message {
		t.Errorf("refreshed: %+v, %v", got, err)
	}
}

// testAway: what could not be written is, soon after the API server is back, and only the newest wish.
func testAway(t *testing.T, c *realCluster) {
	proxy := c.server.Proxy(t, nil)
	c.node("w1", nil)
	failed := make(chan struct{}, 100)
	p := NewPublisher(c.client(proxy.Kubeconfig(t, account)), "w1", quiet())
	p.Failed = func() { failed <- struct{}{} }
	proxy.Cut()
	p.Publish(map[string]string{ca + "IPv4Address": "10.0.0.41/24", ca + "IPv4VXLANTunnelAddr": "10.244.1.1"}, nil)
	run(t, p)
	<-failed
	if got := p.Problems(); len(got) != 1 || !strings.HasPrefix(got[0], "get of Node w1: ") {
		t.Errorf("told %q", got)
	}
	newest := map[string]string{ca + "IPv4Address": "10.0.0.42/24"}
	p.Publish(newest, isUp)
	proxy.Mend()
	n := c.until("w1", "published", func(n *corev1.Node) bool { return len(overwritten(n, newest)) == 0 && saysReady(n, isUp) })
	if _, old := n.Annotations[ca+"IPv4VXLANTunnelAddr"]; old {
		t.Errorf("annotations are %v", n.Annotations)
	}
	for end := time.Now().Add(10 * time.Second); len(p.Problems()) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("still told: %q", got)
	}
}

// testSource: the source finds its permissions in the same file, and asks for nothing else.
func testSource(t *testing.T, c *realCluster) {
	c.server.InstallCalico(t, kubetest.CalicoV1)
	c.server.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-flannel-cfg, namespace: kube-flannel}, data: {net-conf.json: "{}"}}`)
	c.server.Apply(t, `{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.244.0.0/16}}`)
	c.node("w1", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	src := NewSource(c.culvert, SourceOptions{Node: "w1", Mode: "auto", StateDir: t.TempDir()})
	var objects *source.Objects
	_ = src.Run(ctx, func(o *source.Objects) {
		if objects = o; len(o.IPPools) == 1 && len(o.ConfigMaps) == 1 && len(o.Nodes) > 0 {
			cancel()
		}
	}, func(errs []error) {
		for _, err := range errs {
			t.Error(err)
		}
	})
	if objects == nil || len(objects.IPPools) != 1 || len(objects.ConfigMaps) != 1 || objects.IPPools[0].UID == "" {
		t.Fatalf("read %+v", objects)
	}
	asked, said := map[string]bool{}, map[string]bool{}
	rules := grants(t)
	for _, r := range c.asked.requests() {
		asked[r.Resource+"."+r.Group] = true
		if !granted(rules, r) {
			t.Errorf("%+v is not granted", r)
		}
	}
	for _, u := range uses {
		if group := u.groups[0]; u.by == "Source" { // Calico's are in one of the two
			said[u.resource+"."+group] = true
		}
	}
	if !maps.Equal(asked, said) {
		t.Errorf("the source asks for %v, and the table says %v", asked, said)
	}
}

// testPermissions: every request is one that deploy/rbac.yaml grants, a permission
// that is missing is named, and others are not there.
func testPermissions(t *testing.T, c *realCluster) {
	for _, missing := range []string{"get nodes", "patch nodes/status", "get events", "create events"} {
		c.apply(missing)
		c.untilMay(missing, false)
		p := NewPublisher(c.culvert, "w1", quiet())
		p.Publish(map[string]string{ca + "IPv4Address": "10.0.0.41/24"}, isUp)
		p.Conflicts([]flavour.Conflict{conflictOn("w1", "lacks "+missing)})
		c.node("w1", nil)
		run(t, p)
		verb, resource, _ := strings.Cut(missing, " ")
		want := "the permission to " + missing + " is missing"
		told := func() string { return strings.Join(p.Problems(), "\n") }
		for end := time.Now().Add(30 * time.Second); !strings.Contains(told(), want) && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		if got := told(); !strings.Contains(got, want) || !strings.Contains(got, `User "system:serviceaccount:kube-system:culvert" cannot `+verb+` resource "`+resource+`"`) {
			t.Errorf("without %s: told %q", missing, got)
		}
	}
	rules := grants(t)
	for _, r := range c.asked.requests() {
		if !granted(rules, r) {
			t.Errorf("%+v is not granted", r)
		}
	}
	c.apply("")
	c.untilMay("create events", true)
	forbidden := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	allowed := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	core, ctx := c.culvert.core, t.Context()
	flannel := metav1.ListOptions{FieldSelector: "metadata.name=kube-flannel-cfg"}
	_, err := core.ConfigMaps("").List(ctx, flannel)
	allowed("list of flannel's ConfigMap", err)
	watch, err := core.ConfigMaps("").Watch(ctx, flannel)
	if allowed("watch of flannel's ConfigMap", err); err == nil {
		watch.Stop()
	}
	_, err = core.ConfigMaps("").List(ctx, metav1.ListOptions{})
	forbidden("list of all ConfigMaps", err)
	_, err = core.Secrets("kube-system").List(ctx, metav1.ListOptions{})
	forbidden("list of Secrets", err)
	_, err = core.Pods("").List(ctx, metav1.ListOptions{})
	forbidden("list of Pods", err)
	_, err = core.Nodes().Patch(ctx, "w1", types.StrategicMergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
	forbidden("patch of a Node's spec", err)
	forbidden("delete of a Node", core.Nodes().Delete(ctx, "w1", metav1.DeleteOptions{}))
}
