package dataplane

import (
	"bytes"
	"testing"

	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const jumboMTU = 8950

// jumboPair is a node with a pod and a way to another node that takes jumbo frames, by
// a device that takes chains of so many chunks.
func jumboPair(t *testing.T, chunks int) *testNode {
	n1, n2 := pair(t)
	dev := memport.New(n1.e.Pool(0))
	dev.Takes = frame.Limits{Chunks: chunks}
	port := n1.addPort(PortSpec{Name: "u1", Kind: PortUplink, MAC: n1.nic, MTU: 9000}, dev)
	adj := narrowTo(t, n1, n2, jumboMTU)
	adj.Port = port
	n1.route("10.244.3.0/24", adj)
	n1.uplink = dev
	return n1
}

// A jumbo frame is several chunks and leaves as such, its bytes as they came.
func TestJumboFrames(t *testing.T) {
	n := jumboPair(t, frame.MaxSegments)
	for _, size := range []int{1500, 3700, 3812, 3813, 3840, 3841, 4096, 7680, 8893, jumboMTU - 28} {
		f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "10.244.3.9", kit.DF()), kit.UDP(1, 2), kit.Payload(size))
		inner := kit.CheckVXLAN(t, one(t, n.fromPod("a", f)).Data, kit.WithPayload(kit.Pattern(size)))
		if len(inner) != 14+28+size {
			t.Errorf("%d bytes became %d", size, len(inner))
		}
	}
	sctp, whole := emptySCTP(t, "10.244.3.9", 8000)
	if inner := kit.CheckVXLAN(t, one(t, n.fromPod("a", sctp)).Data); !bytes.Equal(inner[34:], whole) {
		t.Error("SCTP: not what was sent, with its checksum")
	}
	n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "10.244.3.9", kit.DF()), kit.UDP(1, 2), kit.Payload(jumboMTU-27)))
	n.wantDrops(drop.TooBig, 1)
}

// A device that sends no chains, as a zero-copy driver may, takes what one chunk holds,
// and senders are told so.
func TestJumboFramesWithoutChains(t *testing.T) {
	n := jumboPair(t, 1)
	const most = 4096 - frame.Headroom
	send := func(size int, df bool) []memport.Sent {
		ip := kit.IP4(ipA, "10.244.3.9", kit.ID(5))
		if df {
			ip = kit.IP4(ipA, "10.244.3.9", kit.DF())
		}
		return n.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), ip, kit.UDP(1, 2), kit.Payload(size)))
	}
	kit.CheckVXLAN(t, one(t, send(most-14-28, true)).Data)
	if sent := send(8000, true); len(sent) != 0 {
		t.Fatalf("%d frames were sent", len(sent))
	}
	p := kit.CheckPacket(t, one(t, n.pods["a"].dev.TakeSent()).Data, kit.WithICMP(3, 4))
	if mtu := int(p.Data()[40])<<8 | int(p.Data()[41]); mtu != most {
		t.Errorf("MTU %d, want %d", mtu, most)
	}
	n.wantDrops(drop.TooBig, 1)
	sent := send(8000, false)
	if len(sent) != 3 {
		t.Fatalf("%d fragments, want 3", len(sent))
	}
	for _, s := range sent {
		kit.CheckVXLAN(t, s.Data)
	}
}

// VPP's scenarios of fragmentation (facts/vpp.md 5.1 to 5.3): a packet of 3,131 bytes is
// cut at 1,400 and at 576 into as many fragments as there; one of 1,450 bytes payload is
// cut in front of the tunnel, not behind it, so that the peer need not put anything
// together; the tunnel's MTU is what counts. What is cut holds the packet's bytes.
func TestFragmentsLikeVPP(t *testing.T) {
	for _, tt := range []struct {
		mtu     uint16
		payload int // of UDP
		want    int
	}{
		{1400, 3131 - 28, 3},
		{576, 3131 - 28, 6},
		{1600, 3131 - 28, 2},
		{600, 1450, 3},
		{1450, 1450, 2},
		{1450, 1422, 1},
		{1450, 1423, 2},
		{68, 400, 9},
		{1450, 65000 - 28, 46},
	} {
		n1, n2 := pair(t)
		n1.route("10.244.3.0/24", narrowTo(t, n1, n2, tt.mtu))
		f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "10.244.3.9", kit.ID(77)), kit.UDP(1, 2), kit.Payload(tt.payload))
		sent := n1.fromPod("a", f)
		if len(sent) != tt.want {
			t.Errorf("%d bytes at MTU %d: %d packets, want %d", tt.payload, tt.mtu, len(sent), tt.want)
		}
		var whole []byte
		for _, s := range sent {
			inner := kit.CheckVXLAN(t, s.Data)
			h := packet.IPv4(inner[14:])
			if h.TotalLen() > int(tt.mtu) {
				t.Errorf("MTU %d: a packet of %d bytes", tt.mtu, h.TotalLen())
			}
			whole = append(whole, inner[34:14+h.TotalLen()]...)
		}
		if string(whole[8:]) != string(kit.Pattern(tt.payload)) {
			t.Errorf("%d bytes at MTU %d came out as others", tt.payload, tt.mtu)
		}
	}
}

// VPP's test_mtu: the MTU of the way is what a packet is held against, in both
// families, to the byte.
func TestMTUToTheByte(t *testing.T) {
	n1, n2 := pair(t)
	for mtu := uint16(1280); mtu < 1284; mtu++ {
		n1.route("10.244.3.0/24", narrowTo(t, n1, n2, mtu))
		for _, over := range []int{-1, 0, 1, 2} {
			size := int(mtu) - 28 + over
			sent := n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, "10.244.3.9", kit.DF()), kit.UDP(1, 2), kit.Payload(size)))
			if passed := len(sent) == 1; passed != (over <= 0) {
				t.Errorf("MTU %d, %d more: passed %v", mtu, over, passed)
			}
			told := n1.pods["a"].dev.TakeSent()
			if len(told) == 1 != (over > 0) {
				t.Errorf("MTU %d, %d more: %d errors", mtu, over, len(told))
			}
		}
	}
	if encap.OverheadVXLAN4 != 50 || encap.OverheadVXLAN6 != 70 || encap.OverheadIPIP != 20 {
		t.Error("the overheads are not those of vxlan_core.c and ip_tunnel.c")
	}
}
