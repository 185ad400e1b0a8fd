package calicoipam_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/calicoipam/ipamtest"
	"culvert/ctrl/ipam"
	"culvert/ctrl/source"
)

// object is an object as YAML would say it.
func object(kind, name string, spec map[string]any) *unstructured.Unstructured {
	obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "spec": spec}}
	obj.SetName(name)
	return obj
}

func pool(name, cidr string, block int64, more ...any) *unstructured.Unstructured {
	spec := map[string]any{"cidr": cidr, "blockSize": block, "vxlanMode": "Always"}
	for i := 0; i < len(more); i += 2 {
		spec[more[i].(string)] = more[i+1]
	}
	return object("IPPool", name, spec)
}

// cluster is a store with nodes and pools.
func cluster(nodes int, pools ...*unstructured.Unstructured) *ipamtest.Memory {
	m := &ipamtest.Memory{}
	for n := range nodes {
		obj := object("Node", nodeName(n), nil)
		obj.SetLabels(map[string]string{"rack": fmt.Sprint(n)})
		m.Put(obj)
	}
	for _, p := range pools {
		m.Put(p)
	}
	return m
}

func nodeName(n int) string { return fmt.Sprint("node-", n) }

// clock is one that stands until it is told.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func client(m calicoipam.Store, n int, clk *clock) *calicoipam.Client {
	return calicoipam.NewClient(calicoipam.Config{Node: nodeName(n), Store: m, Now: clk.now})
}

// request is a pod's.
func request(node, pod string, want ...string) calicoipam.Request {
	r := calicoipam.Request{
		Handle: calicoipam.PodHandle("k8s-pod-network", pod), Namespace: "default",
		Attrs: map[string]string{"node": node, "pod": pod, "namespace": "default", "timestamp": "now"},
	}
	for _, w := range want {
		r.Want = append(r.Want, netip.MustParseAddr(w))
	}
	return r
}

func settle(r calicoipam.Request) func() (calicoipam.Request, bool) {
	return func() (calicoipam.Request, bool) { return r, true }
}

func mustAssign(t *testing.T, c *calicoipam.Client, r calicoipam.Request) string {
	t.Helper()
	got, err := c.Assign(t.Context(), r)
	if err != nil {
		t.Fatalf("%s: %v", r.Handle, err)
	}
	return strings.Trim(fmt.Sprint(got), "[]")
}

func mustSettle(t *testing.T, c *calicoipam.Client, r calicoipam.Request) {
	t.Helper()
	if err := c.Settle(t.Context(), settle(r)); err != nil {
		t.Fatalf("%s: %v", r.Handle, err)
	}
}

func clean(t *testing.T, m *ipamtest.Memory) {
	t.Helper()
	for _, p := range m.Check() {
		t.Error(p)
	}
}

// field is a value in an object, as text.
func field(obj *unstructured.Unstructured, path ...string) string {
	v, _, _ := unstructured.NestedFieldNoCopy(obj.Object, path...)
	return fmt.Sprint(v)
}

// node is a Keeper and what it keeps for: restarted, it has the same directory.
type node struct {
	*calicoipam.Keeper
	name  string
	dir   string
	local *ipam.Allocator
	clk   *clock
	store calicoipam.Store

	changes int // that were told
	sight   []*source.IPAMBlock

	mu   sync.Mutex
	pods []calicoipam.Pod
}

func newNode(t *testing.T, m calicoipam.Store, n int, clk *clock) *node {
	w := &node{name: nodeName(n), dir: memoryDir(t), clk: clk, store: m}
	w.start(t)
	return w
}

// memoryDir is a directory in memory where there is such a place: the tests make
// thousands of small files.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "calicoipam-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// start is a start of culvertd: what is on disk and the pods' records are there.
func (w *node) start(t *testing.T) {
	t.Helper()
	var err error
	if w.local, err = ipam.New(); err != nil {
		t.Fatal(err)
	}
	for _, p := range w.list() {
		if err := w.local.Reserve(p.Owner, p.Addrs...); err != nil {
			t.Fatal(err)
		}
	}
	w.Keeper, err = calicoipam.NewKeeper(calicoipam.KeeperConfig{
		Config:   calicoipam.Config{Node: w.name, Store: w.store, Now: w.clk.now, Blocks: func() []*source.IPAMBlock { return w.sight }},
		StateDir: w.dir, Local: w.local, Pods: w.list, Changed: func() { w.changes++ }, Patience: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *node) list() []calicoipam.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pods)
}

func (w *node) pod(name string) calicoipam.Pod {
	return calicoipam.Pod{Owner: w.name + name + "@eth0", Network: "k8s-pod-network", ContainerID: w.name + name, Namespace: "default", Name: name}
}

// add is an ADD as package pods does it.
func (w *node) add(ctx context.Context, name string, want ...netip.Addr) ([]netip.Addr, error) {
	p := w.pod(name)
	w.mu.Lock()
	w.pods = append(w.pods, p)
	w.mu.Unlock()
	addrs, err := w.Allocate(ctx, p, want)
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.pods, func(q calicoipam.Pod) bool { return q.Owner == p.Owner })
	if w.pods[i].Addrs = addrs; err != nil {
		w.pods = slices.Delete(w.pods, i, i+1)
	}
	return addrs, err
}

// del is a DEL.
func (w *node) del(t *testing.T, name string) {
	t.Helper()
	p := w.pod(name)
	if err := w.Release(p); err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	w.pods = slices.DeleteFunc(w.pods, func(q calicoipam.Pod) bool { return q.Owner == p.Owner })
	w.mu.Unlock()
	w.local.Release(p.Owner)
}

// sees makes the own blocks known to the node, as flavour.Calico reads them.
func (w *node) sees(t *testing.T, m *ipamtest.Memory) {
	t.Helper()
	var pools []ipam.Pool
	var held []ipam.Held
	for _, obj := range m.All("IPAMBlock") {
		if field(obj, "spec", "affinity") != "host:"+w.name {
			continue
		}
		cidr := netip.MustParsePrefix(field(obj, "spec", "cidr"))
		pools = append(pools, ipam.Pool{CIDR: cidr, Whole: true})
		given, _, _ := unstructured.NestedSlice(obj.Object, "spec", "allocations")
		a := cidr.Addr()
		for _, at := range given {
			if at != nil {
				held = append(held, ipam.Held{Addr: a, Why: "it is taken"})
			}
			a = a.Next()
		}
	}
	if err := w.local.SetPools(pools, held); err != nil {
		t.Fatal(err)
	}
}

func mustPass(t *testing.T, w *node) {
	t.Helper()
	if err := w.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func ref(kind, name string) source.Ref { return source.Ref{Kind: kind, Name: name} }
