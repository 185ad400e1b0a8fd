//go:build kube

package kube_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/calicoipam/ipamtest"
	"culvert/ctrl/ipam"
	"culvert/ctrl/kube"
	"culvert/internal/kubetest"
)

// ipamUser is culvertd with no other right than what the IPAM needs.
const ipamUser = "system:serviceaccount:kube-system:culvert-ipam"

const ipamRole = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: culvert-ipam}
rules:
- {apiGroups: [""], resources: [nodes, namespaces, pods], verbs: [get]}
- apiGroups: [crd.projectcalico.org, projectcalico.org]
  resources: [ippools, ipreservations]
  verbs: [list]
- apiGroups: [crd.projectcalico.org, projectcalico.org]
  resources: [ipamconfigs, ipamconfigurations]
  verbs: [get]
- apiGroups: [crd.projectcalico.org, projectcalico.org]
  resources: [ipamblocks, ipamhandles, blockaffinities]
  verbs: [get, list, create, update, delete]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: culvert-ipam}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: culvert-ipam}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:serviceaccount:kube-system:culvert-ipam"}
`

// ipamNode is one node of a race: its keeper and its pods.
type ipamNode struct {
	*calicoipam.Keeper
	n     int
	local *ipam.Allocator
	race  *ipamRace
	pods  []calicoipam.Pod // under the race's lock
}

type ipamRace struct {
	t     *testing.T
	store *kube.IPAM // the judge's
	mu    sync.Mutex
	has   map[netip.Addr]string
	nodes []*ipamNode
}

func nodeOf(n int) string { return fmt.Sprintf("worker-%d.example.com", n) }

// newRace makes a server with a small pool, and nodes that reach it by kubeconfig.
func newRace(t *testing.T, server *kubetest.Server, group string, nodes int, kubeconfig string) *ipamRace {
	t.Helper()
	server.Apply(t, ipamRole)
	server.Apply(t, fmt.Sprintf("{apiVersion: %s, kind: IPPool, metadata: {name: small}, spec: {cidr: 10.99.0.0/27, blockSize: 29, vxlanMode: Always}}", group))
	for n := range nodes {
		server.Apply(t, fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s}}", nodeOf(n)))
	}
	r := &ipamRace{t: t, has: map[netip.Addr]string{}, store: ipamStore(t, server.Kubeconfig(t, kubetest.Admin))}
	for n := range nodes {
		local, err := ipam.New()
		if err != nil {
			t.Fatal(err)
		}
		w := &ipamNode{n: n, local: local, race: r}
		w.Keeper, err = calicoipam.NewKeeper(calicoipam.KeeperConfig{
			Config:   calicoipam.Config{Node: nodeOf(n), Store: ipamStore(t, kubeconfig)},
			StateDir: t.TempDir(), Local: local, Patience: time.Minute, Pods: w.list,
		})
		if err != nil {
			t.Fatal(err)
		}
		r.nodes = append(r.nodes, w)
	}
	return r
}

func ipamStore(t *testing.T, kubeconfig string) *kube.IPAM {
	t.Helper()
	c, err := kube.NewClient(kubeconfig, "culvert-test")
	if err != nil {
		t.Fatal(err)
	}
	return kube.NewIPAM(c)
}

func (w *ipamNode) list() []calicoipam.Pod {
	w.race.mu.Lock()
	defer w.race.mu.Unlock()
	return slices.Clone(w.pods)
}

// add is an ADD; nobody else may have the address.
func (w *ipamNode) add(name string) (addr netip.Addr, err error) {
	p := calicoipam.Pod{Owner: fmt.Sprintf("n%d-%s@eth0", w.n, name), Network: "k8s-pod-network", ContainerID: fmt.Sprintf("N%d-%s", w.n, name), Namespace: "default", Name: name}
	w.race.mu.Lock()
	w.pods = append(w.pods, p)
	w.race.mu.Unlock()
	addrs, err := w.Allocate(w.race.t.Context(), p, nil)
	w.race.mu.Lock()
	defer w.race.mu.Unlock()
	at := slices.IndexFunc(w.pods, func(q calicoipam.Pod) bool { return q.Owner == p.Owner })
	if err != nil {
		w.pods = slices.Delete(w.pods, at, at+1)
		return addr, err
	}
	if other := w.race.has[addrs[0]]; other != "" {
		w.race.t.Errorf("%s of %s is given to %s", addrs[0], other, p.Owner)
	}
	w.race.has[addrs[0]], w.pods[at].Addrs = p.Owner, addrs
	return addrs[0], nil
}

// del is a DEL.
func (w *ipamNode) del(name string) {
	w.race.mu.Lock()
	at := slices.IndexFunc(w.pods, func(q calicoipam.Pod) bool { return q.Name == name })
	p := w.pods[at]
	delete(w.race.has, p.Addrs[0])
	w.race.mu.Unlock()
	if err := w.Release(p); err != nil {
		w.race.t.Error(err)
	}
	w.race.mu.Lock()
	w.pods = slices.Delete(w.pods, at, at+1)
	w.race.mu.Unlock()
	w.local.Release(p.Owner)
}

// settle has every node write what it owes, and then checks everything.
func (r *ipamRace) settle() {
	r.t.Helper()
	for _, w := range r.nodes {
		w.Look()
		if err := w.Pass(r.t.Context()); err != nil {
			r.t.Errorf("node %d: %v", w.n, err)
		}
	}
	all := map[string][]*unstructured.Unstructured{}
	for _, kind := range []string{calicoipam.KindBlock, calicoipam.KindHandle, calicoipam.KindAffinity} {
		objs, err := r.store.List(r.t.Context(), kind, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		all[kind] = objs
	}
	for _, problem := range ipamtest.Check(all[calicoipam.KindBlock], all[calicoipam.KindHandle], all[calicoipam.KindAffinity]) {
		r.t.Error(problem)
	}
	if got, want := len(all[calicoipam.KindHandle]), len(r.has)+len(r.nodes); got != want {
		r.t.Errorf("%d handles, want %d: one of each pod, and one of each node's tunnel", got, want)
	}
}

// Three nodes race for the blocks and addresses of a pool that is too small for them,
// at a real API server, in both layouts, with no more rights than they need.
func TestKubeCalicoIPAM(t *testing.T) {
	for _, group := range []string{kubetest.CalicoV1, kubetest.CalicoV3} {
		t.Run(strings.ReplaceAll(group, "/", "-"), func(t *testing.T) {
			server := kubetest.Start(t, kubetest.User{Name: ipamUser})
			if _, err := ipamStore(t, server.Kubeconfig(t, kubetest.Admin)).List(t.Context(), calicoipam.KindPool, nil); !errors.Is(err, calicoipam.ErrRefused) || !strings.Contains(err.Error(), "CustomResourceDefinitions") {
				t.Errorf("without CustomResourceDefinitions: %v", err)
			}
			server.InstallCalico(t, group)
			r := newRace(t, server, group, 3, server.Kubeconfig(t, ipamUser))
			var wg sync.WaitGroup
			for _, w := range r.nodes {
				wg.Go(func() { w.live() })
			}
			wg.Wait()
			if len(r.has) < 15 {
				t.Errorf("only %d pods got an address", len(r.has))
			}
			r.settle()
			inLayout(t, server, group)
			for _, w := range r.nodes {
				for _, p := range w.list() {
					w.del(p.Name)
				}
			}
			r.settle()
		})
	}
}

// live is what a node does in a race.
func (w *ipamNode) live() {
	if err := w.Pass(w.race.t.Context()); err != nil {
		w.race.t.Errorf("node %d: %v", w.n, err)
	}
	for i := range 12 {
		name := fmt.Sprint("p", i)
		if _, err := w.add(name); err != nil {
			if !errors.Is(err, ipam.ErrExhausted) {
				w.race.t.Errorf("node %d: %v", w.n, err)
			}
			continue
		}
		if i%3 == 2 {
			w.del(name)
		}
	}
}

// inLayout checks what only one of the layouts has.
func inLayout(t *testing.T, server *kubetest.Server, group string) {
	t.Helper()
	gv, _ := schema.ParseGroupVersion(group)
	all, err := server.Objects(t).Resource(gv.WithResource("blockaffinities")).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(all.Items) == 0 {
		t.Fatalf("%d affinities, %v", len(all.Items), err)
	}
	want := any("false")
	if group == kubetest.CalicoV3 {
		want = false
	}
	for _, obj := range all.Items {
		if got, _, _ := unstructured.NestedFieldNoCopy(obj.Object, "spec", "deleted"); got != want {
			t.Errorf("%s: deleted is %T %v", obj.GetName(), got, got)
		}
	}
}

// A missing right is named, and is no reason to go on without the API server; a
// server that cannot be reached is.
func TestKubeCalicoIPAMAway(t *testing.T) {
	server := kubetest.Start(t, kubetest.User{Name: ipamUser})
	server.InstallCalico(t, kubetest.CalicoV1)
	proxy := server.Proxy(t, nil)
	r := newRace(t, server, kubetest.CalicoV1, 2, proxy.Kubeconfig(t, ipamUser))
	w, other := r.nodes[0], r.nodes[1]
	server.Apply(t, strings.Replace(ipamRole, "[ipamblocks, ipamhandles, blockaffinities]", "[ipamblocks, blockaffinities]", 1))
	if _, err := w.add("early"); !errors.Is(err, calicoipam.ErrRefused) || !strings.Contains(err.Error(), "ipamhandles") {
		t.Errorf("without the right to write handles: %v", err)
	}
	server.Apply(t, ipamRole)
	if _, err := w.add("first"); err != nil {
		t.Fatal(err)
	}
	r.settle()
	if err := w.local.SetPools(ownBlocks(t, r.store, 0), nil); err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	if _, err := w.add("alone"); err != nil || w.Problem() == "" {
		t.Errorf("without the API server: %v; problem %q", err, w.Problem())
	}
	w.del("first")
	proxy.Mend()
	if _, err := other.add("other"); err != nil {
		t.Error(err)
	}
	r.settle()
	if p := w.Problem(); p != "" || len(w.Conflicts()) != 0 {
		t.Errorf("problem %q, conflicts %v", p, w.Conflicts())
	}
}

// ownBlocks are a node's blocks. Their first addresses, which are taken, are left out.
func ownBlocks(t *testing.T, s *kube.IPAM, n int) (pools []ipam.Pool) {
	t.Helper()
	all, err := s.List(t.Context(), calicoipam.KindBlock, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, obj := range all {
		if owner, _, _ := unstructured.NestedString(obj.Object, "spec", "affinity"); owner == "host:"+nodeOf(n) {
			cidr, _, _ := unstructured.NestedString(obj.Object, "spec", "cidr")
			p := netip.MustParsePrefix(cidr)
			pools = append(pools, ipam.Pool{CIDR: netip.PrefixFrom(p.Addr().Next().Next().Next().Next(), p.Bits()+1), Whole: true})
		}
	}
	return pools
}
