package intake

import (
	"bytes"
	"encoding/binary"
	"testing"

	"culvert/dataplane/frame"
)

// Small and GSO frames of two pods come with their port, their bytes, and what the
// pod's kernel said of them.
func TestTake(t *testing.T) {
	r := newRig(t, 1)
	pods := []*pod{r.addPod(), r.addPod()}
	for i, p := range pods {
		for _, c := range []struct{ n, size int }{{10, 0}, {1400, 0}, {3000, 1000}, {64000, 1448}} {
			sent := segment(p.mac, 1000, 1, c.n, c.size)
			p.send(t, sent)
			got := r.expect(1)[0]
			want := frame.Tag{Port: uint16(100 + i), Genuine: true, Stamp: got.tag.Stamp}
			if !got.tagged || got.tag != want {
				t.Errorf("pod %d, %d bytes: tagged %t, %+v", i, c.n, got.tagged, got.tag)
			}
			copy(got.bytes[6:], p.mac[:])
			if !bytes.Equal(got.bytes, sent[10:]) {
				t.Errorf("pod %d: of %d bytes came %d, or others", i, len(sent)-10, len(got.bytes))
			}
			if c.size == 0 {
				continue
			}
			if int(got.SegSize) != c.size || got.Flags != frame.CsumPartial|frame.SegTCP4 || got.CsumStart != 34 || got.CsumOffset != 16 {
				t.Errorf("pod %d: %+v", i, got.Frame)
			}
		}
	}
	if got := r.stats(); got != (frame.DeviceStats{Wakeups: got.Wakeups}) {
		t.Errorf("counters %+v", got)
	}
}

// A frame longer than a chunk that is not to be cut is small all the same.
func TestTakeJumbo(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod(mtu9000)
	sent := segment(p.mac, 1, 1, 8900, 0)
	big := segment(p.mac, 1, 2, 30000, 8000)
	for range 3 {
		p.send(t, sent)
		p.send(t, big)
		p.send(t, sent)
		for i, got := range r.expect(3) {
			want := [][]byte{sent, big, sent}[i]
			copy(got.bytes[6:], p.mac[:])
			if !bytes.Equal(got.bytes, want[10:]) || (got.SegSize != 0) != (i == 1) {
				t.Errorf("of %d bytes came %d, or others: %+v", len(want)-10, len(got.bytes), got.Frame)
			}
		}
	}
}

// A frame beyond 64 KB, of a pod that may send such.
func TestTakeBeyond64K(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	allowBig(t, p.ns, "eth0")
	sent := segment(p.mac, 1, 1, 200<<10, 1448)
	p.send(t, sent)
	got := r.expect(1)[0]
	copy(got.bytes[6:], p.mac[:])
	if !bytes.Equal(got.bytes, sent[10:]) || got.SegSize != 1448 {
		t.Errorf("of %d bytes came %d, or others, to be cut to %d", len(sent)-10, len(got.bytes), got.SegSize)
	}
}

// A frame from an address that is not the pod's says so.
func TestSpoofedSource(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	for bit := range 48 {
		mac := p.mac
		mac[bit/8] ^= 1 << (bit % 8)
		p.send(t, segment(mac, 1, 1, 10, 0))
		p.send(t, segment(mac, 1, 1, 3000, 1000))
		for _, got := range r.expect(2) {
			if !got.tagged || got.tag.Genuine || got.tag.Port != 100 {
				t.Fatalf("bit %d was changed: %+v", bit, got.tag)
			}
		}
	}
}

// Frames with a VLAN tag of a pod's arrive, and say that they had one: the kernel
// has taken it out. Of two the inner one is left.
func TestTaggedByVLANFromPod(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	for _, c := range []struct{ n, size int }{{10, 0}, {3000, 1000}} {
		plain := segment(p.mac, 1, 1, c.n, c.size)
		one := withVLAN(plain, 0x8100)
		if c.size != 0 {
			binary.NativeEndian.PutUint16(one[2:], 58)
		}
		binary.NativeEndian.PutUint16(one[6:], 38) // the checksum is behind the tag
		two := withVLAN(withVLAN(segment(p.mac, 1, 1, 10, 0), 0x8100), 0x88a8)
		clear(two[:10])
		for name, b := range map[string][]byte{"none": plain, "one": one, "two": two} {
			p.send(t, b)
			got := r.expect(1)[0]
			if !got.tagged || got.tag.Port != 100 || !got.tag.Genuine || got.tag.VLAN != (name != "none") {
				t.Errorf("%d bytes, VLAN tags %s: tagged %t, %+v", c.n, name, got.tagged, got.tag)
			}
		}
	}
}

// The device of a pod that has no port drops what the pod sends; so does nobody
// else see it.
func TestPodWithoutPort(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	seen := packetSocketAll(t, r.node, p.name)
	if err := r.in.coll.Maps[intakeMapPorts].Delete(uint32(p.attach.ifindex)); err != nil {
		t.Fatal(err)
	}
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	p.send(t, segment(p.mac, 1, 1, 3000, 1000))
	seen.wait(t, 2) // they reached the node
	r.expect(0)
	if n := r.stats().RxFailed; n != 2 {
		t.Errorf("%d frames are counted, want 2", n)
	}
	if ip := counter4(t, r.node, "InReceives"); ip != 0 {
		t.Errorf("%d packets reached the node's IP stack", ip)
	}
}

// A worker without a socket: what is for it is counted, also when all is closed.
func TestQueueWithoutSocket(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	if err := r.in.coll.Maps[intakeMapSockets].Delete(uint32(0)); err != nil {
		t.Fatal(err)
	}
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	r.expect(0)
	if n := r.stats().RxFailed; n != 1 {
		t.Errorf("%d frames are counted, want 1", n)
	}
	r.node.Do(t, func() {
		if err := r.in.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if n := r.stats().RxFailed; n != 1 {
		t.Errorf("%d frames are counted at the end, want 1", n)
	}
}

// What somebody sends by hand to the intake's devices is not tagged, and stops
// nothing.
func TestForeignFrames(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	var near [6]byte
	copy(near[:], nearMAC)
	for _, suffix := range []string{smallSuffix, bulkSuffix} {
		hand := &pod{sock: packetSocket(t, r.node, r.in.name+suffix, 0)}
		hand.send(t, segment(near, 1, 1, 10, 0))
		hand.send(t, segment(near, 1, 1, 3000, 1000))
		p.send(t, segment(p.mac, 1, 1, 3000, 1000))
		p.send(t, segment(p.mac, 1, 1, 10, 0))
		tagged := 0
		for _, got := range r.expect(4) {
			if got.tagged {
				tagged++
			}
		}
		if tagged != 2 {
			t.Errorf("by %s: %d frames are tagged, want 2", suffix, tagged)
		}
	}
}
