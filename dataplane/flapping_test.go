package dataplane

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// flapper changes the tables of a node as a cluster of flapping nodes does: peers
// come, change their MAC, lose their next hop, and go.
type flapper struct {
	n   *testNode
	adj [16]fib.AdjID
}

// flap makes change i and publishes it. It alone writes the tables.
func (f *flapper) flap(i int) error {
	at := i % len(f.adj)
	remote := netip.AddrFrom4([4]byte{192, 168, 9, byte(at)})
	to := packet.AddrFrom(remote)
	pfx := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 250, byte(at), 0}), 24)
	mac := packet.MAC{0x66, 1, byte(i >> 8), byte(i), 0, byte(at)}
	tmpl, err := encap.VXLAN(encap.VXLANParams{
		SrcMAC: f.n.nic, DstMAC: packet.MAC{2, 9}, Src: packet.AddrFrom(f.n.addr), Dst: to,
		DstPort: testPort, VNI: testVNI, InnerSrc: f.n.mac, InnerDst: mac,
	})
	if err != nil {
		return err
	}
	adj := fib.Adjacency{
		Kind: fib.KindVXLAN, Ready: i%3 > 0, Port: f.n.upPort, MTU: podMTU, Rewrite: tmpl,
		Via: remote, Peer: to.Fold(), VNI: testVNI, MAC: mac, Dev: "u0",
	}
	switch id := f.adj[at]; {
	case id == 0:
		f.adj[at] = f.n.table.AddAdjacency(adj)
		err = f.n.table.SetRoute(fib.Route{Prefix: pfx, Adj: f.adj[at]})
	case i/len(f.adj)%4 == 3:
		f.n.table.DeleteRoute(pfx)
		f.n.table.RemoveAdjacency(id)
		f.adj[at] = 0
	default:
		f.n.table.UpdateAdjacency(id, adj)
	}
	f.n.commit()
	return err
}

// While other peers flap, thousands of times, a flow in both directions loses
// nothing, keeps its way and stays one flow: the worker goes on while the tables
// change beneath it.
func TestFlappingPeersCostOthersNothing(t *testing.T) {
	const flaps, bursts = 3000, 3000
	n, n2 := pair(t)
	out := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(4711, 80), kit.Payload(20))
	back := kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
		kit.Eth(n2.mac.String(), n.mac.String()), kit.IP4(ipB, ipA), kit.UDP(80, 4711), kit.Payload(20))
	first := n.table.Commit().Gen()
	var done atomic.Bool
	var failed error // read once flapping is over
	var flapping sync.WaitGroup
	flapping.Go(func() {
		f := flapper{n: n}
		for i := 0; i < flaps && failed == nil; i++ {
			failed = f.flap(i)
		}
		done.Store(true)
	})
	sent := 0
	for ; sent < bursts || !done.Load(); sent++ {
		left := n.fromPod("a", out)
		if len(left) != 1 {
			t.Fatalf("packet %d: %d frames left on the uplink", sent, len(left))
		}
		kit.CheckVXLAN(t, left[0].Data, kit.OuterDst(node2))
		if got := n.fromWire("a", back); len(got) != 1 {
			t.Fatalf("answer %d: %d frames reached the pod", sent, len(got))
		}
	}
	flapping.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	n.wantDrops(drop.None, 0)
	if got := n.e.FlowTable().Len(); got != 1 {
		t.Errorf("%d flows, want 1", got)
	}
	if gens := n.table.Commit().Gen() - first; gens != flaps {
		t.Errorf("%d publications, want %d", gens, flaps)
	}
}

// BenchmarkPublications is what a packet costs when tables are published between
// packets, after each burst or after each thousandth, so that flows ask again. Every
// publication has another generation, and 15,000 routes beside those of the flows.
// What it costs to make the tables is left out.
func BenchmarkPublications(b *testing.B) {
	for _, flows := range []int{1000, 100_000, 1_000_000} {
		for _, every := range []int{0, 1000, 1} { // bursts; 0: never
			b.Run(fmt.Sprintf("flows=%d/bursts=%d", flows, every), func(b *testing.B) {
				e, queues := hotNode(b, hot{flows: flows})
				snaps := generations(b, e)
				e.Publish(snaps[0])
				burst := func() int {
					e.workers[0].flows.Quiesce(0)
					return e.workers[0].handle(queues[0])
				}
				for known := 0; known < flows; {
					known += burst()
				}
				bursts := 0
				b.ResetTimer()
				for packets := 0; packets < b.N; bursts++ {
					if every > 0 && bursts%every == 0 {
						e.Publish(snaps[(1+bursts/every)%len(snaps)])
					}
					packets += burst()
				}
				b.StopTimer()
				if d := e.Drops(); len(d) != 0 {
					b.Fatalf("frames were dropped: %+v", d)
				}
			})
		}
	}
}

// generations are tables that say the same of the hot flows, each of another
// generation. They are so many that a flow never meets the one it knows again.
func generations(b *testing.B, e *Engine) (snaps [4099]*fib.Snapshot) {
	b.Helper()
	before, table := e.Tables(), fib.NewTable()
	table.SetNode(*before.Node())
	table.Commit() // another generation than before's
	for r := range before.Routes() {
		if err := table.SetRoute(fib.Route{Prefix: r.Prefix, Adj: table.AddAdjacency(*before.Adjacency(r.Adj))}); err != nil {
			b.Fatal(err)
		}
	}
	other := fib.Adjacency{Kind: fib.KindBlackhole}
	id := table.AddAdjacency(other)
	for i := range 15_000 {
		pfx := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
		if err := table.SetRoute(fib.Route{Prefix: pfx, Adj: id}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range snaps {
		other.MTU = uint16(i)
		table.UpdateAdjacency(id, other)
		snaps[i] = table.Commit()
	}
	return snaps
}
