package dataplane

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"culvert/internal/drop"
	kit "culvert/internal/pkttest"
)

// bigTCP is a GSO frame as a pod sends it: up to 64 KB, checksum partial.
func bigTCP(t *testing.T, dst string, payload []byte) []byte {
	return kit.SetPartial(kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, dst, kit.DF(), kit.ID(500)),
		kit.TCP(4711, 80, kit.Flags("AP"), kit.Seq(1000)), kit.Bytes(payload...)))
}

// segments checks that the frames are a TCP stream from sequence number 1000
// and returns the payloads, joined.
func segments(t *testing.T, frames [][]byte, limit int) []byte {
	t.Helper()
	var got []byte
	for i, f := range frames {
		ip := f[14:]
		total := int(binary.BigEndian.Uint16(ip[2:]))
		if total > limit || total != len(ip) {
			t.Fatalf("segment %d: an IP packet of %d bytes in %d, limit %d", i, total, len(ip), limit)
		}
		if bad := kit.CheckSums(f); bad != "" {
			t.Fatalf("segment %d: %s", i, bad)
		}
		if seq := binary.BigEndian.Uint32(ip[24:]); seq != 1000+uint32(len(got)) {
			t.Fatalf("segment %d: sequence number %d, want %d", i, seq, 1000+len(got))
		}
		last := i == len(frames)-1
		if psh := ip[33]&8 != 0; psh != last {
			t.Errorf("segment %d: PSH %v", i, psh)
		}
		got = append(got, ip[40:]...)
	}
	return got
}

func TestBigFramesAreCutForTheWire(t *testing.T) {
	n1, n2 := pair(t)
	n1.uplink.Complete = true
	for _, size := range []int{1411, 2820, 3840, 20000, 64000} {
		payload := kit.Pattern(size)
		sent := n1.fromPod("a", bigTCP(t, ipB, payload))
		var inner [][]byte
		for _, s := range sent {
			if len(s.Data) > wireMTU+14 {
				t.Fatalf("%d bytes on the wire", len(s.Data))
			}
			inner = append(inner, kit.CheckVXLAN(t, s.Data, kit.OuterDst(node2)))
		}
		if got := segments(t, inner, podMTU); !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: the stream differs", size)
		}
		for _, s := range sent {
			n2.uplink.Inject(s.Data)
		}
		n2.step()
		if got := len(n2.pods["b"].dev.TakeSent()); got != len(sent) {
			t.Errorf("%d of %d segments arrived", got, len(sent))
		}
	}
	n1.wantDrops(drop.None, 0)
}

// Between pods of one node, and out of a tunnel over a wire that passes GSO.
func TestBigFramesAreCutForPods(t *testing.T) {
	n1, n2 := pair(t)
	n1.pods["c"].dev.Complete = true
	payload := kit.Pattern(30000)
	n1.fromPod("a", bigTCP(t, ipC, payload))
	var frames [][]byte
	for _, s := range n1.pods["c"].dev.TakeSent() {
		frames = append(frames, s.Data)
	}
	if got := segments(t, frames, podMTU); !bytes.Equal(got, payload) {
		t.Error("on one node: the stream differs")
	}

	n2.pods["b"].dev.Complete = true
	inner := bigTCP(t, ipB, payload)
	copy(inner, []byte{0x66, 0, 0, 0, 0, 2, 0x66, 0, 0, 0, 0, 1})
	super := kit.Frame(t, kit.Eth(nic1, nic2), kit.IP4(node1, node2), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI), kit.Bytes(inner...))
	frames = nil
	for _, s := range n2.fromWire("b", super) {
		frames = append(frames, s.Data)
	}
	if got := segments(t, frames, podMTU); !bytes.Equal(got, payload) {
		t.Error("out of the tunnel: the stream differs")
	}
}

// Segments respect what the receiver announced in its SYN.
func TestSegmentsRespectTheAnnouncedMSS(t *testing.T) {
	n1, _ := pair(t)
	n1.uplink.Complete = true
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(4711, 80, kit.Flags("S"), kit.Seq(999), kit.MSS(1410))))
	synAck := kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI),
		kit.Eth(vtep2, vtep1), kit.IP4(ipB, ipA), kit.TCP(80, 4711, kit.Flags("SA"), kit.Seq(1999), kit.Ack(1000), kit.MSS(536)))
	one(t, n1.fromWire("a", synAck))
	payload := kit.Pattern(5000)
	var inner [][]byte
	for _, s := range n1.fromPod("a", bigTCP(t, ipB, payload)) {
		inner = append(inner, kit.CheckVXLAN(t, s.Data))
	}
	if got := segments(t, inner, 536+40); !bytes.Equal(got, payload) {
		t.Error("the stream differs")
	}
}

// What is no GSO frame is fragmented where its sender allows, and comes
// together again to what was sent.
func TestFragmentation(t *testing.T) {
	n1, _ := pair(t)
	payload := kit.Pattern(4000)
	f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.ID(77)), kit.UDP(5, 6), kit.Bytes(payload...))
	for _, f := range [][]byte{f, kit.SetPartial(bytes.Clone(f))} {
		var whole []byte
		sent := n1.fromPod("a", f)
		for i, s := range sent {
			inner := kit.CheckVXLAN(t, s.Data)
			kit.CheckPacket(t, inner, kit.WithID(77), kit.WithFragment(len(whole), i < len(sent)-1), kit.WithTTL(63))
			whole = append(whole, inner[34:]...)
		}
		if len(sent) != 3 || !bytes.Equal(whole[8:], payload) {
			t.Errorf("%d fragments of %d bytes in all", len(sent), len(whole))
		}
		// The UDP checksum covers all of it: the fragments hold a complete one.
		udp := bytes.Clone(f)
		copy(udp[34:], whole)
		if bad := kit.CheckSums(udp); bad != "" {
			t.Error(bad)
		}
	}
	n1.wantDrops(drop.None, 0)
}

// emptySCTP is an SCTP packet as a pod's kernel sends it to a veth: its CRC32c is left
// to the device. whole is what has to arrive: the packet from the SCTP header on.
func emptySCTP(t *testing.T, dst string, size int) (f, whole []byte) {
	f = kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, dst, kit.ID(78)), kit.SCTP(5, 6), kit.Payload(size))
	copy(f[34+12:], []byte{0, 3, byte(size >> 8), byte(size)}) // one DATA chunk
	clear(f[34+8 : 34+12])
	whole = bytes.Clone(f[34:])
	binary.LittleEndian.PutUint32(whole[8:], crc32.Checksum(whole, crc32.MakeTable(crc32.Castagnoli)))
	return f, whole
}

// A fragment has no room for a CRC of its own: that of the packet is complete before
// it is cut.
func TestFragmentationCompletesSCTP(t *testing.T) {
	n1, _ := pair(t)
	for _, size := range []int{1600, 8000} { // one chunk, and a chain
		f, want := emptySCTP(t, ipB, size)
		sent := n1.fromPod("a", kit.Pad(f, 6))
		var whole []byte
		for i, s := range sent {
			inner := kit.CheckVXLAN(t, s.Data)
			kit.CheckPacket(t, inner, kit.WithID(78), kit.WithFragment(len(whole), i < len(sent)-1), kit.WithTTL(63))
			whole = append(whole, inner[34:]...)
		}
		if len(sent) < 2 || !bytes.Equal(whole, want) {
			t.Errorf("%d bytes: %d fragments of %d bytes in all, not what was sent", size, len(sent), len(whole))
		}
	}
	n1.wantDrops(drop.None, 0)
}

// Fragments of a datagram, the later ones without ports, all take one way.
func TestFragmentsAreForwarded(t *testing.T) {
	n1, n2 := pair(t)
	for _, f := range [][]byte{
		kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.ID(9), kit.Fragment(0, true), kit.Proto(17)), kit.Payload(1424)),
		kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.ID(9), kit.Fragment(1424, false), kit.Proto(17)), kit.Payload(100)),
	} {
		out := one(t, n1.fromPod("a", f)).Data
		got := one(t, n2.fromWire("b", out)).Data
		if !bytes.Equal(got[34:], f[34:]) {
			t.Error("a fragment arrived changed")
		}
	}
}

// Path MTU discovery: the pod hears the size that fits.
func TestFragNeededNamesThePodMTU(t *testing.T) {
	n1, _ := pair(t)
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB, kit.DF()), kit.ICMP4(8, 0, 1, 1), kit.Payload(1430)))
	got := one(t, n1.pods["a"].dev.TakeSent()).Data
	kit.CheckPacket(t, got, kit.Src(node1), kit.Dst(ipA), kit.WithICMP(3, 4))
	if mtu := binary.BigEndian.Uint16(got[14+20+6:]); mtu != podMTU {
		t.Errorf("next-hop MTU %d, want %d", mtu, podMTU)
	}
}

// A worker that runs out of chunks in the middle of a cut loses that frame, not
// its memory.
func TestCutWithoutMemory(t *testing.T) {
	n1, _ := pair(t)
	var hoard []uint64
	for {
		addr, ok := n1.w.pool.Alloc()
		if !ok {
			break
		}
		hoard = append(hoard, addr)
	}
	for range 20 { // enough for the big frame, not for all its segments
		n1.w.pool.Free(hoard[len(hoard)-1])
		hoard = hoard[:len(hoard)-1]
	}
	n1.uplink.Hold(true)
	n1.fromPod("a", bigTCP(t, ipB, kit.Pattern(60000)))
	n1.wantDrops(drop.NoBuffer, 1)
	n1.uplink.Hold(false)
	for _, addr := range hoard {
		n1.w.pool.Free(addr)
	}
}
