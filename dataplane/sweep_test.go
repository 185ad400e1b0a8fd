package dataplane

import (
	"testing"
	"time"

	"culvert/dataplane/flow"
	"culvert/internal/packet"
)

// However many flows expire at once: a worker that has nothing else to do ends them
// all, without a tick for each few thousand, and one that is busy does so in turns.
func TestFlowsExpireInTime(t *testing.T) {
	n := newTestNode(t, node1, 1)
	const flows = 5 * sweepPerTick
	insert := func() {
		for i := range flows {
			k := packet.Key{Src: packet.Addr{15: 1}, Dst: packet.Addr{15: 2}, SrcPort: uint16(i), DstPort: 53, Proto: packet.ProtoUDP, Family: 6}
			reply := k.Reverse()
			if _, _, refusal := n.e.flows.Insert(&k, &reply, flow.Wire, n.e.Now()); refusal != flow.Accepted {
				t.Fatal(refusal)
			}
		}
	}
	for _, busy := range []bool{false, true} {
		insert()
		n.clock += 40 * time.Second
		n.w.started = n.w.started.Add(-tickEvery)
		n.w.tick(busy)
		if left := n.e.flows.Len(); left != flows-sweepPerTick {
			t.Fatalf("%d flows are left after a tick, want %d", left, flows-sweepPerTick)
		}
		for range flows/512 + 1 {
			if busy {
				n.w.started = n.w.started.Add(-sweepPause)
			}
			n.w.tick(busy)
		}
		if left := n.e.flows.Len(); left != 0 || n.w.behind {
			t.Errorf("busy %t: %d flows have outlived their timeout", busy, left)
		}
	}
}

// A busy worker looks at more flows after a pause only.
func TestSweepPauses(t *testing.T) {
	n := newTestNode(t, node1, 1)
	n.w.started = n.w.started.Add(-tickEvery)
	n.w.tick(true)
	n.w.behind, n.w.lastSweep = true, time.Hour
	if n.w.tick(true); !n.w.behind {
		t.Error("flows were looked at without a pause")
	}
	if n.w.tick(false); n.w.behind {
		t.Error("flows were left while there was nothing to do")
	}
}
