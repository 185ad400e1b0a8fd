package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"culvert/ctrl/source"
)

// running is a Source that runs, and what it said.
type running struct {
	t    *testing.T
	src  *Source
	end  func()       // and wait
	cost atomic.Int64 // of applying a set

	mu      sync.Mutex
	sets    []*source.Objects
	at      []time.Time
	reports [][]string
}

func start(t *testing.T, api *fakeAPI, mode, dir string) *running {
	return startWith(t, api, SourceOptions{Node: "n1", Mode: mode, StateDir: dir})
}

func startWith(t *testing.T, api *fakeAPI, opt SourceOptions) *running {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &running{t: t, src: NewSource(api.client(), opt)}
	done, stopped := make(chan error, 1), errors.New("told to end")
	go func() {
		done <- r.src.Run(ctx, func(o *source.Objects) {
			r.mu.Lock()
			r.sets, r.at = append(r.sets, o), append(r.at, time.Now())
			r.mu.Unlock()
			time.Sleep(time.Duration(r.cost.Load()))
		}, func(errs []error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reports = append(r.reports, texts(errs))
		})
	}()
	r.end = sync.OnceFunc(func() {
		cancel(stopped)
		if err := <-done; !errors.Is(err, stopped) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.end)
	synctest.Wait()
	return r
}

// count is the number of sets.
func (r *running) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sets)
}

func (r *running) last() *source.Objects {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sets) == 0 {
		r.t.Fatal("nothing was applied")
	}
	return r.sets[len(r.sets)-1]
}

// wrong is the last report.
func (r *running) wrong() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.reports) == 0 {
		return nil
	}
	return r.reports[len(r.reports)-1]
}

func (r *running) wantWrong(parts ...string) {
	r.t.Helper()
	got := r.wrong()
	if len(parts) == 0 && len(got) == 0 {
		return
	}
	if len(parts) == 0 || len(got) != 1 {
		r.t.Fatalf("wrong: %q, want one line with %q", got, parts)
	}
	for _, p := range parts {
		if !strings.Contains(got[0], p) {
			r.t.Errorf("wrong: %q\nwithout %q", got[0], p)
		}
	}
}

func node(name, cidr, addr string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: "u-" + "x", CreationTimestamp: metav1.Unix(1700000000, 0),
			Labels:        map[string]string{"zone": "a"},
			Annotations:   map[string]string{"culvert.dev/vtep-mac": "66:00:00:00:00:01", "volumes.kubernetes.io/x": "true"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
		},
		Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}, ProviderID: "x"},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}},
			Images:     []corev1.ContainerImage{{Names: []string{"a"}}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady}, {Type: corev1.NodeNetworkUnavailable, Status: "False", Reason: "CulvertIsUp", LastTransitionTime: metav1.Now()}},
		},
	}
}

func beat(n *corev1.Node) *corev1.Node {
	for i := range n.Status.Conditions {
		n.Status.Conditions[i].LastHeartbeatTime = metav1.Now()
	}
	return n
}

func threeNodes(t *testing.T) *fakeAPI {
	api := newFakeAPI(t)
	for i := 1; i <= 3; i++ {
		api.put(nodesPath, node(fmt.Sprintf("n%d", i), fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("192.0.2.%d", i)))
	}
	return api
}

// in runs a test in JSON and protobuf, with lists and with streams.
func in(t *testing.T, f func(t *testing.T, set func(*fakeAPI) *fakeAPI)) {
	for _, proto := range []bool{false, true} {
		for _, streams := range []bool{false, true} {
			t.Run(fmt.Sprintf("proto=%v streams=%v", proto, streams), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f(t, func(a *fakeAPI) *fakeAPI { a.proto, a.streams = proto, streams; return a })
				})
			})
		}
	}
}

func TestNodesComeChangeAndGo(t *testing.T) {
	in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
		api := set(threeNodes(t))
		r := start(t, api, "native", "")
		first := r.last()
		if r.count() != 1 || len(first.Nodes) != 3 {
			t.Fatalf("%d sets, the last of %d nodes", r.count(), len(first.Nodes))
		}
		n := first.Nodes[0]
		if n.Name != "n1" || n.Labels["zone"] != "a" || len(n.Annotations) != 1 || n.ManagedFields != nil || n.Status.Images != nil ||
			len(n.Status.Conditions) != 1 || n.Status.Conditions[0] != (corev1.NodeCondition{Type: "NetworkUnavailable", Status: "False", Reason: "CulvertIsUp"}) || n.CreationTimestamp.Unix() != 1700000000 || n.Spec.PodCIDRs[0] != "10.244.1.0/24" {
			t.Errorf("kept of a node: %+v", n)
		}
		if first.Nodes[1].Labels != nil || first.Nodes[1].Status.Conditions != nil {
			t.Error("another node's labels are kept")
		}
		time.Sleep(time.Minute)
		api.put(nodesPath, beat(node("n1", "10.244.1.0/24", "192.0.2.1")))
		api.put(nodesPath, beat(node("n2", "10.244.2.0/24", "192.0.2.2")))
		time.Sleep(time.Minute)
		if r.count() != 1 {
			t.Error("a heartbeat wakes")
		}
		api.put(nodesPath, node("n2", "10.244.2.0/24", "192.0.2.22"))
		synctest.Wait()
		changed := r.last()
		if r.count() != 2 || changed.Nodes[1].Status.Addresses[0].Address != "192.0.2.22" {
			t.Errorf("a changed node: %+v", changed.Nodes[1])
		}
		if changed.Nodes[0] != first.Nodes[0] || first.Nodes[1].Status.Addresses[0].Address != "192.0.2.2" {
			t.Error("what did not change is another pointer, or an old set changed")
		}
		api.remove(nodesPath, "/n1")
		api.put(nodesPath, node("n0", "10.244.9.0/24", "192.0.2.9"))
		time.Sleep(time.Second)
		names := ""
		for _, n := range r.last().Nodes {
			names += n.Name + " "
		}
		if names != "n0 n2 n3 " {
			t.Errorf("nodes: %s", names)
		}
		if r.reports != nil {
			t.Errorf("reported: %q", r.reports)
		}
	})
}

// A watch that breaks is resumed where it was; what came in between is not missed.
func TestBrokenWatchIsResumed(t *testing.T) {
	in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
		api := set(threeNodes(t))
		r := start(t, api, "native", "")
		api.took()
		for range 5 {
			api.cut()
			api.put(nodesPath, node("n2", "10.244.2.0/24", fmt.Sprintf("192.0.2.%d", 20+r.count())))
			time.Sleep(3 * time.Second)
		}
		if r.count() != 6 || r.reports != nil {
			t.Errorf("%d sets, reports %q", r.count(), r.reports)
		}
		for _, q := range api.took() {
			if !strings.HasPrefix(q, "watch nodes 10") && !strings.HasPrefix(q, "watch services 10") {
				t.Errorf("asked: %s", q)
			}
		}
		if k := r.src.Kinds()[0]; k.Resumes < 5 || k.Lists != 1 || k.Objects != 3 || k.Version != "108" {
			t.Errorf("%+v", k)
		}
	})
}

// An API server that is away is asked ever less, is said to be away, and is not asked for
// lists when it comes back.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := threeNodes(t)
		r := start(t, api, "native", "")
		api.took()
		api.stop(errRefused)
		time.Sleep(3 * time.Second)
		r.wantWrong()
		time.Sleep(3 * time.Second)
		r.wantWrong("API server https://api.test:6443 cannot be reached", "connection refused", "check that it runs", "stays in force")
		time.Sleep(time.Hour)
		if asked := api.took(); len(asked) < 80 || len(asked) > 300 {
			t.Errorf("asked %d times in an hour", len(asked))
		} else if i := slices.IndexFunc(asked, func(q string) bool { return !strings.HasPrefix(q, "watch ") }); i >= 0 {
			t.Errorf("asked: %s", asked[i])
		}
		if len(r.reports) != 1 || r.count() != 1 {
			t.Errorf("%d reports, %d sets", len(r.reports), r.count())
		}
		api.put(nodesPath, node("n4", "10.244.4.0/24", "192.0.2.4"))
		api.stop(nil)
		time.Sleep(time.Minute)
		r.wantWrong()
		if len(r.last().Nodes) != 4 || r.src.Kinds()[0].Lists != 1 {
			t.Errorf("%d nodes after %d lists", len(r.last().Nodes), r.src.Kinds()[0].Lists)
		}
	})
}

// What is read of a kind shows the others that the API server is back.
func TestBackTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := calicoCluster(t, "crd.projectcalico.org", "v1")
		r := start(t, api, "auto", "")
		time.Sleep(time.Minute)
		api.stop(errRefused)
		time.Sleep(time.Hour)
		api.stop(nil)
		api.took()
		for len(api.took()) == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(shortest + resumeWithin + shortest + 10*time.Millisecond)
		for _, k := range r.src.Kinds() {
			if k.Error != "" {
				t.Errorf("%s: %s", k.Kind, k.Error)
			}
		}
		r.wantWrong()
	})
}

// One that answers nothing at all is away, too.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := threeNodes(t)
		api.hang = true
		r := start(t, api, "native", "")
		time.Sleep(6 * time.Second)
		r.wantWrong("cannot be reached: no answer")
	})
}

// What the API server has forgotten is read anew, and only what changed is new.
func TestGoneIsListedAgain(t *testing.T) {
	in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
		api := set(threeNodes(t))
		r := start(t, api, "native", "")
		first := r.last()
		api.stop(errRefused)
		api.remove(nodesPath, "/n3")
		api.put(nodesPath, node("n2", "10.244.2.0/24", "192.0.2.22"))
		api.forget()
		api.stop(nil)
		time.Sleep(10 * time.Second)
		last := r.last()
		if len(last.Nodes) != 2 || last.Nodes[0] != first.Nodes[0] || last.Nodes[1].Status.Addresses[0].Address != "192.0.2.22" {
			t.Errorf("after 410: %+v", last.Nodes)
		}
		if k := r.src.Kinds()[0]; k.Lists != 2 {
			t.Errorf("%+v", k)
		}
		r.wantWrong()
	})
}

func TestDenied(t *testing.T) {
	gr := schema.GroupResource{Resource: "nodes"}
	for _, c := range []struct {
		err  *apierrors.StatusError
		want []string
	}{
		{apierrors.NewUnauthorized("no such token"), []string{"does not know culvertd: 401 no such token", "check the token"}},
		{apierrors.NewForbidden(gr, "", errors.New("nobody may")), []string{"list and watch nodes: 403", "nobody may", `{apiGroups: [""], resources: ["nodes"], verbs: [list, watch]}`, "deploy/rbac.yaml"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := threeNodes(t)
			api.refusing(nodesPath, c.err)
			r := start(t, api, "native", "")
			time.Sleep(time.Millisecond) // at once
			r.wantWrong(c.want...)
			api.refusing(nodesPath, nil)
			time.Sleep(time.Minute)
			r.wantWrong()
			if len(r.last().Nodes) != 3 {
				t.Error("no nodes")
			}
		})
	}
}

// An API server that is there and in trouble is not said to be away.
func TestServerError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := threeNodes(t)
		api.refusing(nodesPath, apierrors.NewInternalError(errors.New("etcd is slow")))
		r := start(t, api, "native", "")
		time.Sleep(10 * time.Second)
		r.wantWrong("does not answer about nodes: 500", "etcd is slow")
	})
}

// A bad object is not taken, and stands in nobody's way.
func TestBadObject(t *testing.T) {
	in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
		api := set(threeNodes(t))
		api.put(nodesPath, node("n4", "nonsense", "192.0.2.4"))
		r := start(t, api, "native", "")
		r.wantWrong("Node n4: spec.podCIDRs[0]: \"nonsense\" is no CIDR", "it is left out")
		good := r.last().Nodes[1]
		if len(r.last().Nodes) != 3 {
			t.Errorf("%d nodes", len(r.last().Nodes))
		}
		api.remove(nodesPath, "/n4")
		time.Sleep(time.Second)
		r.wantWrong()
		api.put(nodesPath, node("n2", "10.244.2.1/24", "192.0.2.2"))
		api.put(nodesPath, node("n3", "10.244.3.0/24", "192.0.2.33"))
		time.Sleep(time.Second)
		r.wantWrong("Node n2: spec.podCIDRs[0]: 10.244.2.1/24 has bits set", "its last good version stays in force")
		if l := r.last(); l.Nodes[1] != good || l.Nodes[2].Status.Addresses[0].Address != "192.0.2.33" {
			t.Errorf("with a bad one: %+v", l.Nodes)
		}
		api.forget() // so it is after another list
		api.cut()
		time.Sleep(10 * time.Second)
		if l := r.last(); l.Nodes[1] != good {
			t.Error("a list drops the last good version")
		}
		api.put(nodesPath, node("n2", "10.244.2.0/24", "192.0.2.22"))
		time.Sleep(time.Second)
		r.wantWrong()
		if l := r.last(); l.Nodes[1].Status.Addresses[0].Address != "192.0.2.22" {
			t.Error("a mended one is not taken")
		}
	})
}

func crd(name string) any {
	return map[string]any{"metadata": map[string]any{"name": name}}
}

func custom(name string, spec map[string]any) map[string]any {
	return map[string]any{"metadata": map[string]any{"name": name, "uid": "u-" + name, "annotations": map[string]any{"projectcalico.org/metadata": "{}"}}, "spec": spec}
}

var calicoResources = []string{"ippools", "blockaffinities", "ipamblocks", "felixconfigurations"}

func calicoCluster(t *testing.T, group, version string) *fakeAPI {
	api := threeNodes(t)
	base := "/apis/" + group + "/" + version + "/"
	for _, r := range calicoResources {
		api.put(crdsPath, crd(r+"."+group))
	}
	api.put(crdsPath, crd("widgets.example.org"))
	deleted := any("false")
	if version == "v3" {
		deleted = false
	}
	pool := custom("p", map[string]any{"cidr": "10.244.0.0/16", "vxlanMode": "Always", "someday": 1})
	pool["apiVersion"] = group + "/" + version
	api.put(base+"ippools", pool)
	api.put(base+"blockaffinities", custom("n2-10-244-2-0-26", map[string]any{"cidr": "10.244.2.0/26", "node": "n2", "state": "confirmed", "deleted": deleted}))
	api.put(base+"ipamblocks", block("n2", "n2"))
	api.put(base+"felixconfigurations", custom("default", map[string]any{"vxlanVNI": 4097, "bpfLogLevel": ""}))
	return api
}

// block is one of a node, whose second address a node has.
func block(owner, second string) any {
	return custom("10-244-2-0-26", map[string]any{
		"cidr": "10.244.2.0/26", "affinity": "host:" + owner, "allocations": []any{0, 1, nil, nil}, "unallocated": []any{2, 3},
		"attributes": []any{
			map[string]any{"handle_id": "h", "secondary": map[string]any{"node": owner, "pod": "a", "namespace": "b", "timestamp": "now"}},
			map[string]any{"secondary": map[string]any{"node": second, "pod": "c", "namespace": "d"}},
		},
		"sequenceNumber": 1, "strictAffinity": false,
	})
}

func TestCalico(t *testing.T) {
	for group, version := range map[string]string{"crd.projectcalico.org": "v1", "projectcalico.org": "v3"} {
		t.Run(version, func(t *testing.T) {
			in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
				api := set(calicoCluster(t, group, version))
				r := start(t, api, "calico", "")
				time.Sleep(10 * time.Second)
				o := r.last()
				if r.count() != 1 || len(o.Nodes) != 3 || len(o.IPPools) != 1 || len(o.BlockAffinities) != 1 || len(o.IPAMBlocks) != 1 || len(o.FelixConfigurations) != 1 {
					t.Fatalf("%d sets; %+v; wrong: %q", r.count(), o, r.wrong())
				}
				a := o.BlockAffinities[0]
				if o.IPPools[0].Spec.VXLANMode != "Always" || a.Spec.Deleted != "false" || a.Spec.Node != "n2" || *o.FelixConfigurations[0].Spec.VXLANVNI != 4097 || o.IPPools[0].Annotations != nil {
					t.Errorf("%+v %+v", o.IPPools[0], a)
				}
				if p := o.IPPools[0]; p.APIVersion != group+"/"+version || p.Kind != "IPPool" || p.UID != "u-p" {
					t.Errorf("an Event could not name it: %+v", p)
				}
				if b := o.IPAMBlocks[0].Spec; len(b.Allocations) != 0 || len(b.Attributes) != 0 || *b.Affinity != "host:n2" {
					t.Errorf("another node's block: %+v", b)
				}
				base := "/apis/" + group + "/" + version + "/"
				api.put(base+"ipamblocks", block("n2", "n2"))
				time.Sleep(time.Second)
				if r.count() != 1 {
					t.Error("another node's pod wakes")
				}
				api.put(base+"ipamblocks", block("n2", "n3"))
				time.Sleep(time.Second)
				if b := r.last().IPAMBlocks[0].Spec; len(b.Allocations) != 2 || b.Allocations[0] != nil || b.Attributes[*b.Allocations[1]].Secondary["node"] != "n3" {
					t.Errorf("a borrowed address: %+v", b)
				}
				api.put(base+"ipamblocks", block("n1", "n3"))
				time.Sleep(time.Second)
				if b := r.last().IPAMBlocks[0].Spec; len(b.Allocations) != 4 || !reflect.DeepEqual(b.Attributes[0].Secondary, map[string]string{"node": "n1", "pod": "a", "namespace": "b"}) || *b.Attributes[0].HandleID != "h" {
					t.Errorf("an own block: %+v", b)
				}
			})
		})
	}
}

// Kinds are read when their definitions come, and gone when they go.
func TestDefinitionsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := threeNodes(t)
		r := start(t, api, "auto", "")
		time.Sleep(time.Second)
		if len(r.last().Nodes) != 3 || len(r.wrong()) != 0 {
			t.Fatalf("without Calico: %+v, %q", r.last(), r.wrong())
		}
		for _, res := range calicoResources {
			api.put(crdsPath, crd(res+".crd.projectcalico.org"))
		}
		time.Sleep(time.Second)
		api.put(poolsPath, custom("p", map[string]any{"cidr": "10.244.0.0/16"}))
		time.Sleep(time.Second)
		if len(r.last().IPPools) != 1 {
			t.Fatalf("with a pool: %+v", r.last())
		}
		api.put(crdsPath, crd("ippools.projectcalico.org")) // beside the classic ones it says nothing
		time.Sleep(time.Second)
		if len(r.last().IPPools) != 1 {
			t.Fatal("the native layout is read beside the classic one")
		}
		api.remove(crdsPath, "/ippools.crd.projectcalico.org")
		time.Sleep(time.Second)
		if len(r.last().IPPools) != 0 || len(r.last().Nodes) != 3 {
			t.Errorf("without pools: %+v", r.last())
		}
		api.took()
		time.Sleep(time.Hour)
		for _, q := range api.took() {
			if strings.Contains(q, "ippools") {
				t.Errorf("still asked: %s", q)
			}
		}
	})
}

func TestCalicoIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, threeNodes(t), "calico", "")
		time.Sleep(time.Second)
		r.wantWrong("no CustomResourceDefinition ippools.crd.projectcalico.org", "nor that of projectcalico.org", "mode is calico")
	})
	synctest.Test(t, func(t *testing.T) {
		api := calicoCluster(t, "crd.projectcalico.org", "v1")
		api.refusing(poolsPath, apierrors.NewNotFound(schema.GroupResource{}, ""))
		r := start(t, api, "calico", "")
		time.Sleep(10 * time.Second)
		r.wantWrong("has no "+poolsPath+": 404", "ippools.crd.projectcalico.org")
	})
}

// What is asked for is what the mode reads.
func TestModesRead(t *testing.T) {
	for mode, want := range map[string]string{"native": "nodes services", "flannel": "configmaps nodes services", "calico": "customresourcedefinitions nodes services", "auto": "configmaps customresourcedefinitions nodes services"} {
		synctest.Test(t, func(t *testing.T) {
			api := threeNodes(t)
			api.put(mapsPath, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-flannel-cfg", Namespace: "kube-flannel"}, Data: map[string]string{"net-conf.json": "{}"}})
			api.put(mapsPath, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "kube-flannel"}})
			r := start(t, api, mode, "")
			var got []string
			for _, q := range api.took() {
				got = append(got, strings.Fields(q)[1])
			}
			slices.Sort(got)
			if have := strings.Join(slices.Compact(got), " "); have != want {
				t.Errorf("%s reads %s, want %s", mode, have, want)
			}
			if maps := r.last().ConfigMaps; strings.Contains(want, "configmaps") != (len(maps) == 1) {
				t.Errorf("%s: %d ConfigMaps", mode, len(maps))
			}
		})
	}
}

// While changes keep coming they are applied together, and applying takes a third of the time.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := threeNodes(t)
		r := start(t, api, "native", "")
		r.cost.Store(int64(100 * time.Millisecond))
		time.Sleep(time.Minute)
		begin := time.Now()
		for i := range 3000 { // for three seconds
			api.put(nodesPath, node("n2", "10.244.2.0/24", fmt.Sprintf("192.0.%d.%d", 2+i/200, 1+i%200)))
			time.Sleep(time.Millisecond)
		}
		if sets := r.count() - 1; sets < 9 || sets > 12 {
			t.Errorf("%d sets in three seconds, want one in 300 ms", sets)
		}
		r.mu.Lock()
		wait := r.at[1].Sub(begin)
		r.mu.Unlock()
		if wait > time.Millisecond {
			t.Errorf("the first change waits %v", wait)
		}
		time.Sleep(time.Second)
		if a := r.last().Nodes[1].Status.Addresses[0].Address; a != "192.0.16.200" {
			t.Errorf("the last change is lost: %s", a)
		}
	})
}

// Where pods wait, what was kept is used at once, without a word of complaint until the API
// server ought to have answered; then its own objects are.
func TestWarmStart(t *testing.T) {
	in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
		dir := t.TempDir()
		warm := SourceOptions{Node: "n1", Mode: "native", StateDir: dir, Warm: func() bool { return true }}
		api := set(threeNodes(t))
		r := startWith(t, api, warm)
		time.Sleep(time.Second)
		before := r.last()
		r.end() // writes
		api.put(nodesPath, node("n4", "10.244.4.0/24", "192.0.2.4"))
		api.stop(errRefused)
		r = startWith(t, api, warm)
		time.Sleep(time.Millisecond)
		if r.count() != 1 || !reflect.DeepEqual(before, r.last()) {
			t.Errorf("at once there are %d sets, the last of them %+v", r.count(), r.last())
		}
		if w := r.wrong(); strings.Contains(strings.Join(w, ""), "the objects are those of") {
			t.Errorf("at once it says %q", w)
		}
		time.Sleep(coldWait)
		r.wantWrong("the objects are those of 20")
		api.stop(nil)
		time.Sleep(2 * time.Minute)
		r.wantWrong()
		if o := r.last(); r.count() != 2 || len(o.Nodes) != 4 || o.Nodes[0] != before.Nodes[0] && !reflect.DeepEqual(o.Nodes[0], before.Nodes[0]) {
			t.Errorf("from the API server: %d sets, %+v", r.count(), o)
		}
		r.end()
		r = startWith(t, api, warm) // nothing has changed meanwhile
		time.Sleep(time.Nanosecond)
		kept := r.last()
		time.Sleep(10 * time.Second)
		r.wantWrong()
		if o := r.last(); r.count() > 2 || !slices.Equal(o.Nodes, kept.Nodes) {
			t.Errorf("%d sets of what has not changed", r.count())
		}
	})
}

func TestColdStart(t *testing.T) {
	in(t, func(t *testing.T, set func(*fakeAPI) *fakeAPI) {
		dir := t.TempDir()
		api := set(calicoCluster(t, "crd.projectcalico.org", "v1"))
		r := start(t, api, "auto", dir)
		time.Sleep(time.Second)
		before := r.last()
		r.end() // writes
		api.stop(errRefused)
		r = start(t, api, "auto", dir)
		time.Sleep(coldWait - time.Millisecond)
		if r.count() != 0 {
			t.Error("the API server is not waited for")
		}
		time.Sleep(2 * time.Millisecond)
		kept := r.last()
		if !reflect.DeepEqual(before, kept) {
			t.Errorf("kept:\n%+v\nwas:\n%+v", kept.Nodes[0], before.Nodes[0])
		}
		r.wantWrong("the objects are those of 20", "objects.json.gz", "until API server https://api.test:6443 has sent its own")
		time.Sleep(10 * time.Second)
		if w := r.wrong(); len(w) != 2 || !strings.Contains(w[0], "cannot be reached") {
			t.Errorf("wrong: %q", w)
		}
		api.put(nodesPath, node("n4", "10.244.4.0/24", "192.0.2.4"))
		api.stop(nil)
		time.Sleep(2 * time.Minute)
		r.wantWrong()
		if o := r.last(); len(o.Nodes) != 4 || o.Nodes[0] != kept.Nodes[0] || o.IPPools[0] != kept.IPPools[0] {
			t.Errorf("from the API server: %+v", o)
		}
		r.end()
		// What has gone in the meantime goes with the lists.
		api.remove(crdsPath, "/ipamblocks.crd.projectcalico.org")
		r = start(t, api, "auto", dir)
		time.Sleep(5 * time.Second)
		if o := r.last(); len(o.Nodes) != 4 || len(o.IPAMBlocks) != 0 || r.count() != 1 {
			t.Errorf("%d sets, %+v", r.count(), o)
		}
	})
}

// The file is written some seconds after a change, and not more often than it says.
func TestKeepsRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "objects.json.gz")
		api := threeNodes(t)
		r := start(t, api, "native", dir)
		time.Sleep(keepAfter - time.Millisecond)
		if _, err := os.Stat(path); err == nil {
			t.Error("written at once")
		}
		writes, last := 0, time.Time{}
		for i := range 3000 { // for five minutes
			api.put(nodesPath, node("n2", "10.244.2.0/24", fmt.Sprintf("192.0.%d.%d", 2+i/200, 1+i%200)))
			time.Sleep(100 * time.Millisecond)
			if st := headerOf(t, path); st.After(last) {
				writes, last = writes+1, st
			}
		}
		if writes < 8 || writes > 11 {
			t.Errorf("%d writes in five minutes", writes)
		}
		r.end()
		s := newState(api.client(), SourceOptions{Node: "n1", StateDir: dir, Log: r.src.opt.Log}, r.src.state.kinds)
		stores := []*store{newStore(nodes(), "n1")}
		s.load(stores)
		if a := stores[0].sorted[1].(*corev1.Node).Status.Addresses[0].Address; a != "192.0.16.200" {
			t.Errorf("at the end %s is kept: %s", a, s.problem)
		}
		if names, _ := filepath.Glob(filepath.Join(dir, ".*")); len(names) != 0 {
			t.Errorf("left over: %q", names)
		}
	})
}

// headerOf is when a file was written; zero without one.
func headerOf(t *testing.T, path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

func TestBrokenAndForeignState(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string, text []byte)
		node  string
		want  string
	}{
		"garbage":  {func(t *testing.T, path string, _ []byte) { write(t, path, []byte("this is no compressed text")) }, "n1", "gzip: invalid header"},
		"cut off":  {func(t *testing.T, path string, text []byte) { write(t, path, text[:len(text)-9]) }, "n1", "unexpected EOF"},
		"flipped":  {func(t *testing.T, path string, text []byte) { text[len(text)-6] ^= 1; write(t, path, text) }, "n1", "checksum"},
		"a node's": {func(*testing.T, string, []byte) {}, "n9", `of node "n1" and this is node "n9"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				api := threeNodes(t)
				start(t, api, "native", dir).end()
				path := filepath.Join(dir, "objects.json.gz")
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				c.spoil(t, path, text)
				api.stop(errRefused)
				r := start(t, api, "native", dir)
				r.end()
				again := &running{t: t}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				src := NewSource(api.client(), SourceOptions{Node: c.node, Mode: "native", StateDir: dir})
				_ = src.Run(ctx, func(*source.Objects) { t.Error("it is used") }, func(errs []error) { again.reports = append(again.reports, texts(errs)) })
				again.wantWrong("objects.json.gz: the objects that were kept are not used", c.want)
			})
		})
	}
}

func write(t *testing.T, path string, text []byte) {
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A watch that is always cut off at once is no connection.
func TestCutOffAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := threeNodes(t)
		r := start(t, api, "native", "")
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				api.cut()
				time.Sleep(100 * time.Millisecond)
			}
		}()
		time.Sleep(30 * time.Second)
		r.wantWrong("ends every connection at once")
		stop()
		time.Sleep(2 * time.Minute)
		r.wantWrong()
	})
}

// FuzzStreams: any bytes give objects with names or an error, and no more than there is.
func FuzzStreams(f *testing.F) {
	list := inProto(&corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: metav1.ListMeta{ResourceVersion: "7"},
		Items: []corev1.Node{*node("n1", "10.244.1.0/24", "192.0.2.1"), *node("n2", "x", "y")}})
	f.Add(list)
	f.Add([]byte(`{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"},"spec":{"podCIDRs":5}},{"metadata":{"name":"b"}}]}`))
	f.Add([]byte(`{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"8"}}}`))
	f.Add(append([]byte{0, 0, 0, 12}, "\x0a\x05ADDED\x12\x03\x0a\x01x"...))
	k := nodes()
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newStore(k, "n1")
		var all []change
		if _, err := readList(strings.NewReader(string(b)), &k, func(o metav1.Object, err error) { all = append(all, s.take(o, err)) }); err == nil {
			s.replace(all)
		}
		if len(s.sorted) > len(b) {
			t.Errorf("%d objects of %d bytes", len(s.sorted), len(b))
		}
		_ = readEvents(strings.NewReader(string(b)), func(e event) error {
			o, err := k.decode(e.read, e.proto)
			s.put(s.take(o, err))
			return nil
		})
	})
}

// Half a list is none, wherever it is cut. Behind the list its envelope has two empty
// fields of two bytes each (runtime.Unknown), which say nothing.
func TestHalfAList(t *testing.T) {
	k := nodes()
	list := manyNodes(2)
	whole := len(list) - 4
	for n := 0; n < whole; n++ {
		if n%7 != 0 && n < whole-100 {
			continue
		}
		version, err := readList(strings.NewReader(string(list[:n])), &k, func(metav1.Object, error) {})
		if err == nil && version != "" {
			t.Fatalf("%d of %d bytes pass for a list", n, len(list))
		}
	}
}

func TestStreams(t *testing.T) {
	k := nodes()
	for _, text := range []string{"", "{", "[]", `{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{}}`, "k8s\x00", "k8s\x00\x12\xff", "k8s\x00\x12\x04\x12\x7f\x00\x00"} {
		version, err := readList(strings.NewReader(text), &k, func(metav1.Object, error) {})
		if err == nil && version != "" {
			t.Errorf("%q is a list", text)
		}
	}
	for _, text := range []string{"", "{", "\x00\x00\x00\x09abc", "\x00\xff\xff\xff"} {
		if err := readEvents(strings.NewReader(text), func(event) error { return nil }); err == nil {
			t.Errorf("%q ends well", text)
		} else if text != "" && errors.Is(err, io.EOF) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
