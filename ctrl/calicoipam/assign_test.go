package calicoipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/ipam"
	"culvert/ctrl/source"
)

// What is written is what libcalico-go writes.
func TestObjects(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.65.0.0/26", 26)), newClock()
	c := client(m, 1, clk)
	if got := mustAssign(t, c, request("node-1", "Web")); got != "10.65.0.0" {
		t.Errorf("the first address is %s", got)
	}
	mustAssign(t, c, request("node-1", "two"))
	aff := m.All("BlockAffinity")[0]
	if got, want := fmt.Sprint(aff.Object["spec"]), "map[cidr:10.65.0.0/26 deleted:false node:node-1 state:confirmed type:host]"; aff.GetName() != "node-1-10-65-0-0-26" || got != want {
		t.Errorf("affinity %s: %s", aff.GetName(), got)
	}
	if l := aff.GetLabels(); l["projectcalico.org/hostname-hash"] != "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA" || l["projectcalico.org/ip-version"] != "4" {
		t.Errorf("labels %v", l)
	}
	h := m.All("IPAMHandle")[1]
	if got := fmt.Sprint(h.Object["spec"]); h.GetName() != "k8s-pod-network.web" || got != "map[block:map[10.65.0.0/26:1] handleID:k8s-pod-network.Web]" {
		t.Errorf("handle %s: %s", h.GetName(), got)
	}
	b := m.All("IPAMBlock")[0]
	seq := clk.now().UnixNano()
	for path, want := range map[string]string{
		"affinity": "host:node-1", "affinityClaimTime": "2026-11-23T05:00:00Z", "cidr": "10.65.0.0/26", "deleted": "false",
		"strictAffinity": "false", "sequenceNumber": fmt.Sprint(seq + 2),
		"sequenceNumberForAllocation": fmt.Sprintf("map[0:%d 1:%d]", seq, seq+1),
		"attributes": "[map[handle_id:k8s-pod-network.Web secondary:map[namespace:default node:node-1 pod:Web timestamp:now]]" +
			" map[handle_id:k8s-pod-network.two secondary:map[namespace:default node:node-1 pod:two timestamp:now]]]",
	} {
		if got := field(b, "spec", path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	clean(t, m)
}

// The address that was released last is given last, and attributes are numbered anew.
func TestReleaseAndOrder(t *testing.T) {
	m := cluster(1, pool("p", "10.1.0.0/30", 30))
	c := client(m, 0, newClock())
	for _, pod := range []string{"a", "b", "c"} {
		mustAssign(t, c, request("node-0", pod))
	}
	mustSettle(t, c, calicoipam.Request{Handle: "k8s-pod-network.a"})
	mustSettle(t, c, calicoipam.Request{Handle: "k8s-pod-network.a"}) // again, as a DEL may come
	clean(t, m)
	b := m.All("IPAMBlock")[0]
	if got := field(b, "spec", "allocations") + field(b, "spec", "unallocated"); got != "[<nil> 0 1 <nil>][3 0]" {
		t.Errorf("allocations and free ordinals are %s", got)
	}
	if got := mustAssign(t, c, request("node-0", "d")); got != "10.1.0.3" {
		t.Errorf("given is %s", got)
	}
	if got := mustAssign(t, c, request("node-0", "e")); got != "10.1.0.0" {
		t.Errorf("given is %s", got)
	}
	if _, err := c.Assign(t.Context(), request("node-0", "f")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("a full pool: %v", err)
	}
	clean(t, m)
}

// Fields that this version does not know stay.
func TestUnknownFieldsSurvive(t *testing.T) {
	m := cluster(1, pool("p", "10.1.0.0/29", 29))
	c := client(m, 0, newClock())
	mustAssign(t, c, request("node-0", "a"))
	mustAssign(t, c, request("node-0", "b"))
	b := m.All("IPAMBlock")[0]
	attrs, _, _ := unstructured.NestedSlice(b.Object, "spec", "attributes")
	attrs[1].(map[string]any)["new"] = "kept"
	_ = unstructured.SetNestedSlice(b.Object, attrs, "spec", "attributes")
	_ = unstructured.SetNestedField(b.Object, "kept", "spec", "newer")
	b.SetAnnotations(map[string]string{"who": "cares"})
	m.Put(b)
	h := m.All("IPAMHandle")[1]
	_ = unstructured.SetNestedField(h.Object, "kept", "spec", "newer")
	m.Put(h)
	mustSettle(t, c, calicoipam.Request{Handle: "k8s-pod-network.a"})
	mustSettle(t, c, request("node-0", "b", "10.1.0.1", "10.1.0.5"))
	b, h = m.All("IPAMBlock")[0], m.All("IPAMHandle")[0]
	if field(b, "spec", "newer") != "kept" || b.GetAnnotations()["who"] != "cares" || !strings.Contains(field(b, "spec", "attributes"), "new:kept") || field(h, "spec", "newer") != "kept" {
		t.Errorf("lost: %v %v", b.Object, h.Object)
	}
	clean(t, m)
}

func TestWhichPools(t *testing.T) {
	m := cluster(2,
		pool("a-disabled", "10.1.0.0/24", 26, "disabled", true),
		pool("b-elsewhere", "10.2.0.0/24", 26, "nodeSelector", "rack == '1'"),
		pool("c-tunnels", "10.3.0.0/24", 26, "allowedUses", []any{"Tunnel"}),
		pool("d-manual", "10.4.0.0/24", 26, "assignmentMode", "Manual"),
		pool("e-namespace", "10.5.0.0/24", 26, "namespaceSelector", "team == 'red'"),
		pool("f-good", "10.6.0.0/24", 26),
		pool("g-six", "fd00:6::/64", 122))
	ns := object("Namespace", "red", nil)
	ns.SetLabels(map[string]string{"team": "red"})
	m.Put(ns)
	reserved := object("IPReservation", "r", map[string]any{"reservedCIDRs": []any{"10.6.0.0/25", "10.6.0.128/31", "10.6.0.192/26"}})
	m.Put(reserved)
	c := client(m, 0, newClock())
	r := request("node-0", "b")
	r.Namespace = "red"
	if got := mustAssign(t, c, r); !strings.HasPrefix(got, "10.5.0.") {
		t.Errorf("given is %s", got)
	}
	if got := mustAssign(t, c, request("node-0", "a")); !strings.HasPrefix(got, "10.6.0.130 fd00:6::") {
		t.Errorf("given is %s", got)
	}
	// Asked for by name: a reserved one, one of a manual pool, none of a pool of others.
	if got := mustAssign(t, c, request("node-0", "c", "10.6.0.128")); !strings.HasPrefix(got, "10.6.0.128 ") {
		t.Errorf("given is %s", got)
	}
	if got := mustAssign(t, c, request("node-0", "d", "10.4.0.9")); !strings.HasPrefix(got, "10.4.0.9 ") {
		t.Errorf("given is %s", got)
	}
	for _, a := range []string{"10.2.0.1", "10.1.0.1", "10.9.0.1", "10.6.0.128"} {
		var refused *ipam.RefusedError
		var taken *calicoipam.TakenError
		if _, err := c.Assign(t.Context(), request("node-0", "e", a)); !errors.As(err, &refused) && !errors.As(err, &taken) {
			t.Errorf("%s: %v", a, err)
		}
	}
	clean(t, m)
}

func TestLimits(t *testing.T) {
	config := func(spec map[string]any) *unstructured.Unstructured { return object("IPAMConfig", "default", spec) }
	clk := newClock()
	// At most two blocks.
	m := cluster(1, pool("p", "10.1.0.0/24", 31), config(map[string]any{"strictAffinity": true, "maxBlocksPerHost": int64(2)}))
	c := client(m, 0, clk)
	for i := range 4 {
		mustAssign(t, c, request("node-0", fmt.Sprint(i)))
	}
	if _, err := c.Assign(t.Context(), request("node-0", "x")); !errors.Is(err, ipam.ErrExhausted) || !strings.Contains(err.Error(), "maxBlocksPerHost") {
		t.Errorf("over the limit: %v", err)
	}
	clean(t, m)
	// No own block: borrowed, or not if that is forbidden.
	for _, strict := range []bool{false, true} {
		m := cluster(2, pool("p", "10.1.0.0/30", 30), config(map[string]any{"strictAffinity": strict}))
		mustAssign(t, client(m, 0, clk), request("node-0", "a"))
		got, err := client(m, 1, clk).Assign(t.Context(), request("node-1", "b"))
		if strict != errors.Is(err, ipam.ErrExhausted) || !strict && got[0].String() != "10.1.0.1" {
			t.Errorf("strict %v: %v, %v", strict, got, err)
		}
		_, err = client(m, 1, clk).Assign(t.Context(), request("node-1", "c", "10.1.0.3"))
		if strict != (err != nil) {
			t.Errorf("strict %v, an address by name: %v", strict, err)
		}
		clean(t, m)
	}
	// Blocks are not claimed where that is switched off.
	m = cluster(1, pool("p", "10.1.0.0/30", 30), config(map[string]any{"strictAffinity": true, "autoAllocateBlocks": false}))
	if _, err := client(m, 0, clk).Assign(t.Context(), request("node-0", "a")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("claimed all the same: %v", err)
	}
}

// An empty block of another node is taken over when there is no other, after a minute.
func TestReclaim(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.1.0.0/30", 30)), newClock()
	m.Put(object("IPAMConfig", "default", map[string]any{"strictAffinity": true}))
	old := client(m, 0, clk)
	mustAssign(t, old, request("node-0", "a"))
	mustSettle(t, old, calicoipam.Request{Handle: "k8s-pod-network.a"})
	c := client(m, 1, clk)
	if _, err := c.Assign(t.Context(), request("node-1", "b")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("a block of this minute was taken: %v", err)
	}
	clk.pass(2 * time.Minute)
	mustAssign(t, c, request("node-1", "b"))
	clean(t, m)
	// The node that had it finds out.
	if _, err := old.Assign(t.Context(), request("node-0", "c")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("an address of a lost block: %v", err)
	}
	clean(t, m)
}

func TestStaleObjects(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.1.0.0/29", 30)), newClock()
	mustAssign(t, client(m, 0, clk), request("node-0", "a", "10.1.0.1"))
	// node-1 believes that it has node-0's block, and has one that it was giving up.
	m.Put(affinityOf("node-1", "10.1.0.0/30", "confirmed"))
	m.Put(affinityOf("node-1", "10.1.0.4/30", "pendingDeletion"))
	c := client(m, 1, clk)
	mustAssign(t, c, request("node-1", "b"))
	clean(t, m)
	// One marked as deleted is as good as gone.
	b := m.All("IPAMBlock")
	for _, obj := range b {
		if field(obj, "spec", "affinity") == "host:node-1" {
			mustSettle(t, c, calicoipam.Request{Handle: "k8s-pod-network.b"})
			_ = unstructured.SetNestedField(obj.Object, true, "spec", "deleted")
			_ = unstructured.SetNestedSlice(obj.Object, []any{nil, nil, nil, nil}, "spec", "allocations")
			m.Put(obj)
		}
	}
	mustAssign(t, client(m, 1, clk), request("node-1", "d"))
	clean(t, m)
}

func affinityOf(node, cidr, state string) *unstructured.Unstructured {
	obj := object("BlockAffinity", node+"-"+strings.NewReplacer(".", "-", "/", "-").Replace(cidr),
		map[string]any{"node": node, "cidr": cidr, "state": state, "deleted": "false", "type": "host"})
	if node == "node-1" {
		obj.SetLabels(map[string]string{"projectcalico.org/hostname-hash": "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA", "projectcalico.org/affinity-type": "host"})
	}
	return obj
}

// The sequence number keeps an address that was given again from being released.
func TestLeakedIsReleasedOnce(t *testing.T) {
	m, clk := cluster(1, pool("p", "10.1.0.0/30", 30)), newClock()
	c := client(m, 0, clk)
	mustAssign(t, c, request("node-0", "a"))
	cidr, addr := netip.MustParsePrefix("10.1.0.0/30"), netip.MustParseAddr("10.1.0.0")
	seq := uint64(clk.now().UnixNano())
	for _, s := range []uint64{seq + 7, seq} {
		if err := c.ReleaseLeaked(t.Context(), "k8s-pod-network.a", cidr, map[netip.Addr]uint64{addr: s}); err != nil {
			t.Fatal(err)
		}
		if gone := len(m.All("IPAMHandle")) == 0; gone != (s == seq) {
			t.Errorf("sequence number %d of %d: released %v", s, seq, gone)
		}
		clean(t, m)
	}
}

func TestTunnels(t *testing.T) {
	p4 := pool("four", "10.1.0.0/24", 26)
	m := cluster(1, p4, pool("six", "fd00::/64", 122), pool("ipip", "10.2.0.0/24", 26, "vxlanMode", "Never", "ipipMode", "CrossSubnet"))
	c := client(m, 0, newClock())
	before := []netip.Addr{netip.MustParseAddr("10.1.0.77")}
	for range 2 {
		if err := c.EnsureTunnels(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, h := range m.All("IPAMHandle") {
		names = append(names, h.GetName()+" "+field(h, "spec", "block"))
	}
	if len(names) != 3 || !strings.HasPrefix(names[0], "ipip-tunnel-addr-node-0 map[10.2.0.") || names[1] != "vxlan-tunnel-addr-node-0 map[10.1.0.64/26:1]" ||
		!strings.HasPrefix(names[2], "vxlan-v6-tunnel-addr-node-0 map[fd00:") {
		t.Errorf("handles %q", names)
	}
	for _, b := range m.All("IPAMBlock") {
		if cidr := field(b, "spec", "cidr"); cidr == "10.1.0.64/26" && field(b, "spec", "attributes") != "[map[handle_id:vxlan-tunnel-addr-node-0 secondary:map[node:node-0 type:vxlanTunnelAddress]]]" {
			t.Errorf("attributes %s", field(b, "spec", "attributes"))
		}
	}
	clean(t, m)
	// A pool that is no longer one for the tunnel takes its address along.
	_ = unstructured.SetNestedField(p4.Object, "Never", "spec", "vxlanMode")
	m.Put(p4)
	c = client(m, 0, newClock())
	if err := c.EnsureTunnels(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if n := len(m.All("IPAMHandle")); n != 2 {
		t.Errorf("%d handles are left", n)
	}
	clean(t, m)
	// A handle that was lost is found again by its address.
	m.Drop(source.Ref{Kind: "IPAMHandle", Name: "ipip-tunnel-addr-node-0"})
	if err := c.EnsureTunnels(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	clean(t, m)
}

// What was seen of the blocks may be old: the create says whose a block is.
func TestOldSight(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.1.0.0/24", 30)), newClock()
	var sight []*source.IPAMBlock
	c := calicoipam.NewClient(calicoipam.Config{Node: "node-1", Store: m, Now: clk.now, Blocks: func() []*source.IPAMBlock { return sight }})
	for i := range 5 * 4 { // five blocks of node-0, which are where node-1 looks first
		b := mustAssign(t, client(m, 1, clk), request("node-1", "look"))
		mustSettle(t, client(m, 1, clk), calicoipam.Request{Handle: "k8s-pod-network.look"})
		for _, kind := range []string{"IPAMBlock", "BlockAffinity"} {
			for _, obj := range m.All(kind) {
				if kind == "IPAMBlock" && field(obj, "spec", "affinity") == "host:node-1" || field(obj, "spec", "node") == "node-1" {
					m.Drop(ref(kind, obj.GetName()))
				}
			}
		}
		mustAssign(t, client(m, 0, clk), request("node-0", fmt.Sprint(i), b))
	}
	block := func(cidr string) *source.IPAMBlock {
		return &source.IPAMBlock{Spec: source.IPAMBlockSpec{CIDR: cidr}}
	}
	sight = []*source.IPAMBlock{block("10.1.0.0/30"), block("10.9.0.0/30")}
	if a := mustAssign(t, c, request("node-1", "a")); strings.HasPrefix(a, "10.1.0.0") {
		t.Errorf("given is %s", a)
	}
	clean(t, m)
}

// A block that has lost its affinity, as others see it, gets it back; one that is gone
// since it was seen does not come back.
func TestLostAffinity(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.1.0.0/24", 30)), newClock()
	mustAssign(t, client(m, 0, clk), request("node-0", "a"))
	cidr, affinity := field(m.All("IPAMBlock")[0], "spec", "cidr"), "host:node-0"
	m.Drop(ref("BlockAffinity", m.All("BlockAffinity")[0].GetName()))
	gone := "10.1.0.252/30"
	if cidr == gone {
		gone = "10.1.0.248/30"
	}
	w := newNode(t, m, 0, clk)
	w.sight = []*source.IPAMBlock{
		{Spec: source.IPAMBlockSpec{CIDR: cidr, Affinity: &affinity}}, {Spec: source.IPAMBlockSpec{CIDR: gone, Affinity: &affinity}},
	}
	w.start(t)
	mustPass(t, w)
	clean(t, m)
	if n := len(m.All("BlockAffinity")); n != 1 {
		t.Errorf("%d affinities", n)
	}
}
