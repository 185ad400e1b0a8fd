package dataplane

import (
	"net/netip"
	"testing"

	"culvert/dataplane/flow"
	"culvert/fib"
	"culvert/internal/drop"
	kit "culvert/internal/pkttest"
)

// A flow whose destination has left ends with its next packet, whose reason is the
// drop's; one that is only sent another way goes on and keeps its counts.
func TestFlowsOfDestinationsThatLeave(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testNode)
		reason drop.Reason
	}{
		"no route": {func(n *testNode) {
			n.table.DeleteRoute(netip.MustParsePrefix("10.244.2.0/24"))
			n.commit()
		}, drop.NoRoute},
		"blackhole": {func(n *testNode) { n.route("10.244.2.0/24", fib.Adjacency{Kind: fib.KindBlackhole, Ready: true}) }, drop.Blackhole},
		"reject":    {func(n *testNode) { n.route("10.244.2.0/24", fib.Adjacency{Kind: fib.KindReject, Ready: true}) }, drop.Reject},
		"unrelated": {func(n *testNode) { n.route("192.0.2.0/24", fib.Adjacency{Kind: fib.KindBlackhole, Ready: true}) }, drop.None},
	} {
		t.Run(name, func(t *testing.T) {
			n1, _ := pair(t)
			udp := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(5, 6), kit.Payload(10))
			n1.fromPod("a", udp, udp)
			w := n1.e.FlowTable().Watch()
			defer w.Close()
			c.change(n1)
			n1.fromPod("a", udp)
			var events [4]flow.Event
			n, _ := w.Read(events[:])
			if c.reason == drop.None {
				n1.wantDrops(drop.None, 0)
				for v := range n1.e.FlowTable().Range {
					if v.Packets[flow.Original] != 3 {
						t.Errorf("%d packets are counted, want 3", v.Packets[flow.Original])
					}
				}
				if n != 0 || n1.e.FlowTable().Len() != 1 {
					t.Errorf("%d flows, %+v", n1.e.FlowTable().Len(), events[:n])
				}
				return
			}
			n1.wantDrops(c.reason, 1)
			if n != 1 || events[0].Change != flow.Gone || events[0].Packets[flow.Original] != 2 || n1.e.FlowTable().Len() != 0 {
				t.Errorf("%d flows, %+v", n1.e.FlowTable().Len(), events[:n])
			}
		})
	}
}
