package kube

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttest "k8s.io/client-go/testing"
)

const fl, ca = "flannel.alpha.coreos.com/", "projectcalico.org/"

var (
	flannelWish = map[string]string{
		fl + "kube-subnet-manager": "true", fl + "backend-type": "vxlan", fl + "public-ip": "192.168.0.41",
		fl + "backend-data": `{"VNI":1,"VtepMAC":"66:c0:2a:ba:db:54"}`,
	}
	isUp = &NetworkReady{Reason: "CulvertIsUp", Message: "Culvert carries the traffic of this node's pods"}
)

// published runs a publisher in the virtual time of a bubble.
func published(t *testing.T, c *cluster, then func(p *Publisher)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := newPublisher(c.core, "w1", quiet())
	p.Failed = func() { c.failures.Add(1) }
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	then(p)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestPublishInFlannelsForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newNode("w1", map[string]string{"volumes.kubernetes.io/x": "true", fl + "public-ip": "192.168.0.41"}))
		published(t, c, func(p *Publisher) {
			time.Sleep(time.Hour)
			if n := len(c.fake.Actions()); n > 0 {
				t.Errorf("%d requests before there was a wish", n)
			}
			p.Publish(flannelWish, nil)
			synctest.Wait()
			// What strategicpatch makes of it for flanneld, less what is there.
			want := `{"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"66:c0:2a:ba:db:54\"}",` +
				`"flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/kube-subnet-manager":"true"}}}`
			last := c.fake.Actions()[len(c.fake.Actions())-1]
			if last.GetSubresource() != "status" || last.GetResource().Resource != "nodes" {
				t.Errorf("the last request was %v", last)
			}
			if got := c.patches(); len(got) != 1 || got[0] != want {
				t.Fatalf("patches\n%s\nwant\n%s", strings.Join(got, "\n"), want)
			}
			n := c.node("w1")
			if len(overwritten(n, flannelWish)) > 0 || n.Annotations["volumes.kubernetes.io/x"] != "true" {
				t.Errorf("annotations are %v", n.Annotations)
			}
			if conditionOf(n, corev1.NodeNetworkUnavailable) != nil {
				t.Error("it is said to be ready")
			}
			// The Node says so already, and the source yields it: nothing to do.
			p.Publish(maps.Clone(flannelWish), nil)
			p.Seen(nodesOf(newNode("a", nil), n))
			synctest.Wait()
			if got := c.asked(); len(got) > 0 {
				t.Errorf("asked %v for nothing", got)
			}
			time.Sleep(3 * lookEvery)
			if got := c.asked(); got["get"] < 3 || got["get"] > 6 || got["patch"] > 0 {
				t.Errorf("asked %v in half an hour", got)
			}
		})
		if len(overwritten(c.node("w1"), flannelWish)) > 0 {
			t.Error("annotations are gone with the publisher")
		}
	})
}

func TestNetworkReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := metav1.NewTime(time.Now().Add(-24 * time.Hour).Truncate(time.Second))
		node := newNode("w1", nil)
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
			{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: "CalicoIsDown", LastTransitionTime: began}}
		c := newCluster(t, node)
		published(t, c, func(p *Publisher) {
			p.Publish(nil, isUp)
			synctest.Wait()
			n := c.node("w1")
			got := conditionOf(n, corev1.NodeNetworkUnavailable)
			if len(n.Status.Conditions) != 2 || got.Status != corev1.ConditionFalse || got.Reason != "CulvertIsUp" || got.Message != isUp.Message || !got.LastTransitionTime.After(began.Time) {
				t.Errorf("conditions are %+v", n.Status.Conditions)
			}
			c.asked()
			p.Publish(nil, nil) // for a moment no uplink is there
			time.Sleep(time.Hour)
			if got := c.asked(); got["patch"] > 0 {
				t.Error("it was taken back")
			}
			// Somebody says otherwise, which only a look shows: sources keep no conditions.
			p.Publish(nil, isUp)
			synctest.Wait()
			moved := metav1.NewTime(time.Now().Truncate(time.Second))
			n = c.node("w1")
			*conditionOf(n, corev1.NodeNetworkUnavailable) = corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "CalicoIsUp", LastTransitionTime: moved}
			c.put(n)
			p.Seen(nodesOf(newNode("w1", nil)))
			time.Sleep(lookEvery + time.Second)
			if got := conditionOf(c.node("w1"), corev1.NodeNetworkUnavailable); got.Reason != "CulvertIsUp" || !got.LastTransitionTime.Equal(&moved) {
				t.Errorf("the condition is %+v", got)
			}
		})
	})
}

func TestUnwantedAnnotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newNode("w1", map[string]string{
			fl + "backend-v6-data": "ours", fl + "public-ipv6": "flanneld's since", fl + "public-ip-overwrite": "an administrator's", ca + "IPv4Address": "ours, of another mode",
		})
		managed(node, fieldManager, `{"f:metadata":{"f:annotations":{"f:`+fl+`backend-v6-data":{},"f:`+ca+`IPv4Address":{}}}}`)
		managed(node, "flanneld", `{"f:metadata":{"f:annotations":{".":{},"f:`+fl+`public-ipv6":{}}}}`)
		c := newCluster(t, node)
		published(t, c, func(p *Publisher) {
			p.Publish(map[string]string{}, nil) // objects that say nothing of this node
			synctest.Wait()
			if got := c.asked(); got["patch"] > 0 {
				t.Error("annotations were removed although nothing is known")
			}
			p.Publish(flannelWish, nil)
			time.Sleep(2 * time.Second)
			got := slices.Sorted(maps.Keys(c.node("w1").Annotations))
			want := slices.Sorted(maps.Keys(flannelWish))
			want = append(want, fl+"public-ipv6", fl+"public-ip-overwrite", ca+"IPv4Address")
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("annotations are %v, want %v", got, want)
			}
		})
	})
}

func TestTheNewestWishCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newNode("w1", nil))
		published(t, c, func(p *Publisher) {
			for i := range 1000 { // in ten seconds
				p.Publish(map[string]string{ca + "IPv4Address": "10.0.0." + strconv.Itoa(i) + "/24"}, nil)
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(2 * time.Second)
			if got := c.node("w1").Annotations[ca+"IPv4Address"]; got != "10.0.0.999/24" {
				t.Errorf("published is %s", got)
			}
			if got := c.asked(); got["patch"] > 12 {
				t.Errorf("asked %v", got)
			}
		})
	})
}

// TestSomebodyOverwrites: it is written again, ever more rarely, and told with the
// rival's name, until all is quiet.
func TestSomebodyOverwrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newNode("w1", nil))
		published(t, c, func(p *Publisher) {
			overwrite := func(who string) {
				n := c.node("w1")
				n.Annotations[fl+"backend-data"] = `{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}`
				n.ManagedFields = nil
				managed(n, who, `{"f:metadata":{"f:annotations":{"f:`+fl+`backend-data":{}}}}`)
				managed(n, fieldManager, `{"f:metadata":{"f:annotations":{"f:`+fl+`public-ip":{}}}}`)
				c.put(n)
				p.Seen(nodesOf(n))
			}
			p.Publish(flannelWish, isUp)
			time.Sleep(2 * time.Second)
			overwrite("kubectl-edit")
			time.Sleep(2 * time.Second)
			if len(overwritten(c.node("w1"), flannelWish)) > 0 || len(p.Problems()) > 0 {
				t.Errorf("overwritten once: %v, %v", c.node("w1").Annotations, p.Problems())
			}
			c.asked()
			overwrite("flanneld")
			time.Sleep(2 * time.Second)
			if got := p.Problems(); len(got) != 1 || !strings.Contains(got[0], "flanneld") {
				t.Errorf("told of the first time: %v", got)
			}
			for range 3600 { // an hour of it, every second
				overwrite("flanneld")
				time.Sleep(time.Second)
			}
			if got := c.asked(); got["patch"] < 10 || got["patch"] > 40 || got["get"] > 80 {
				t.Errorf("asked %v in an hour", got)
			}
			if got := strings.Join(p.Problems(), "\n"); !strings.Contains(got, "Node w1: flanneld overwrote annotation flannel.alpha.coreos.com/backend-data (") || !strings.Contains(got, "stop flanneld") {
				t.Errorf("told: %q", got)
			}
			time.Sleep(rivalPause + time.Second)
			if len(overwritten(c.node("w1"), flannelWish)) > 0 {
				t.Error("the last word was the rival's")
			}
			time.Sleep(rivalCalm + lookEvery)
			if got := p.Problems(); len(got) > 0 {
				t.Errorf("still told: %v", got)
			}
			// flannel's MAC is the annotated one, whoever wrote it: the wish follows.
			overwrite("flanneld")
			follow := maps.Clone(flannelWish)
			follow[fl+"backend-data"] = c.node("w1").Annotations[fl+"backend-data"]
			c.asked()
			p.Publish(follow, isUp)
			time.Sleep(2 * time.Second)
			if got, told := c.asked(), p.Problems(); got["patch"] > 0 || len(told) != 1 {
				t.Errorf("the wish followed: asked %v, told %v", got, told)
			}
		})
	})
}

// TestAnOldNodeFromTheSource: for a moment after a write the source yields the Node of before,
// with every change of another one.
func TestAnOldNodeFromTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newNode("w1", nil)
		c := newCluster(t, old.DeepCopy())
		published(t, c, func(p *Publisher) {
			p.Publish(flannelWish, nil)
			for range 3000 {
				p.Seen(nodesOf(old))
				time.Sleep(time.Millisecond)
			}
			if got := c.asked(); got["patch"] != 1 || got["get"] > 5 {
				t.Errorf("asked %v", got)
			}
			if got := p.Problems(); len(got) > 0 {
				t.Errorf("told %v", got)
			}
		})
	})
}

func TestTheAPIServerIsAwayForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newNode("w1", nil))
		c.fail(errors.New("connection refused"))
		published(t, c, func(p *Publisher) {
			p.Publish(flannelWish, isUp)
			time.Sleep(time.Hour)
			if got := c.asked(); got["get"] < 30 || got["get"] > 75 || int(c.failures.Load()) != got["get"] {
				t.Errorf("asked %v in an hour, %d failures", got, c.failures.Load())
			}
			if got := p.Problems(); !slices.Equal(got, []string{"get of Node w1: connection refused"}) {
				t.Errorf("told %q", got)
			}
			c.fail(nil)
			time.Sleep(2 * time.Minute)
			if len(overwritten(c.node("w1"), flannelWish)) > 0 || len(p.Problems()) > 0 {
				t.Errorf("after it is back: %v, %v", c.node("w1").Annotations, p.Problems())
			}
		})
	})
}

func TestRefused(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{apierrors.NewForbidden(nodes, "w1", errors.New(`User "u" cannot patch resource "nodes/status" in API group "" at the cluster scope`)),
			`patch of Node w1: the permission to patch nodes/status is missing: nodes "w1" is forbidden: User "u" cannot patch resource "nodes/status" in API group "" at the cluster scope; grant it as deploy/rbac.yaml does`},
		{apierrors.NewUnauthorized("Unauthorized"), `patch of Node w1: the API server does not know who asks: Unauthorized; look at the service account's token or the kubeconfig`},
		{apierrors.NewNotFound(nodes, "w1"), `patch of Node w1: nodes "w1" not found`},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl := newCluster(t, newNode("w1", nil))
			cl.fake.PrependReactor("patch", "nodes", func(clienttest.Action) (bool, runtime.Object, error) { return true, nil, c.err })
			log, wrote := logged()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			p := newPublisher(cl.core, "w1", log)
			p.Publish(flannelWish, nil)
			_ = p.Run(ctx)
			if got := p.Problems(); !slices.Equal(got, []string{c.want}) {
				t.Errorf("told %q, want %q", got, c.want)
			}
			if n := strings.Count(wrote.String(), "not written"); n != 1 {
				t.Errorf("logged %d times:\n%s", n, wrote)
			}
		})
	}
}
