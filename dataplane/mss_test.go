package dataplane

import (
	"testing"

	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// mssOf is the maximum segment size option of a plain frame's SYN.
func mssOf(t *testing.T, f []byte) uint16 {
	t.Helper()
	var info packet.Info
	if r := packet.Parse(f, len(f), &info); r != 0 {
		t.Fatal(r)
	}
	mss, ok := packet.TCP(f[info.L4:]).MSSOption()
	if !ok {
		t.Fatal("no option")
	}
	return mss
}

// VPP's test_mss_clamp: SYNs that go through the tunnel, either way, announce what
// fits it, and only those.
func TestMSSClamp(t *testing.T) {
	for _, clamp := range []bool{false, true} {
		n1, _ := pair(t)
		n1.e.cfg.MSSClamp = clamp
		n1.uplink.Complete = true
		want := func(what string, got, announced, clamped uint16) {
			t.Helper()
			if !clamp {
				clamped = announced
			}
			if got != clamped {
				t.Errorf("clamping %v: %s: %d, want %d", clamp, what, got, clamped)
			}
		}
		syn := func(sport, mss uint16) []byte {
			return kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(sport, 80, kit.Flags("S"), kit.Seq(9), kit.MSS(mss)))
		}
		sent := func(f []byte) uint16 {
			t.Helper()
			return mssOf(t, kit.CheckVXLAN(t, one(t, n1.fromPod("a", f)).Data))
		}
		want("a SYN into the tunnel", sent(syn(1000, 1460)), 1460, podMTU-40)
		want("one that fits", sent(syn(1001, 1300)), 1300, 1300)
		want("one with a checksum to complete", sent(kit.SetPartial(syn(1002, 8960))), 8960, podMTU-40)

		fromB := func(sport uint16, flags string, mss uint16) []byte {
			return kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
				kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.TCP(80, sport, kit.Flags(flags), kit.Seq(99), kit.Ack(10), kit.MSS(mss)))
		}
		arrived := func(f []byte) uint16 {
			t.Helper()
			got := one(t, n1.fromWire("a", f)).Data
			kit.CheckPacket(t, got)
			return mssOf(t, got)
		}
		want("the answer to it, of a peer that does not clamp", arrived(fromB(1000, "SA", 8960)), 8960, podMTU-40)
		want("a SYN out of the tunnel", arrived(fromB(1500, "S", 1460)), 1460, podMTU-40)

		n1.pods["a"].dev.Inject(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipC), kit.TCP(1003, 80, kit.Flags("S"), kit.MSS(1460))))
		n1.step()
		if got := mssOf(t, one(t, n1.pods["c"].dev.TakeSent()).Data); got != 1460 {
			t.Errorf("on one node: %d, want 1460", got)
		}
	}
}
