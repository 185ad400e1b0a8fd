package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

func prefixes(cidrs ...string) (out []netip.Prefix) {
	for _, c := range cidrs {
		out = append(out, netip.MustParsePrefix(c))
	}
	return out
}

func newAllocator(t *testing.T, cidrs ...string) *Allocator {
	t.Helper()
	a, err := New(prefixes(cidrs...)...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func one(t *testing.T, a *Allocator, owner string, want ...netip.Addr) string {
	t.Helper()
	got, err := a.Allocate(owner, want...)
	if err != nil {
		t.Fatalf("%s: %v", owner, err)
	}
	return fmt.Sprint(got)
}

func TestSkipsAndGoesRound(t *testing.T) {
	a := newAllocator(t, "10.244.1.0/29") // .2 to .6 are for pods
	for i, want := range []string{"[10.244.1.2]", "[10.244.1.3]", "[10.244.1.4]", "[10.244.1.5]"} {
		if got := one(t, a, fmt.Sprint("p", i)); got != want {
			t.Errorf("p%d: %s, want %s", i, got, want)
		}
	}
	a.Release("p1")
	a.Release("p0")
	a.Release("p0")
	for i, want := range []string{"[10.244.1.6]", "[10.244.1.3]", "[10.244.1.2]"} {
		if got := one(t, a, fmt.Sprint("q", i)); got != want {
			t.Errorf("q%d: %s, want %s: released last is reused last", i, got, want)
		}
	}
	if _, err := a.Allocate("z"); !errors.Is(err, ErrExhausted) {
		t.Errorf("full: %v", err)
	}
}

func TestDualStackAndRequests(t *testing.T) {
	a := newAllocator(t, "10.244.1.0/24", "fd00:1::/64")
	if got := one(t, a, "a"); got != "[10.244.1.2 fd00:1::2]" {
		t.Errorf("a: %s", got)
	}
	if got := one(t, a, "b", netip.MustParseAddr("fd00:1::99")); got != "[10.244.1.3 fd00:1::99]" {
		t.Errorf("b: %s", got)
	}
	for addr, why := range map[string]string{
		"10.244.1.0": "tunnel address", "10.244.1.1": "gateway", "10.244.1.255": "broadcast",
		"10.244.1.2": "in use by a", "10.244.2.9": "none of the node's pod CIDRs", "fd00:2::1": "none of",
	} {
		_, err := a.Allocate("c", netip.MustParseAddr(addr))
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", addr, err, why)
		}
	}
	if _, err := a.Allocate("c", netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("10.244.1.8")); err == nil {
		t.Error("two addresses of one family")
	}
	if _, err := a.Allocate("a"); err == nil {
		t.Error("an owner got addresses twice")
	}
	if got := one(t, a, "c"); got != "[10.244.1.4 fd00:1::3]" {
		t.Errorf("refusals left something behind: %s", got)
	}
}

func TestCIDRs(t *testing.T) {
	for _, bad := range []string{"10.0.0.0/31", "10.0.0.0/32", "fd00::/128", "fd00::/127"} {
		if _, err := New(prefixes(bad)...); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if _, err := New(prefixes("10.0.0.0/8", "10.1.0.0/16")...); err == nil {
		t.Error("overlapping CIDRs were taken")
	}
	if _, err := New(netip.Prefix{}); err == nil {
		t.Error("an invalid CIDR was taken")
	}
	a := newAllocator(t)
	if _, err := a.Allocate("a"); !errors.Is(err, ErrNoCIDR) {
		t.Errorf("without CIDR: %v", err)
	}
	if err := a.Reserve("old", netip.MustParseAddr("10.9.0.5")); err != nil {
		t.Fatal(err)
	}
	if err := a.Reserve("new", netip.MustParseAddr("10.9.0.5")); err == nil {
		t.Error("an address was reserved twice")
	}
	for cidr, want := range map[string]string{"10.244.7.9/30": "[10.244.7.10]", "0.0.0.0/0": "[0.0.0.2]", "fd00::/126": "[fd00::2]"} {
		if err := a.SetCIDRs(prefixes(cidr)); err != nil {
			t.Fatal(err)
		}
		if got := one(t, a, cidr); got != want {
			t.Errorf("%s: %s, want %s", cidr, got, want)
		}
	}
}

func TestHistorySurvivesRestart(t *testing.T) {
	a := newAllocator(t, "10.244.1.0/24")
	for i := range 5 {
		one(t, a, fmt.Sprint(i))
	}
	a.Release("4")
	data, err := json.Marshal(a.History())
	if err != nil {
		t.Fatal(err)
	}
	b := newAllocator(t, "10.244.1.0/24")
	var h History
	if err := json.Unmarshal(data, &h); err != nil {
		t.Fatal(err)
	}
	b.SetHistory(h)
	if got := one(t, b, "x"); got != "[10.244.1.7]" {
		t.Errorf("after a restart: %s", got)
	}
	// The CIDR may become known only after the history.
	c := newAllocator(t)
	c.SetHistory(h)
	for range 2 { // and may go and come back
		if err := c.SetCIDRs(nil); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(c.History()) != fmt.Sprint(h) {
			t.Errorf("history %v, want %v", c.History(), h)
		}
		if err := c.SetCIDRs(prefixes("10.244.1.0/24")); err != nil {
			t.Fatal(err)
		}
	}
	if got := one(t, c, "x"); got != "[10.244.1.7]" {
		t.Errorf("with the CIDR after the history: %s", got)
	}
	// Nonsense in the file is harmless.
	b.SetHistory(History{"10.244.1.0/24": {Cursor: netip.MustParseAddr("10.244.1.255"), Recent: []netip.Addr{{}, netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("10.244.1.7")}}})
	if got := one(t, b, "y"); got != "[10.244.1.8]" {
		t.Errorf("after nonsense: %s", got)
	}
}

// TestModel runs random operations against the obvious model: a slice of free
// addresses in the order in which they may be given.
func TestModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 7))
	for range 50 {
		bits := 24 + rng.IntN(6)
		prefix := netip.PrefixFrom(netip.MustParseAddr("10.244.8.0"), bits)
		a := newAllocator(t, prefix.String())
		var free []netip.Addr
		for x := prefix.Addr().Next().Next(); prefix.Contains(x.Next()); x = x.Next() {
			free = append(free, x)
		}
		owned := map[string]netip.Addr{}
		for step := range 600 {
			owner := fmt.Sprint(rng.IntN(300))
			had, has := owned[owner]
			switch {
			case has:
				a.Release(owner)
				delete(owned, owner)
				free = append(free, had)
			case rng.IntN(4) == 0 && len(free) > 0: // ask for a certain one
				i := rng.IntN(len(free))
				if got := one(t, a, owner, free[i]); got != fmt.Sprint(free[i:i+1]) {
					t.Fatalf("step %d: asked for %s, got %s", step, free[i], got)
				}
				owned[owner] = free[i]
				free = slices.Delete(free, i, i+1)
			case len(free) == 0:
				if _, err := a.Allocate(owner); !errors.Is(err, ErrExhausted) {
					t.Fatalf("step %d: full, but %v", step, err)
				}
			default:
				if got := one(t, a, owner); got != fmt.Sprint(free[:1]) {
					t.Fatalf("/%d step %d: got %s, model says %s", bits, step, got, free[0])
				}
				owned[owner] = free[0]
				free = free[1:]
			}
			if a.Taken() != len(owned) {
				t.Fatalf("step %d: %d taken, model says %d", step, a.Taken(), len(owned))
			}
		}
	}
}

func TestConcurrentOwnersNeverShare(t *testing.T) {
	a := newAllocator(t, "10.244.0.0/24")
	var mu sync.Mutex
	inUse := map[string]bool{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				owner := fmt.Sprint(w, "/", i)
				got, err := a.Allocate(owner)
				if err != nil {
					t.Error(err)
					return
				}
				key := fmt.Sprint(got)
				mu.Lock()
				if inUse[key] {
					t.Errorf("%s given twice", key)
				}
				inUse[key] = true
				mu.Unlock()
				mu.Lock()
				delete(inUse, key)
				mu.Unlock()
				a.Release(owner)
			}
		})
	}
	wg.Wait()
}

func BenchmarkAllocateNearlyFull(b *testing.B) {
	a, err := New(netip.MustParsePrefix("10.244.0.0/16"))
	if err != nil {
		b.Fatal(err)
	}
	for i := range 65000 {
		if _, err := a.Allocate(fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := a.Allocate("x"); err != nil {
			b.Fatal(err)
		}
		a.Release("x")
	}
}

// Of a Calico block every address is a pod's, but for those that somebody has.
func TestWholePoolsAndHeldAddresses(t *testing.T) {
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	pools := []Pool{{CIDR: netip.MustParsePrefix("10.244.1.0/30"), Whole: true}, {CIDR: netip.MustParsePrefix("10.244.9.7/32"), Whole: true}}
	held := []Held{{Addr: addr("10.244.1.0"), Why: "it is the node's tunnel address"}, {Addr: addr("10.244.1.2"), Why: "it is of pod web", Ask: true}}
	if err := a.SetPools(pools, held); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, owner := range []string{"a", "b", "c"} {
		addrs, err := a.Allocate(owner)
		if err != nil {
			t.Fatalf("%s: %v", owner, err)
		}
		got = append(got, addrs[0].String())
	}
	if want := []string{"10.244.1.1", "10.244.1.3", "10.244.9.7"}; !slices.Equal(got, want) {
		t.Errorf("given are %v, want %v", got, want)
	}
	if _, err := a.Allocate("d"); !errors.Is(err, ErrExhausted) {
		t.Errorf("what is held back was given: %v", err)
	}
	var refused *RefusedError
	if _, err := a.Allocate("d", addr("10.244.1.0")); !errors.As(err, &refused) || refused.Why != "it is the node's tunnel address" {
		t.Errorf("the tunnel address: %v", err)
	}
	if addrs, err := a.Allocate("d", addr("10.244.1.2")); err != nil || addrs[0] != addr("10.244.1.2") {
		t.Errorf("an address that was asked for: %v, %v", addrs, err)
	}

	// What is no longer held back is given; a block of another size is another pool.
	a.Release("d")
	if err := a.SetPools(pools, nil); err != nil {
		t.Fatal(err)
	}
	if addrs, err := a.Allocate("d"); err != nil || addrs[0] != addr("10.244.1.0") {
		t.Errorf("given is %v, %v", addrs, err)
	}
	if err := a.SetPools([]Pool{{CIDR: netip.MustParsePrefix("10.244.1.0/30")}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Allocate("e", addr("10.244.1.0")); !errors.As(err, &refused) || !strings.Contains(refused.Why, "tunnel address") {
		t.Errorf("of a pod CIDR the first address: %v", err)
	}
	if err := a.SetPools([]Pool{{CIDR: netip.MustParsePrefix("10.244.9.7/32")}}, nil); err == nil {
		t.Error("a pod CIDR of one address was taken")
	}
}
