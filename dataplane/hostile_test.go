package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/memport"
	kit "culvert/internal/pkttest"
)

// A pod's kernel says with every frame what is partial in it and what it is to be cut
// into, and a packet socket in the pod can make it say anything. No frame is lost or used
// twice whatever it says (the engine is checked), none makes the worker panic, and what
// leaves is within the devices' limits and describes itself.
func TestPodsMaySayAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	limits := []frame.Limits{{Chunks: 1}, {Chunks: 3}, gather, bigPod, bigUplink, {Offload: frame.OffloadTCP, Chunks: 18, Bytes: 65535 + 14}}
	for range 6 {
		n1, _ := pair(t)
		n1.limit(n1.upPort, limits[r.IntN(len(limits))])
		n1.limit(n1.pods["c"].port, limits[r.IntN(len(limits))])
		n1.limit(n1.pods["a"].port, limits[r.IntN(len(limits))])
		outer := kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI), kit.Eth(vtep2, vtep1))
		outer = outer[:50]
		for range 150 {
			for range 1 + r.IntN(20) {
				sayAnything(t, r, n1.pods["a"].dev, nil, ipA, ipB, ipC)
				sayAnything(t, r, n1.uplink, outer, ipB, ipA, ipC)
			}
			n1.clock += time.Duration(r.IntN(3)) * time.Second
			n1.step()
			n1.w.expireFragments()
			for _, s := range slices.Concat(n1.uplink.TakeSent(), n1.pods["a"].dev.TakeSent(), n1.pods["c"].dev.TakeSent()) {
				checkSent(t, s)
			}
			if t.Failed() {
				return
			}
		}
		n1.clock += 100 * time.Second
		for range 20 {
			n1.w.now = n1.e.Now()
			n1.w.expireFragments()
		}
	}
}

// sayAnything injects a frame that is more or less what a pod sends, or, with outer
// headers in front, the kernel's GRO makes of what comes from the wire.
func sayAnything(t *testing.T, r *rand.Rand, dev *memport.Device, outer []byte, from string, to ...string) {
	ip := kit.IP4(from, to[r.IntN(2)], kit.ID(uint16(r.IntN(4))))
	size := []int{0, 1, 60, 1400, 1411, 5000, 30000, 65000}[r.IntN(8)] + r.IntN(30)
	var f []byte
	switch r.IntN(6) {
	case 0, 1:
		f = kit.Frame(t, kit.Eth(macA, gwMAC), ip, kit.TCP(uint16(4711+r.IntN(3)), 80, kit.Flags([]string{"A", "AP", "S", "FA"}[r.IntN(4)]), kit.Seq(1000)), kit.Payload(size))
	case 2:
		f = kit.Frame(t, kit.Eth(macA, gwMAC), ip, kit.UDP(5, 6), kit.Payload(size))
	case 3:
		f = kit.Frame(t, kit.Eth(macA, gwMAC), ip, kit.SCTP(5, 6), kit.Payload(size))
		clear(f[42:46])
	case 4:
		f = kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(from, to[r.IntN(2)], kit.ID(uint16(r.IntN(4))), kit.Fragment(8*r.IntN(200), r.IntN(2) == 0), kit.Proto([]uint8{6, 17, 132}[r.IntN(3)])), kit.Payload(8*r.IntN(500)))
	default:
		f = kit.Frame(t, kit.Eth(macA, gwMAC), ip, kit.ICMP4(8, 0, 1, 1), kit.Payload(size))
	}
	for range r.IntN(3) {
		f[12+r.IntN(min(len(f), 80)-12)] = byte(r.Uint32())
	}
	if r.IntN(4) != 0 {
		f = kit.FixIP4(f)
	}
	if outer != nil {
		copy(f, vtepMACs)
		f = kit.FixIP4(kit.Join(outer, f))
		binary.BigEndian.PutUint16(f[16:], uint16(min(len(f)-14, 65535)))
		binary.BigEndian.PutUint16(f[38:], uint16(min(len(f)-34, 65535)))
		f = kit.FixIP4(f)
	}
	switch r.IntN(4) {
	case 0:
		dev.Inject(f)
	case 1:
		start := 14 + r.IntN(len(f)-14)
		dev.InjectPartial(f, uint16(start), uint16(r.IntN(40)))
	default:
		kinds := []frame.Flags{frame.SegTCP4, frame.SegTCP6, frame.SegUDP, frame.SegTCP4 | frame.SegCWR}
		dev.InjectBig(f, []int{1, 47, 48, 536, 1000, 1410, 1411, 9000, 65535}[r.IntN(9)], kinds[r.IntN(len(kinds))])
	}
}

// vtepMACs are what a frame to node 1 in a tunnel begins with.
var vtepMACs = []byte{0x66, 0, 0, 0, 0, 1, 0x66, 0, 0, 0, 0, 2}

// checkSent checks what every device may rely on.
func checkSent(t *testing.T, s memport.Sent) {
	t.Helper()
	big := s.SegSize != 0
	switch {
	case big && (s.Flags&frame.CsumPartial == 0 || s.Flags&frame.SegKinds == 0 || s.HeaderLen >= len(s.Data)):
		t.Errorf("a big frame without what it needs: %s", offloads(s))
	case !big && s.Flags&frame.SegKinds != 0:
		t.Errorf("a kind and no size: %s", offloads(s))
	case s.Flags&frame.CsumPartial != 0 && s.CsumStart+s.CsumOffset+2 > len(s.Data):
		t.Errorf("a checksum behind the end: %s", offloads(s))
	}
	if total := int(binary.BigEndian.Uint16(s.Data[16:])); total != len(s.Data)-14 && (total != 0 || len(s.Data) <= 65535+14) {
		t.Errorf("an IP packet of %d bytes in %s", total, offloads(s))
	}
}
