package dataplane

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"culvert/internal/drop"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// FuzzFragments takes fragments of any kind in any order through a node: what
// leaves of a datagram never overlaps and comes behind its first fragment, and no
// memory is lost.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 0, 0, 5, 0})
	f.Add([]byte{0, 5, 0, 0, 2, 0, 0, 0, 0})
	f.Add([]byte{1, 4, 1, 1, 2, 3, 1, 0, 2, 8, 0, 0, 250, 0, 0})
	f.Add([]byte{0, 1, 0, 4, 1, 0, 0, 1, 9, 252, 3, 0, 16, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) { playFragments(t, script[:min(len(script), 600)]) })
}

// The same with random bytes.
func TestRandomFragments(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	for range 20 {
		script := make([]byte, 3000)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		playFragments(t, script)
	}
}

func playFragments(t *testing.T, script []byte) {
	n1, _ := pair6(t)
	list := []way{ways["pod to wire"], ways["wire to pod"], ways["pod to pod"], ways["pod to wire, IPv6"], ways["wire to pod, IPv6"], ways["pod to pod, IPv6"]}
	seen := map[string][]bool{}
	for ; len(script) >= 3; script = script[3:] {
		op, a, b := script[0], script[1], script[2]
		if op >= 250 {
			n1.clock += time.Duration(a%40) * time.Second
			n1.step()
			n1.w.expireFragments()
			continue
		}
		w := list[int(op)%len(list)]
		more := a&8 == 0
		n1.dev(w.in).Inject(w.fragment(t, n1, uint32(b&3), packet.ProtoUDP, int(a&7)*8, more, kit.Pattern(8*(1+int(a>>4&3)))))
		if b&4 != 0 {
			continue // more in the burst
		}
		n1.step()
		for _, w := range list {
			inner, _ := w.sent(t, n1)
			for _, f := range inner {
				checkLeft(t, seen, f)
			}
		}
	}
	n1.step()
}

// checkLeft notes a fragment that left, and fails if it may not have.
func checkLeft(t *testing.T, seen map[string][]bool, f []byte) {
	t.Helper()
	var info packet.Info
	if r := packet.Parse(f, len(f), &info); r != drop.None {
		t.Fatal(r)
	}
	if info.Flags&packet.Fragment == 0 {
		return
	}
	p := packet.PieceOf(f, &info)
	if p.Offset == 0 && !p.More {
		return
	}
	key := fmt.Sprint(info.Key.Src, info.Key.Dst, p.ID)
	units := seen[key]
	switch {
	case p.Offset == 0:
		units = make([]bool, 16) // a new datagram, maybe with an old identification
	case units == nil:
		t.Fatalf("%s: a fragment at %d left before the first one", key, p.Offset)
	}
	for u := p.Offset / 8; u*8 < p.Offset+p.Len; u++ {
		if units[u] {
			t.Fatalf("%s: byte %d left twice", key, u*8)
		}
		units[u] = true
	}
	seen[key] = units
}
