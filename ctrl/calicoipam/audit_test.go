package calicoipam_test

import (
	"slices"
	"testing"

	"culvert/ctrl/calicoipam"
)

// What concerns this node is read, and what is about to be written is told.
func TestAudit(t *testing.T) {
	m, clk := cluster(2, pool("p", "10.1.0.0/28", 30)), newClock()
	w := newNode(t, m, 0, clk)
	mustPass(t, w)
	mustAssign(t, client(m, 1, clk), request("node-1", "other"))
	a := mustAdd(t, w, "a")
	mustAdd(t, w, "b")
	mustPass(t, w)
	w.del(t, "b")
	before := m.Calls()
	audit, err := w.Audit(t.Context())
	if err != nil || m.Calls() != before+2 {
		t.Fatalf("%v with %d requests", err, m.Calls()-before)
	}
	if len(audit.Blocks) != 1 || !audit.Blocks[0].Own || len(audit.Blocks[0].Given) != 3 {
		t.Fatalf("blocks %+v", audit.Blocks)
	}
	handle := calicoipam.PodHandle("k8s-pod-network", "node-0a")
	i := slices.IndexFunc(audit.Blocks[0].Given, func(g calicoipam.Given) bool { return g.Addr == a })
	if g := audit.Blocks[0].Given[i]; g.Handle != handle || g.Attrs["pod"] != "a" || g.Released {
		t.Errorf("%+v", g)
	}
	if audit.Handles[handle][audit.Blocks[0].CIDR.String()] != 1 || audit.Owed[handle] || !audit.Owed[calicoipam.PodHandle("k8s-pod-network", "node-0b")] {
		t.Errorf("handles %v, owed %v", audit.Handles, audit.Owed)
	}
}
