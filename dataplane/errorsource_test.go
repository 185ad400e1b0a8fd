package dataplane

import (
	"testing"

	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// Errors that go back into a tunnel come from the tunnel address, as Linux's do, but
// for those that a traceroute shows; errors to the node's own pods from the node's.
func TestErrorSource(t *testing.T) {
	n1, _ := pair(t)
	n1.table.SetNode(fib.Node{
		Addr4: packet.AddrFrom(n1.addr), Tunnel4: packet.AddrFrom4(0x0af40100),
		VTEPs: []fib.LocalVTEP{{Addr: packet.AddrFrom(n1.addr), Port: testPort, VNI: testVNI, MAC: n1.mac}},
	})
	n1.commit()
	fromB := func(inner ...kit.Layer) []byte {
		return kit.Frame(t, append([]kit.Layer{kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort),
			kit.VXLANHeader(testVNI), kit.Eth(vtep2, vtep1)}, inner...)...)
	}
	back := func(frame []byte) []byte {
		t.Helper()
		n1.uplink.Inject(frame)
		n1.step()
		return kit.CheckVXLAN(t, one(t, n1.uplink.TakeSent()).Data)
	}
	big := fromB(kit.IP4(ipB, ipA, kit.DF()), kit.UDP(1, 2), kit.Payload(podMTU))
	kit.CheckPacket(t, back(big), kit.Src("10.244.1.0"), kit.Dst(ipB), kit.WithICMP(3, 4))
	last := fromB(kit.IP4(ipB, ipA, kit.TTL(1)), kit.UDP(1, 2))
	kit.CheckPacket(t, back(last), kit.Src(node1), kit.Dst(ipB), kit.WithICMP(11, 0))

	n1.pods["a"].dev.Inject(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.DF()), kit.UDP(1, 2), kit.Payload(podMTU)))
	n1.step()
	kit.CheckPacket(t, one(t, n1.pods["a"].dev.TakeSent()).Data, kit.Src(node1), kit.Dst(ipA), kit.WithICMP(3, 4))
	if got := n1.drops(drop.TooBig); got != 2 {
		t.Errorf("%d too big, want 2", got)
	}
}
