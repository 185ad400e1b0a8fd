package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/packet"
)

// sourcePorts is a device that notes the source ports of what it sends.
type sourcePorts struct {
	*loop
	seen  map[uint16]bool
	wrong int // packets that do not come from the node
}

func (d *sourcePorts) Send(frames []frame.Frame) int {
	for i := range frames {
		b := d.pool.Bytes(frames[i].Addr, frames[i].Len)
		if packet.IPv4(b[packet.EthernetLen:]).Src() != packet.AddrFrom(netip.MustParseAddr(node1)) {
			d.wrong++
		}
		if d.seen != nil {
			d.seen[binary.BigEndian.Uint16(b[packet.EthernetLen+packet.IPv4Len:])] = true
		}
	}
	return d.loop.Send(frames)
}

// hotNAT is a hotNode whose pod's packets all leave the cluster by one of so many ports.
func hotNAT(t *testing.T, h hot, nports uint16) (*Engine, []*portQueue, []*sourcePorts) {
	t.Helper()
	e, queues := hotNode(t, h)
	table, in := fib.NewTable(), queues[0].port.index
	var up uint16
	for _, p := range e.Ports() {
		if p.Spec.Kind == PortUplink {
			up = p.Index
		}
	}
	out := table.AddAdjacency(fib.Adjacency{Kind: fib.KindDirect, Ready: true, Outside: true, Port: up, MTU: wireMTU, Rewrite: encap.Ethernet(packet.MAC{2}, packet.MAC{4}, 0)})
	own := table.AddAdjacency(fib.Adjacency{Kind: fib.KindPod, Ready: true, Port: in, MTU: podMTU, Rewrite: encap.Ethernet(packet.MAC{6}, GatewayMAC, 0)})
	for prefix, id := range map[string]fib.AdjID{"0.0.0.0/0": out, ipA + "/32": own} {
		if err := table.SetRoute(fib.Route{Prefix: netip.MustParsePrefix(prefix), Adj: id}); err != nil {
			t.Fatal(err)
		}
	}
	table.SetNode(fib.Node{Addr4: packet.AddrFrom(netip.MustParseAddr(node1)),
		NAT: fib.NAT{Sources: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Low: 40000, High: 40000 + nports - 1}})
	e.Publish(table.Commit())
	e.FlowTable().Flush(nil)
	var wires []*sourcePorts
	for _, w := range e.workers {
		d := &sourcePorts{loop: w.ports[up].dev.(*loop)}
		w.ports[up].dev = d
		wires = append(wires, d)
	}
	return e, queues, wires
}

// Workers that give flows ports at the same time give none twice, nor lose a packet.
func TestPortsOfTwoWorkers(t *testing.T) {
	const flows = 4000
	e, queues, wires := hotNAT(t, hot{flows: flows, workers: 2}, 3*flows)
	var wg sync.WaitGroup
	for i, w := range e.workers {
		wires[i].seen = map[uint16]bool{}
		wg.Go(func() {
			for range 2 * (flows/2/frame.BurstSize + 1) {
				w.handle(queues[i])
				w.flows.Quiesce(i)
			}
		})
	}
	wg.Wait()
	if d := e.Drops(); len(d) != 0 {
		t.Fatalf("frames were dropped: %+v", d)
	}
	both := 0
	for p := range wires[0].seen {
		if wires[1].seen[p] {
			both++
		}
	}
	if n := len(wires[0].seen) + len(wires[1].seen); both != 0 || n != flows || wires[0].wrong+wires[1].wrong != 0 {
		t.Errorf("%d flows have %d ports, %d of them twice, %d packets are not the node's", flows, n, both, wires[0].wrong+wires[1].wrong)
	}
	e.FlowTable().Range(func(v flow.View) bool {
		if p := v.Reply.DstPort; p < 40000 || p >= 40000+3*flows {
			t.Errorf("%s has port %d", v.Orig, p)
		}
		return true
	})
}

// Neither what is translated allocates, nor to find no port for it.
func TestTranslatedFlowsDoNotAllocate(t *testing.T) {
	for _, nports := range []uint16{4000, 10} {
		e, queues, wires := hotNAT(t, hot{flows: 1000}, nports)
		w, q := e.workers[0], queues[0]
		got := testing.AllocsPerRun(100, func() {
			w.handle(q)
			w.flows.Quiesce(0)
		})
		if got != 0 {
			t.Errorf("%d ports: %v allocations a burst", nports, got)
		}
		if none := len(e.Drops()) == 0; none != (nports == 4000) || wires[0].wrong != 0 {
			t.Errorf("%d ports: drops %+v, %d packets are not the node's", nports, e.Drops(), wires[0].wrong)
		}
	}
}
