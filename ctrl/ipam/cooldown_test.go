package ipam

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// clock stands until it is told.
type clock struct{ at time.Time }

func newClock() *clock                { return &clock{time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)} }
func (c *clock) now() time.Time       { return c.at }
func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// A pool that is too small for the cool-down gives the address that was released
// first; a second pool is asked before that.
func TestCooldownGivesWay(t *testing.T) {
	clk := newClock()
	a := newAllocator(t, "10.244.1.0/29") // 5 addresses
	a.SetCooldown(30*time.Second, clk.now)
	for i := range 5 {
		one(t, a, fmt.Sprint(i))
	}
	for i := range 3 {
		clk.pass(time.Second)
		a.Release(fmt.Sprint(2 - i))
	}
	if got := one(t, a, "x"); got != "[10.244.1.4]" {
		t.Errorf("with one pool: %s, which was not released first", got)
	}
	if err := a.SetCIDRs(prefixes("10.244.1.0/29", "10.244.9.0/29")); err != nil {
		t.Fatal(err)
	}
	if got := one(t, a, "y"); got != "[10.244.9.2]" {
		t.Errorf("with another pool: %s is cooling", got)
	}
	clk.pass(30 * time.Second)
	if got := one(t, a, "z"); got != "[10.244.1.3]" {
		t.Errorf("cooled down: %s", got)
	}
	if got := one(t, a, "named", netip.MustParseAddr("10.244.1.2")); got != "[10.244.1.2]" {
		t.Errorf("asked for by name: %s", got)
	}
}

func TestCooldownSurvivesRestart(t *testing.T) {
	clk := newClock()
	a := newAllocator(t, "10.244.1.0/29", "10.244.9.0/29")
	a.SetCooldown(time.Minute, clk.now)
	for i := range 5 {
		one(t, a, fmt.Sprint(i))
	}
	a.Release("1")
	a.Retire("0") // its record goes when the history is on disk
	data, err := json.Marshal(a.History())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		held, back bool // the record of 0 is there; the clock is put back
		later      time.Duration
		want       string
	}{
		{want: "[10.244.9.2]"},
		{held: true, want: "[10.244.9.2]"},
		{later: time.Minute, want: "[10.244.1.3]"},
		{back: true, want: "[10.244.9.2]"},
	} {
		var h History
		if err := json.Unmarshal(data, &h); err != nil {
			t.Fatal(err)
		}
		clk := newClock()
		if clk.pass(c.later); c.back {
			clk.pass(-time.Hour)
		}
		b := newAllocator(t, "10.244.1.0/29", "10.244.9.0/29")
		b.SetCooldown(time.Minute, clk.now)
		for i := range 5 {
			if i > 1 || i == 0 && c.held {
				if err := b.Reserve(fmt.Sprint(i), netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)})); err != nil {
					t.Fatal(err)
				}
			}
		}
		b.SetHistory(h)
		if got := one(t, b, "x"); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
	}
}

// What comes by the hundred within a cool-down is remembered beyond the usual bound,
// and no more than that many.
func TestCooldownOfMany(t *testing.T) {
	clk := newClock()
	a := newAllocator(t, "10.0.0.0/8")
	a.SetCooldown(time.Hour, clk.now)
	for i := range maxCooling + 10 {
		one(t, a, fmt.Sprint(i))
		a.Release(fmt.Sprint(i))
		clk.pass(time.Millisecond)
	}
	if u := a.Usage(time.Hour)[0]; u.Cooling != maxCooling || u.Used != 0 || u.Size != 1<<24 || u.Free != 1<<24-maxCooling-3 {
		t.Errorf("%+v", u)
	}
	clk.pass(time.Hour)
	one(t, a, "x")
	a.Release("x")
	if n := len(a.pools[0].recent); n != maxRecent {
		t.Errorf("%d are remembered", n)
	}
}

// Random lives: an address is given before its cool-down is over only if every other
// one is taken or was released later; and the counts add up.
func TestCooldownModel(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 9))
		clk := newClock()
		a := newAllocator(t, "10.244.1.0/28", "10.244.5.0/29") // 13 and 5 addresses
		const cooldown = 20 * time.Second
		a.SetCooldown(cooldown, clk.now)
		live, gone := map[string]netip.Addr{}, map[netip.Addr]time.Time{}
		for step := range 400 {
			clk.pass(time.Duration(rng.IntN(3000)) * time.Millisecond)
			if rng.IntN(2) == 0 {
				for owner, addr := range live { // any
					if rng.IntN(3) == 0 {
						a.Retire(owner)
					}
					a.Release(owner)
					delete(live, owner)
					gone[addr] = clk.at
					break
				}
			} else if len(live) < 18 {
				got, err := a.Allocate(fmt.Sprint(step))
				if err != nil {
					t.Fatalf("seed %d: %v with %d taken", seed, err, len(live))
				}
				at, was := gone[got[0]]
				delete(gone, got[0])
				if was && clk.at.Sub(at) < cooldown {
					if len(live)+len(gone)+1 != 18 {
						t.Fatalf("seed %d: %s is cooling and others were never given", seed, got)
					}
					for other, since := range gone {
						if since.Before(at) {
							t.Fatalf("seed %d: %s of %v is given before %s of %v", seed, got, at, other, since)
						}
					}
				}
				live[fmt.Sprint(step)] = got[0]
			}
			used, sum := uint64(0), uint64(0)
			for _, u := range a.Usage(cooldown) {
				used += u.Used
				sum += u.Used + u.Cooling + u.Free + u.Reserved
			}
			if used != uint64(len(live)) || sum != 24 {
				t.Fatalf("seed %d: %+v with %d taken", seed, a.Usage(cooldown), len(live))
			}
		}
	}
}

func TestLook(t *testing.T) {
	clk := newClock()
	a := newAllocator(t, "10.244.1.0/24")
	a.SetCooldown(time.Minute, clk.now)
	if err := a.SetPools([]Pool{{CIDR: prefixes("10.244.1.0/24")[0]}}, []Held{{Addr: netip.MustParseAddr("10.244.1.9"), Why: "it is another's"}}); err != nil {
		t.Fatal(err)
	}
	one(t, a, "a")
	one(t, a, "b")
	a.Release("b")
	for addr, want := range map[string]State{"10.244.1.2": Used, "10.244.1.3": Cooling, "10.244.1.4": Free, "10.244.1.9": Reserved, "10.244.1.0": Reserved, "10.244.1.255": Reserved, "1.2.3.4": Free} {
		got := a.Look(netip.MustParseAddr(addr), time.Minute)
		if got.State != want || (got.Owner == "a") != (want == Used) || (got.Why != "") != (want == Reserved) || got.CIDR.IsValid() == (addr == "1.2.3.4") {
			t.Errorf("%s: %+v, want %s", addr, got, want)
		}
	}
	clk.pass(time.Second)
	for d, want := range map[time.Duration]bool{0: true, time.Second: false, 2 * time.Second: true} {
		if a.Cooling(netip.MustParseAddr("10.244.1.3"), d) != want {
			t.Errorf("cooling for %v: %v", d, !want)
		}
	}
	if fmt.Sprint(a.Owners()) != "map[a:[10.244.1.2]]" {
		t.Errorf("owners %v", a.Owners())
	}
}
