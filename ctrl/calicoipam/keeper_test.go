package calicoipam_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/calicoipam/ipamtest"
	"culvert/ctrl/ipam"
)

func away(m *ipamtest.Memory, is bool) {
	m.Fail = nil
	if is {
		m.Fail = func(int, string) (error, bool) { return ipamtest.ErrAway, false }
	}
}

func mustAdd(t *testing.T, w *node, name string) netip.Addr {
	t.Helper()
	got, err := w.add(t.Context(), name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return got[0]
}

// owner is the pod that the blocks say has an address.
func owner(m *ipamtest.Memory, a netip.Addr) string {
	for _, obj := range m.All("IPAMBlock") {
		cidr := netip.MustParsePrefix(field(obj, "spec", "cidr"))
		given, _, _ := unstructured.NestedSlice(obj.Object, "spec", "allocations")
		attrs, _, _ := unstructured.NestedSlice(obj.Object, "spec", "attributes")
		at := cidr.Addr()
		for _, index := range given {
			if at == a && index != nil {
				pod, _, _ := unstructured.NestedString(attrs[index.(int64)].(map[string]any), "secondary", "pod")
				return pod
			}
			at = at.Next()
		}
	}
	return ""
}

// The first pass gives a node its tunnel address and a block; pods come and go.
func TestKeeperOnline(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/24", 26)), newClock()
	w := newNode(t, m, 0, clk)
	mustPass(t, w)
	if n := len(m.All("IPAMBlock")); n != 1 || len(m.All("IPAMHandle")) != 1 {
		t.Errorf("%d blocks", n)
	}
	calls := m.Calls()
	a := mustAdd(t, w, "a")
	if n := m.Calls() - calls; n > 6 {
		t.Errorf("the first ADD took %d requests", n)
	}
	calls = m.Calls()
	b := mustAdd(t, w, "b")
	if n := m.Calls() - calls; n > 2 {
		t.Errorf("the second ADD took %d requests", n)
	}
	if owner(m, a) != "a" || owner(m, b) != "b" || a == b {
		t.Errorf("%s is of %q, %s of %q", a, owner(m, a), b, owner(m, b))
	}
	clean(t, m)
	w.del(t, "a")
	calls = m.Calls()
	mustPass(t, w)
	if n := m.Calls() - calls; n > 3 {
		t.Errorf("the DEL took %d requests", n)
	}
	if owner(m, a) != "" {
		t.Errorf("%s is still given", a)
	}
	clean(t, m)
	if files, _ := os.ReadDir(filepath.Join(w.dir, "calico-ipam")); len(files) != 1 {
		t.Errorf("%d files for one pod", len(files))
	}
	// Asked for by name at once after its release.
	w.del(t, "b")
	if _, err := w.add(t.Context(), "b2", b); err != nil {
		t.Error(err)
	}
	var refused *ipam.RefusedError
	if _, err := w.add(t.Context(), "b3", b); !errors.As(err, &refused) || !strings.Contains(err.Error(), "pod default/b2 on node-0") {
		t.Errorf("an address that is taken: %v", err)
	}
	mustPass(t, w)
	clean(t, m)
}

// Without the API server pods get addresses of the blocks as last seen, over a
// restart, too; they are written when it is back.
func TestKeeperAway(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/24", 26)), newClock()
	w := newNode(t, m, 0, clk)
	mustPass(t, w)
	a := mustAdd(t, w, "a")
	w.sees(t, m)
	away(m, true)
	b := mustAdd(t, w, "b")
	if b == a || w.Problem() == "" {
		t.Errorf("a has %s, b has %s; problem %q", a, b, w.Problem())
	}
	calls := m.Calls()
	mustAdd(t, w, "c")
	if m.Calls() != calls {
		t.Error("an ADD waits for an API server that is known to be away")
	}
	w.del(t, "a")
	if err := w.Pass(t.Context()); !errors.Is(err, ipamtest.ErrAway) {
		t.Errorf("the pass: %v", err)
	}
	w.start(t) // as culvertd is restarted meanwhile
	away(m, false)
	mustPass(t, w)
	if owner(m, b) != "b" || owner(m, a) != "" || w.Problem() != "" {
		t.Errorf("%s is of %q, %s of %q; problem %q", b, owner(m, b), a, owner(m, a), w.Problem())
	}
	clean(t, m)
	// With no block there is nothing to give.
	away(m, true)
	if err := w.local.SetPools(nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.add(t.Context(), "d"); !calicoipam.Away(err) {
		t.Errorf("without a block: %v", err)
	}
	away(m, false)
	mustPass(t, w)
	clean(t, m)
}

// Somebody else was given the address meanwhile: both keep it, and it is told.
func TestKeeperConflict(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.1.0.0/30", 30)), newClock()
	w := newNode(t, m, 0, clk)
	mustPass(t, w)
	w.sees(t, m)
	away(m, true)
	a := mustAdd(t, w, "a")
	away(m, false)
	mustAssign(t, client(m, 1, clk), request("node-1", "thief", a.String()))
	if err := w.Pass(t.Context()); err == nil || calicoipam.Away(err) {
		t.Errorf("the pass: %v", err)
	}
	c := w.Conflicts()
	if len(c) != 1 || c[0].Object.String() != "Pod default/a" || !strings.Contains(c[0].What, "pod default/thief on node-1") || !strings.Contains(c[0].What, a.String()) {
		t.Errorf("conflicts %v", c)
	}
	if owner, _ := w.local.Owner(a); owner == "" {
		t.Error("the pod has lost its address")
	}
	if w.changes != 1 {
		t.Errorf("%d changes were told", w.changes)
	}
	clean(t, m)
	// It ends when one of them goes, whatever was read of the block before.
	w.Look()
	_ = w.Pass(t.Context())
	mustSettle(t, client(m, 1, clk), calicoipam.Request{Handle: "k8s-pod-network.thief"})
	clk.pass(time.Minute)
	mustPass(t, w)
	if owner(m, a) != "a" || len(w.Conflicts()) != 0 || w.changes != 2 {
		t.Errorf("%s is of %q; conflicts %v", a, owner(m, a), w.Conflicts())
	}
	clean(t, m)
}

// Allocations that got lost are written again; those without a pod are released after
// a while, but not those of pods that somebody else has made.
func TestKeeperCompares(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/26", 26)), newClock()
	w := newNode(t, m, 0, clk)
	mustPass(t, w)
	a := mustAdd(t, w, "a")
	mustPass(t, w)
	raw := client(m, 0, clk)
	mustSettle(t, raw, calicoipam.Request{Handle: "k8s-pod-network.node-0a"})
	for _, pod := range []string{"gone", "moved", "calicos", "pending", "again"} {
		mustAssign(t, raw, request("node-0", pod))
	}
	put := func(name, node, ip string) {
		obj := object("Pod", name, map[string]any{"nodeName": node})
		obj.SetNamespace("default")
		obj.Object["status"] = map[string]any{"podIP": ip}
		m.Put(obj)
	}
	put("moved", "node-9", "")
	put("calicos", "node-0", "10.1.0.4")
	put("pending", "node-0", "")
	put("again", "node-0", "10.1.0.63")
	// What was there before is known by the records alone.
	if err := os.RemoveAll(filepath.Join(w.dir, "calico-ipam")); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	mustPass(t, w)
	if owner(m, a) != "a" {
		t.Errorf("%s is of %q", a, owner(m, a))
	}
	clean(t, m)
	clk.pass(4 * time.Minute)
	w.Look()
	mustPass(t, w)
	if n := len(m.All("IPAMHandle")); n != 7 {
		t.Errorf("%d handles: some were released at once", n)
	}
	clk.pass(2 * time.Minute)
	w.Look()
	mustPass(t, w)
	var left []string
	for _, h := range m.All("IPAMHandle") {
		left = append(left, strings.TrimPrefix(h.GetName(), "k8s-pod-network."))
	}
	if got := fmt.Sprint(left); got != "[calicos node-0a pending vxlan-tunnel-addr-node-0]" {
		t.Errorf("left are %s", got)
	}
	clean(t, m)
}

// Two interfaces of one container in one network have one handle.
func TestTwoInterfaces(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/26", 26)), newClock()
	w := newNode(t, m, 0, clk)
	first := calicoipam.Pod{Owner: "c@eth0", Network: "n", ContainerID: "c"}
	second := calicoipam.Pod{Owner: "c@net1", Network: "n", ContainerID: "c"}
	w.pods = []calicoipam.Pod{first, second}
	for i, p := range w.pods {
		addrs, err := w.Allocate(t.Context(), p, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.pods[i].Addrs = addrs
	}
	keep := w.pods[1].Addrs[0]
	if err := w.Release(first); err != nil {
		t.Fatal(err)
	}
	w.pods = w.pods[1:]
	mustPass(t, w)
	if h := m.All("IPAMHandle")[0]; field(h, "spec", "block") != "map[10.1.0.0/26:1]" {
		t.Errorf("the handle counts %s", field(h, "spec", "block"))
	}
	if _, err := client(m, 0, clk).Assign(t.Context(), request("node-0", "x", keep.String())); err == nil {
		t.Error("the other interface's address was released")
	}
	clean(t, m)
}

// An empty block is given up when another one has room, after ten minutes, and one of
// a pool that is not for this node any more at once.
func TestSpareBlocks(t *testing.T) {
	p := pool("p", "10.1.0.0/24", 30)
	m, clk := cluster(1, p), newClock()
	w := newNode(t, m, 0, clk)
	for i := range 9 {
		mustAdd(t, w, fmt.Sprint(i))
	}
	for i := range 9 {
		w.del(t, fmt.Sprint(i))
	}
	mustPass(t, w)
	if n := len(m.All("IPAMBlock")); n != 3 {
		t.Errorf("%d blocks: some were given up at once", n)
	}
	clk.pass(11 * time.Minute)
	w.Look()
	mustPass(t, w)
	if n := len(m.All("IPAMBlock")); n != 1 {
		t.Errorf("%d blocks are left", n)
	}
	clean(t, m)
	_ = unstructured.SetNestedField(p.Object, "rack == 'x'", "spec", "nodeSelector")
	m.Put(p)
	w.Look()
	mustPass(t, w)
	w.Look() // the tunnel address goes first, and then the block is empty
	mustPass(t, w)
	if n := len(m.All("IPAMBlock")) + len(m.All("BlockAffinity")) + len(m.All("IPAMHandle")); n != 0 {
		t.Errorf("%d objects are left in a pool that is not for this node", n)
	}
}

// An answer of the API server is no reason to go on without it.
func TestRefusedIsNotAway(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/24", 26)), newClock()
	w := newNode(t, m, 0, clk)
	m.Fail = func(_ int, what string) (error, bool) {
		if strings.Contains(what, "IPAMHandle") {
			return fmt.Errorf("create ipamhandles: %w", calicoipam.ErrRefused), false
		}
		return nil, false
	}
	if _, err := w.add(t.Context(), "a"); !errors.Is(err, calicoipam.ErrRefused) {
		t.Errorf("the ADD: %v", err)
	}
	if err := w.Pass(t.Context()); err == nil || !strings.Contains(w.Problem(), "ipamhandles") {
		t.Errorf("the pass: %v; problem %q", err, w.Problem())
	}
	m.Fail = nil
	clk.pass(time.Minute)
	mustPass(t, w)
	clean(t, m)
}

// A pod whose pool is gone keeps its address, and status says why it is nowhere recorded.
func TestPoolIsGone(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/24", 26)), newClock()
	w := newNode(t, m, 0, clk)
	w.pods = []calicoipam.Pod{w.pod("a")}
	w.pods[0].Addrs = []netip.Addr{netip.MustParseAddr("10.7.0.1")}
	if err := w.Pass(t.Context()); err == nil || calicoipam.Away(err) {
		t.Errorf("the pass: %v", err)
	}
	if p := w.Problem(); !strings.Contains(p, "pod default/a: address 10.7.0.1 refused: it is in no IPPool") || len(w.Conflicts()) != 0 {
		t.Errorf("problem %q, conflicts %v", p, w.Conflicts())
	}
	m.Put(pool("old", "10.7.0.0/24", 26, "disabled", true))
	m.Put(object("IPAMBlock", "10-7-0-0-30", map[string]any{"cidr": "10.7.0.0/30"})) // nonsense, which is nobody's
	clk.pass(time.Minute)
	_ = w.Pass(t.Context())
	if p := w.Problem(); !strings.Contains(p, "is not for this node") {
		t.Errorf("problem %q", p)
	}
}

// Run does what is owed without being asked again.
func TestRun(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/24", 26)), newClock()
	w := newNode(t, m, 0, clk)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	a := mustAdd(t, w, "a")
	w.del(t, "a")
	for deadline := time.Now().Add(time.Minute); owner(m, a) != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the address is not released")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
