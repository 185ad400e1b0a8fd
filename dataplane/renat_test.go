package dataplane

import (
	"net/netip"
	"testing"

	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// A pod that goes on sending keeps its flow alive for ever: what has been decided when less
// was known, or for an address that the node has no more, is decided anew.
func TestTranslationFollowsTheNode(t *testing.T) {
	h := natNode(t, 61009)
	send := func() []byte {
		t.Helper()
		if out := h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.UDP(4711, 80), kit.Payload(8))); len(out) == 1 {
			return out[0].Data
		}
		return h.received().Data
	}
	back := func(f []byte) {
		t.Helper()
		src, dst := ports(t, f)
		one(t, h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, node1), kit.UDP(dst, src), kit.Payload(8))))
	}
	full := *h.e.Tables().Node()

	// Before it is known which pods are translated, as at the start.
	bare := full
	bare.NAT = fib.NAT{}
	h.table.SetNode(bare)
	h.commit()
	kit.CheckPacket(t, send(), kit.Src(ipA))
	h.table.SetNode(full)
	h.commit()
	out := send()
	kit.CheckPacket(t, out, kit.Src(node1))
	back(out)

	// The node's address is another one.
	moved := full
	moved.Addr4 = packet.AddrFrom(netip.MustParseAddr("192.168.0.77"))
	h.table.SetNode(moved)
	h.commit()
	kit.CheckPacket(t, send(), kit.Src("192.168.0.77"))
	h.table.SetNode(full)
	h.commit()
	kit.CheckPacket(t, send(), kit.Src(node1))

	// Another change of the tables leaves the port as it is.
	before, _ := ports(t, send())
	h.route("198.18.0.0/15", fib.Adjacency{Kind: fib.KindBlackhole, Ready: true, MTU: 65535})
	if now, _ := ports(t, send()); now != before {
		t.Errorf("from port %d on, before from %d", now, before)
	}

	// What was thought to be out of the cluster is a Service.
	_, host := hostAdjacency(h.e.Tables(), false)
	h.route(outside+"/32", *host)
	kit.CheckPacket(t, send(), kit.Src(ipA), kit.Dst(outside), kit.WithPorts(4711, 80))
	h.wantDrops(drop.None, 0)
}

// A connection that is answered at the pod's own address keeps it.
func TestAnsweredKeepsItsSource(t *testing.T) {
	h := natNode(t, 61009)
	full := *h.e.Tables().Node()
	bare := full
	bare.NAT, bare.Routed = fib.NAT{}, true
	h.table.SetNode(bare)
	h.commit()
	send := func() []byte {
		t.Helper()
		return one(t, h.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, outside), kit.UDP(4711, 80), kit.Payload(8)))).Data
	}
	kit.CheckPacket(t, send(), kit.Src(ipA))
	one(t, h.fromWire("a", kit.Frame(t, kit.Eth(routerMAC, nic1), kit.IP4(outside, ipA), kit.UDP(80, 4711), kit.Payload(8))))
	full.Routed = true
	h.table.SetNode(full)
	h.commit()
	kit.CheckPacket(t, send(), kit.Src(ipA))
	h.wantDrops(drop.None, 0)
}
