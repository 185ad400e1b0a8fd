package frag

import (
	"math/rand/v2"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
)

// usual are the sizes of a worker's tracker.
var usual = Config{Datagrams: 1024, Held: 256, HeldEach: 48, Chunks: 18, Ports: 4096}

func newTracker(t testing.TB, cfg Config) *Tracker {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"one datagram":       func(c *Config) { c.Datagrams = 1 },
		"too many datagrams": func(c *Config) { c.Datagrams = 65536 },
		"no room":            func(c *Config) { c.Held = 1 },
		"too many handles":   func(c *Config) { c.Held = 65535 },
		"none each":          func(c *Config) { c.HeldEach = 0 },
		"no chunks":          func(c *Config) { c.Chunks = 0 },
		"no ports":           func(c *Config) { c.Ports = 0 },
	} {
		cfg := usual
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// part is a fragment in units of 8 bytes; last has no more behind it.
type part struct {
	offset, n uint32
	last      bool
	want      Verdict
	reason    drop.Reason
}

// What becomes of each fragment of one datagram, and what is known afterwards.
func TestDatagrams(t *testing.T) {
	for name, tt := range map[string]struct {
		parts []part
		known int
	}{
		"in order":               {[]part{{n: 2}, {offset: 2, n: 2}, {offset: 4, n: 1, last: true}}, 0},
		"reverse":                {[]part{{offset: 4, n: 1, last: true, want: Hold}, {offset: 2, n: 2, want: Hold}, {n: 2}}, 0},
		"middle last":            {[]part{{n: 2}, {offset: 4, n: 1, last: true}, {offset: 2, n: 2}}, 0},
		"last one is missing":    {[]part{{n: 2}, {offset: 2, n: 2}}, 1},
		"one is missing":         {[]part{{n: 2}, {offset: 4, n: 1, last: true}}, 1},
		"the longest":            {[]part{{n: 8190}, {offset: 8190, n: 1, last: true}}, 0},
		"the longest, reverse":   {[]part{{offset: 8190, n: 1, last: true, want: Hold}, {n: 8190}}, 0},
		"duplicate":              {[]part{{n: 2}, {offset: 2, n: 2}, {offset: 2, n: 2, want: Drop, reason: drop.FragmentDuplicate}, {offset: 4, n: 1, last: true}}, 0},
		"duplicate of the first": {[]part{{n: 2}, {n: 2, want: Drop, reason: drop.FragmentDuplicate}, {offset: 2, n: 1, last: true}}, 0},
		"duplicate that waits":   {[]part{{offset: 2, n: 2, want: Hold}, {offset: 2, n: 2, want: Drop, reason: drop.FragmentDuplicate}, {n: 2}, {offset: 4, n: 1, last: true}}, 0},
		"duplicate of the last":  {[]part{{offset: 4, n: 1, last: true, want: Hold}, {offset: 4, n: 1, last: true, want: Drop, reason: drop.FragmentDuplicate}}, 1},
		"part of another":        {[]part{{n: 8}, {offset: 2, n: 2, want: Drop, reason: drop.FragmentDuplicate}}, 1},
		"overlap from behind": {[]part{{n: 4}, {offset: 3, n: 2, want: Drop, reason: drop.FragmentOverlap},
			{offset: 4, n: 1, last: true, want: Drop, reason: drop.FragmentOverlap}, {n: 4, want: Drop, reason: drop.FragmentOverlap}}, 1},
		"overlap from ahead":     {[]part{{n: 1}, {offset: 4, n: 4}, {offset: 2, n: 3, want: Drop, reason: drop.FragmentOverlap}}, 1},
		"overlap of all":         {[]part{{n: 1}, {offset: 4, n: 1}, {offset: 1, n: 8, want: Drop, reason: drop.FragmentOverlap}}, 1},
		"overlap before first":   {[]part{{offset: 2, n: 2, want: Hold}, {offset: 3, n: 2, want: Drop, reason: drop.FragmentOverlap}, {n: 2, want: Drop, reason: drop.FragmentOverlap}}, 1},
		"first overlaps":         {[]part{{offset: 2, n: 2, want: Hold}, {n: 3, want: Drop, reason: drop.FragmentOverlap}}, 1},
		"two ends, later":        {[]part{{n: 2}, {offset: 4, n: 1, last: true}, {offset: 5, n: 1, last: true, want: Drop, reason: drop.FragmentEnd}, {offset: 2, n: 2, want: Drop, reason: drop.FragmentEnd}}, 1},
		"two ends, earlier":      {[]part{{n: 2}, {offset: 4, n: 1, last: true}, {offset: 2, n: 1, last: true, want: Drop, reason: drop.FragmentEnd}}, 1},
		"beyond the end":         {[]part{{n: 2}, {offset: 4, n: 1, last: true}, {offset: 5, n: 1, want: Drop, reason: drop.FragmentEnd}}, 1},
		"end before what came":   {[]part{{n: 2}, {offset: 4, n: 4}, {offset: 2, n: 1, last: true, want: Drop, reason: drop.FragmentEnd}}, 1},
		"late duplicate is kept": {[]part{{n: 2}, {offset: 2, n: 1, last: true}, {offset: 2, n: 1, last: true, want: Hold}}, 1},
	} {
		for _, v6 := range []bool{false, true} {
			p := newPair(t, usual)
			for i, part := range tt.parts {
				f := fragment(v6, 7, part.offset*8, part.n*8, !part.last)
				if part.last {
					f.Len -= 5 // of the last unit
				}
				if got := p.add(f); got.verdict != part.want || got.reason != part.reason {
					t.Errorf("%s, IPv6 %v: fragment %d: %v %s, want %v %s", name, v6, i, got.verdict, got.reason, part.want, part.reason)
				}
			}
			if got := p.real.Stats().Datagrams; got != tt.known {
				t.Errorf("%s, IPv6 %v: %d datagrams are known, want %d", name, v6, got, tt.known)
			}
		}
	}
}

// Later fragments get the first one's key, and what differs in one part of the
// identity is another datagram.
func TestIdentity(t *testing.T) {
	other := map[string]func(f *Fragment){
		"identification": func(f *Fragment) { f.ID ^= 1 << 15 },
		"source":         func(f *Fragment) { f.Key.Src[15]++ },
		"destination":    func(f *Fragment) { f.Key.Dst[15]++ },
		"zone":           func(f *Fragment) { f.Key.Zone++ },
		"origin":         func(f *Fragment) { f.Origin++ },
	}
	for _, v6 := range []bool{false, true} {
		first, later := fragment(v6, 1<<20, 0, 16, true), fragment(v6, 1<<20, 16, 8, true)
		first.Key.SrcPort, first.Key.DstPort, first.Tracked = 4711, 53, true
		for name, change := range other {
			p := newPair(t, usual)
			p.add(first)
			f := later
			change(&f)
			if got := p.add(f); got.verdict != Hold {
				t.Errorf("another %s: %+v", name, got)
			}
			if got := p.add(later); got.verdict != Pass || got.flow != first.Key || !got.tracked {
				t.Errorf("the same but for the %s: %+v", name, got)
			}
		}
		// The first fragment alone says which protocol an IPv6 datagram has: the
		// others name the extension header that the first one goes on with.
		p := newPair(t, usual)
		p.add(first)
		later.Key.Proto = packet.ProtoDestOpts
		if got := p.add(later); (got.verdict == Pass) != v6 {
			t.Errorf("IPv6 %v, another protocol: %+v", v6, got)
		}
	}
}

// A datagram is known for 30 seconds, one of IPv6 for 60, and a bounded number is
// looked at.
func TestExpiry(t *testing.T) {
	p := newPair(t, usual)
	for id := range uint32(10) {
		p.add(fragment(id%2 == 1, id, 8, 8, true))
	}
	p.now += Timeout4 - 1
	p.expire(100)
	if got := p.real.Stats(); got.Held != 10 {
		t.Errorf("after 29 s: %+v", got)
	}
	p.now++
	p.expire(2)
	if got := p.real.Stats(); got.Held != 8 || got.Expired != 2 {
		t.Errorf("after 30 s and two looks: %+v", got)
	}
	p.expire(100)
	if got := p.real.Stats(); got.Held != 5 {
		t.Errorf("after 30 s: %+v", got)
	}
	p.now += Timeout6 - Timeout4
	p.expire(100)
	if got := p.real.Stats(); got.Held != 0 || got.Datagrams != 0 || got.Expired != 10 {
		t.Errorf("after 60 s: %+v", got)
	}
}

// A sender of many datagrams uses an identification again long before the
// timeout: a lost fragment must not cost it one datagram after the other.
func TestIdentificationIsUsedAgain(t *testing.T) {
	p := newPair(t, usual)
	p.add(fragment(false, 7, 0, 800, true)) // the rest is lost
	p.now += reuseAfter
	for i, f := range []Fragment{fragment(false, 7, 0, 1480, true), fragment(false, 7, 1480, 1480, true), fragment(false, 7, 2960, 3, false)} {
		if got := p.add(f); got.verdict != Pass {
			t.Errorf("fragment %d: %+v", i, got)
		}
	}
	// Neither do condemned ones.
	p.add(fragment(false, 8, 0, 800, true))
	p.add(fragment(false, 8, 792, 800, true))
	p.now += reuseAfter
	if got := p.add(fragment(false, 8, 0, 1480, true)); got.verdict != Pass {
		t.Errorf("after a condemned one: %+v", got)
	}
}

// A flood by one port takes half of the memory, and nothing of another port's.
func TestFloodStaysWithItsPort(t *testing.T) {
	for name, offset := range map[string]uint32{"first fragments": 0, "later fragments": 8} {
		tr := newTracker(t, usual)
		drain := func() (lost int) {
			for h, _ := tr.Dropped(); h != 0; h, _ = tr.Dropped() {
				lost++
			}
			return lost
		}
		var victims []Fragment
		for id := range uint32(100) {
			f := fragment(false, id, 8*(id%2), 8, true)
			f.Port, f.Origin = 1, 1
			tr.Add(&f, 1)
			victims = append(victims, f)
		}
		rng := rand.New(rand.NewPCG(3, 3))
		lost := 0
		for range 50000 {
			f := fragment(rng.IntN(2) == 0, rng.Uint32(), offset, 8, true)
			tr.Add(&f, 1)
			lost += drain()
		}
		if got := tr.Stats(); got.Datagrams > 100+usual.Datagrams/2 || got.Held > 50+usual.Held/2 || got.Evicted < 40000 {
			t.Errorf("%s: %+v", name, got)
		}
		if offset != 0 && lost < 40000 {
			t.Errorf("%s: %d of the held frames were dropped", name, lost)
		}
		for _, f := range victims {
			if f.Offset == 0 {
				f.Offset = 8
				if got := tr.Add(&f, 1); got.Verdict != Pass || got.Flow == nil {
					t.Fatalf("%s: a datagram of the other port is forgotten: %+v", name, got)
				}
				continue
			}
			f.Offset = 0
			if got := tr.Add(&f, 1); got.Handle == 0 {
				t.Fatalf("%s: a held frame of the other port is lost: %+v", name, got)
			}
		}
	}
}

// Nothing allocates, whatever comes.
func TestAddDoesNotAllocate(t *testing.T) {
	tr := newTracker(t, usual)
	id, now := uint32(0), uint32(0)
	if got := testing.AllocsPerRun(5000, func() {
		id++
		now = id / 64
		for _, offset := range []uint32{16, 8, 0, 24, 16} {
			f := fragment(id%3 == 0, id, offset, 8, id%4 != 0 || offset != 24)
			for h := tr.Add(&f, now).Handle; offset == 0 && h != 0; {
				h = tr.Release(h)
			}
		}
		f := fragment(false, id|1<<15, 8, 8, true)
		tr.Add(&f, now)
		tr.Expire(now, 4)
		for h, _ := tr.Dropped(); h != 0; h, _ = tr.Dropped() {
			continue
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// BenchmarkInOrder is the common case: a datagram of 45 fragments in order.
func BenchmarkInOrder(b *testing.B) {
	tr := newTracker(b, usual)
	f := fragment(false, 0, 0, 1424, true)
	for n := 0; n < b.N; {
		f.ID = (f.ID + 1) & 0xffff
		for i := range uint32(45) {
			f.Offset, f.More = 1424*i, i != 44
			tr.Add(&f, 1)
			n++
		}
	}
	if got := tr.Stats().Datagrams; got != 0 {
		b.Fatalf("%d datagrams are left", got)
	}
}
