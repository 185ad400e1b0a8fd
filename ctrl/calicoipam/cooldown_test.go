package calicoipam_test

import (
	"fmt"
	"testing"
	"time"
)

// Of the cluster's cool-down another block is claimed; of the node's own only the
// order changes, and either gives way when there is nothing else.
func TestCooldown(t *testing.T) {
	for _, c := range []struct {
		seconds int64
		pool    string
		blocks  int  // in the end
		same    bool // the fifth pod has the first one's address
	}{
		{0, "10.1.0.0/28", 1, true},
		{60, "10.1.0.0/28", 2, false},
		{60, "10.1.0.0/30", 1, true},
	} {
		m, clk := cluster(1, pool("p", c.pool, 30, "vxlanMode", "Never")), newClock()
		m.Put(object("IPAMConfig", "default", map[string]any{"ipCooldownSeconds": c.seconds}))
		w := newNode(t, m, 0, clk)
		w.local.SetCooldown(30*time.Second, clk.now)
		mustPass(t, w)
		w.sees(t, m)
		first := ""
		for i := range 4 {
			a := mustAdd(t, w, fmt.Sprint("p", i))
			if first == "" {
				first = fmt.Sprint(a)
			}
		}
		w.del(t, "p0")
		w.del(t, "p1")
		mustPass(t, w)
		fifth := fmt.Sprint(mustAdd(t, w, "p4"))
		if (fifth == first) != c.same || len(m.All("IPAMBlock")) != c.blocks {
			t.Errorf("%+v: %s after %s, %d blocks", c, fifth, first, len(m.All("IPAMBlock")))
		}
		clean(t, m)
	}
}
