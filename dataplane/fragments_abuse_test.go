package dataplane

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"culvert/dataplane/frag"
	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// What is wrong with fragments is counted under its reason, and never reaches the
// other side; on every way.
func TestUnsoundFragments(t *testing.T) {
	type part struct {
		offset, n int
		more      bool
	}
	udp := uint8(packet.ProtoUDP)
	for _, tt := range []struct {
		name   string
		proto  uint8
		parts  []part
		left   int
		reason drop.Reason
		drops  uint64
	}{
		{"overlap", udp, []part{{0, 80, true}, {72, 80, true}, {152, 5, false}, {80, 72, true}}, 1, drop.FragmentOverlap, 3},
		{"overlap before the first", udp, []part{{72, 80, true}, {80, 80, true}, {0, 72, true}}, 0, drop.FragmentOverlap, 3},
		{"first overlaps", udp, []part{{72, 80, true}, {0, 80, true}}, 0, drop.FragmentOverlap, 2},
		{"duplicate", udp, []part{{0, 80, true}, {80, 80, true}, {80, 80, true}, {160, 9, false}}, 3, drop.FragmentDuplicate, 1},
		{"two ends", udp, []part{{0, 80, true}, {160, 80, false}, {80, 72, false}, {80, 80, true}}, 2, drop.FragmentEnd, 2},
		{"tiny UDP", 132, []part{{0, 8, true}}, 0, drop.FragmentTiny, 1},
		{"tiny TCP", 6, []part{{0, 16, true}}, 0, drop.FragmentTiny, 1},
		{"in the TCP header", 6, []part{{8, 16, true}}, 0, drop.FragmentTiny, 1},
		{"odd length", udp, []part{{0, 81, true}}, 0, drop.FragmentLength, 1},
		{"empty", udp, []part{{80, 0, false}}, 0, drop.FragmentLength, 1},
		{"ping of death", udp, []part{{65528, 80, false}}, 0, drop.FragmentOversize, 1},
		{"too many before the first", udp, func() (all []part) {
			for i := range maxHeldEach + 1 {
				all = append(all, part{80 + 8*i, 8, true})
			}
			return append(all, part{0, 80, true})
		}(), 0, drop.FragmentTableFull, maxHeldEach + 2},
	} {
		for name, w := range ways {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				n1, _ := pair6(t)
				for _, p := range tt.parts {
					n1.dev(w.in).Inject(w.fragment(t, n1, 9, tt.proto, p.offset, p.more, kit.Pattern(p.n)))
				}
				n1.step()
				if inner, _ := w.sent(t, n1); len(inner) != tt.left {
					t.Errorf("%d fragments left, want %d", len(inner), tt.left)
				}
				n1.wantDrops(tt.reason, tt.drops)
			})
		}
	}
}

// Fragments whose first one never comes are given up, counted where they came in,
// and their memory is free again.
func TestOrphans(t *testing.T) {
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			n1, _ := pair6(t)
			free := n1.w.pool.FreeChunks()
			n1.dev(w.in).Inject(w.datagram(t, n1, 1, 4)[1:]...)
			n1.dev(w.in).Inject(w.datagram(t, n1, 2, 2)[1:]...)
			n1.step()
			n1.wantDrops(drop.None, 0)
			timeout := time.Duration(frag.Timeout4)
			if w.v6 {
				timeout = frag.Timeout6
			}
			n1.clock = (timeout - 1) * time.Second
			n1.step()
			n1.w.expireFragments()
			n1.wantDrops(drop.None, 0)
			if got := n1.e.WorkerStats()[0].Fragments; got != (FragmentStats{Datagrams: 2, Held: 4}) {
				t.Errorf("a second before: %+v", got)
			}
			n1.clock += time.Second
			n1.step()
			n1.w.expireFragments()
			n1.wantDrops(drop.FragmentOrphan, 4)
			if got := n1.e.WorkerStats()[0].Fragments; got != (FragmentStats{Expired: 2}) {
				t.Errorf("afterwards: %+v", got)
			}
			if got := n1.w.pool.FreeChunks(); got != free {
				t.Errorf("%d chunks are free, want %d", got, free)
			}
		})
	}
}

// A worker gives up a bounded number of datagrams at a time.
func TestExpiryIsBounded(t *testing.T) {
	n1, _ := pair(t)
	w := ways["pod to wire"]
	for id := range uint32(3 * expirePerTick / 2) {
		n1.dev("a").Inject(w.datagram(t, n1, id, 2)[1])
	}
	n1.step()
	n1.clock = time.Minute
	n1.step()
	n1.w.expireFragments()
	n1.wantDrops(drop.FragmentOrphan, expirePerTick)
	n1.w.expireFragments()
	n1.wantDrops(drop.FragmentOrphan, 3*expirePerTick/2)
}

// Frames that wait go with the port that they came by.
func TestHeldFramesGoWithTheirPort(t *testing.T) {
	n1, _ := pair(t)
	n1.dev("a").Inject(ways["pod to wire"].datagram(t, n1, 1, 3)[1:]...)
	n1.dev("c").Inject(way{"c", "", ipC, ipB, false}.datagram(t, n1, 1, 3)[1:]...)
	n1.step()
	if err := n1.e.RemovePort(n1.pods["a"].port); err != nil {
		t.Fatal(err)
	}
	n1.wantDrops(drop.PortGone, 2)
	if got := n1.w.frags.tracker.Stats(); got.Held != 2 {
		t.Errorf("the other pod's: %+v", got)
	}
}

// Nobody takes part in another one's datagram, or takes its place.
func TestFragmentsAreNotSpoofed(t *testing.T) {
	n1, _ := pair(t)
	w := ways["pod to wire"]
	frames := w.datagram(t, n1, 7, 3)
	n1.dev("a").Inject(frames[0])
	spoofed := way{"c", "", ipA, ipB, false}
	for i := range 3 {
		n1.dev("c").Inject(spoofed.datagram(t, n1, 7, 3)[i])
	}
	n1.step()
	n1.dev("a").Inject(frames[1:]...)
	n1.step()
	if inner, _ := w.sent(t, n1); len(inner) != 3 {
		t.Errorf("%d fragments left, want 3", len(inner))
	}
	n1.wantDrops(drop.SpoofedSource, 3)

	// From the wire, by what is no node; and by a node that sends what is another's.
	n1, _ = pair(t)
	f := ways["wire to pod"].datagram(t, n1, 7, 3)
	stranger := func(f []byte) []byte { return kit.FixIP4(kit.Corrupt(bytes.Clone(f), 14+12, 192, 168, 0, 99)) }
	n1.uplink.Inject(f[0], stranger(f[1]), stranger(f[2]), f[1], f[2])
	n1.step()
	if inner, _ := ways["wire to pod"].sent(t, n1); len(inner) != 3 {
		t.Errorf("%d fragments arrived, want 3", len(inner))
	}
	n1.wantDrops(drop.TunnelUnknownPeer, 2)
}

// One pod's flood of fragments does not cost another one's datagrams.
func TestFragmentFlood(t *testing.T) {
	n1, _ := pair(t)
	w, flood := ways["pod to wire"], way{"c", "", ipC, ipB, false}
	good := w.datagram(t, n1, 1, 4)
	n1.dev("a").Inject(good[0])
	n1.dev("a").Inject(w.datagram(t, n1, 2, 4)[2])
	n1.step()
	w.sent(t, n1)
	rng := rand.New(rand.NewPCG(1, 2))
	template := flood.fragment(t, n1, 0, packet.ProtoUDP, 80, true, kit.Pattern(8))
	firsts := flood.fragment(t, n1, 0, packet.ProtoUDP, 0, true, kit.Pattern(8))
	for range 200 {
		for range 32 {
			for _, f := range [][]byte{template, firsts} {
				n1.dev("c").Inject(kit.FixIP4(kit.Corrupt(bytes.Clone(f), 14+4, byte(rng.Uint32()), byte(rng.Uint32()))))
			}
		}
		n1.step()
	}
	w.sent(t, n1)
	n1.dev("a").Inject(good[1:]...)
	n1.dev("a").Inject(w.datagram(t, n1, 2, 4)[0])
	n1.step()
	if inner, _ := w.sent(t, n1); len(inner) != 3+2 {
		t.Errorf("%d fragments left, want 5", len(inner))
	}
	if used := n1.w.frags.chunks(); used > maxHeld/2+1 {
		t.Errorf("the flood holds %d chunks", used)
	}
}

// A panic while a frame that waited is handled costs that one and what is left
// of its datagram.
func TestPanicWithHeldFrames(t *testing.T) {
	n1, _ := pair(t)
	n1.e.cfg.Checked = false
	w := ways["pod to wire"]
	frames := w.datagram(t, n1, 1, 5)
	n1.dev("a").Inject(frames[1], frames[2], frames[3])
	n1.step()
	for h := range n1.w.frags.held {
		if s := &n1.w.frags.held[h]; s.in != nil && offsetOf(t, n1.w.pool.Bytes(s.frame.Addr, s.frame.Len)) == 80 {
			s.rec.info.L3 = 60000
		}
	}
	n1.dev("a").Inject(frames[0], frames[4])
	n1.step()
	if inner, _ := w.sent(t, n1); len(inner) != 3 {
		t.Errorf("%d fragments left, want 3", len(inner))
	}
	n1.wantDrops(drop.Bug, 2)
}
