package dataplane

import (
	"testing"

	"culvert/dataplane/flow"
	"culvert/internal/drop"
	kit "culvert/internal/pkttest"
)

// fromB is a frame that node 2 sends for pod b to pod a.
func fromB(t *testing.T, inner ...kit.Layer) []byte {
	t.Helper()
	outer := []kit.Layer{kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI), kit.Eth(vtep2, vtep1)}
	return kit.Frame(t, append(outer, inner...)...)
}

// toB is a TCP segment of pod a to pod b.
func toB(t *testing.T, flags string, seq, ack uint32, payload int) []byte {
	t.Helper()
	return kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(4711, 80, kit.Flags(flags), kit.Seq(seq), kit.Ack(ack)), kit.Payload(payload))
}

// opened is node 1 with a connection from pod a, 1001, to pod b, 5001.
func opened(t *testing.T) *testNode {
	t.Helper()
	n, _ := pair(t)
	one(t, n.fromPod("a", toB(t, "S", 1000, 0, 0)))
	one(t, n.fromWire("a", fromB(t, kit.IP4(ipB, ipA), kit.TCP(80, 4711, kit.Flags("SA"), kit.Seq(5000), kit.Ack(1001)))))
	one(t, n.fromPod("a", toB(t, "A", 1001, 5001, 100)))
	n.wantDrops(drop.None, 0)
	return n
}

// What is not in the connection's window goes no further, and changes nothing.
func TestSegmentsOutOfWindowAreDropped(t *testing.T) {
	for name, f := range map[string]func(t *testing.T) []byte{
		"far beyond":            func(t *testing.T) []byte { return toB(t, "A", 900_000, 5001, 10) },
		"acknowledges too much": func(t *testing.T) []byte { return toB(t, "A", 1101, 9001, 10) },
		"SYN and FIN":           func(t *testing.T) []byte { return toB(t, "SF", 1101, 5001, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			n := opened(t)
			n.pods["a"].dev.Inject(f(t))
			n.step()
			n.wantDrops(drop.FlowInvalid, 1)
			if sent := n.uplink.TakeSent(); len(sent) != 0 {
				t.Errorf("%d frames were sent", len(sent))
			}
			for v := range n.e.FlowTable().Range {
				if v.Packets != [2]uint64{2, 1} || v.State != flow.Established {
					t.Errorf("%+v", v)
				}
			}
			one(t, n.fromPod("a", toB(t, "A", 1101, 5001, 10)))
		})
	}
}

// A connection that was established before a restart goes on, whatever comes
// first, and ends as it should.
func TestAfterARestart(t *testing.T) {
	for _, flags := range []string{"A", "FA", "R", "SA", "RA"} {
		n, _ := pair(t)
		one(t, n.fromPod("a", toB(t, flags, 1101, 5001, 0)))
		if got, want := n.e.FlowTable().Len(), 1; flags != "A" && got != 0 || flags == "A" && got != want {
			t.Errorf("%s: %d flows", flags, got)
		}
		one(t, n.fromWire("a", fromB(t, kit.IP4(ipB, ipA), kit.TCP(80, 4711, kit.Seq(9_000_000), kit.Ack(1102)))))
		n.wantDrops(drop.None, 0)
	}
	n, _ := pair(t)
	n.pods["a"].dev.Inject(toB(t, "", 1, 1, 0), toB(t, "FPU", 1, 1, 0))
	n.step()
	n.wantDrops(drop.FlowInvalid, 2)
}

// A pod that floods shuts out itself: not others, and not the wire.
func TestFloodOfOnePod(t *testing.T) {
	n, _ := pair(t)
	limit := flow.OwnerLimit(n.e.FlowTable().Capacity())
	const extra = 100
	for i := range limit + extra {
		n.pods["a"].dev.Inject(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB),
			kit.TCP(uint16(1+i%60000), uint16(1+i/60000), kit.Flags("S"))))
		if i%100 == 0 {
			n.step()
			n.uplink.TakeSent()
		}
	}
	n.step()
	n.uplink.TakeSent()
	n.wantDrops(drop.FlowLimit, extra)
	one(t, n.fromPod("c", kit.Frame(t, kit.Eth(n.pods["c"].mac.String(), gwMAC), kit.IP4(ipC, ipB), kit.TCP(1, 2, kit.Flags("S")))))
	one(t, n.fromWire("a", fromB(t, kit.IP4(ipB, ipA), kit.TCP(1, 2, kit.Flags("S")))))
}

// An ICMP error reaches a pod if it is about what the pod has sent.
func TestErrorsOfFlowsOnly(t *testing.T) {
	const fragNeeded, unreachable, exceeded = 4, 3, 11
	quote := func(f []byte, n int) kit.Layer { return kit.Bytes(f[14 : 14+n]...) }
	segment := func(t *testing.T) []byte { return toB(t, "A", 1001, 5001, 100) }
	for name, c := range map[string]struct {
		frame func(t *testing.T) []byte
		want  drop.Reason
	}{
		"path MTU": {func(t *testing.T) []byte {
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(unreachable, fragNeeded, 0, 1400), quote(segment(t), 28))
		}, drop.None},
		"from the pod itself": {func(t *testing.T) []byte {
			return fromB(t, kit.IP4(ipB, ipA), kit.ICMP4(unreachable, 3, 0, 0), quote(segment(t), 60))
		}, drop.None},
		"traceroute": {func(t *testing.T) []byte {
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(exceeded, 0, 0, 0), quote(udpAB(t, 30), 28))
		}, drop.None},
		"another port": {func(t *testing.T) []byte {
			f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(4712, 80))
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(unreachable, 1, 0, 0), quote(f, 28))
		}, drop.ICMPUnrelated},
		"a sequence number that was never sent": {func(t *testing.T) []byte {
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(unreachable, 1, 0, 0), quote(toB(t, "A", 1102, 5001, 0), 28))
		}, drop.ICMPUnrelated},
		"what the pod has received": {func(t *testing.T) []byte {
			f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipB, ipA), kit.TCP(80, 4711, kit.Seq(5001)))
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(unreachable, 1, 0, 0), quote(f, 28))
		}, drop.ICMPUnrelated},
		"too short a quote": {func(t *testing.T) []byte {
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(unreachable, 1, 0, 0), quote(segment(t), 27))
		}, drop.ICMPUnrelated},
		"nothing": {func(t *testing.T) []byte {
			return fromB(t, kit.IP4(node2, ipA), kit.ICMP4(unreachable, 1, 0, 0))
		}, drop.ICMPUnrelated},
	} {
		t.Run(name, func(t *testing.T) {
			n := opened(t)
			one(t, n.fromPod("a", udpAB(t, 30)))
			got := n.fromWire("a", c.frame(t))
			if c.want == drop.None {
				kit.CheckPacket(t, one(t, got).Data, kit.Dst(ipA), kit.WithProto(1))
				n.wantDrops(drop.None, 0)
				return
			}
			n.wantDrops(c.want, 1)
		})
	}
}
