package calicoipam_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/calicoipam/ipamtest"
)

// life is what a node goes through: blocks claimed, borrowed from, filled and given
// up, pods of both families, addresses asked for by name.
func life(t *testing.T, m *ipamtest.Memory, w *node) {
	ctx := t.Context()
	_ = w.Pass(ctx)
	w.sees(t, m)
	for i := range 5 {
		_, _ = w.add(ctx, fmt.Sprint("p", i))
	}
	_, _ = w.add(ctx, "named", netip.MustParseAddr("10.1.0.6"))
	w.del(t, "p1")
	_ = w.Pass(ctx)
	w.sees(t, m)
	w.del(t, "p0")
	_, _ = w.add(ctx, "late")
	for _, p := range []string{"p2", "p3", "late"} {
		w.del(t, p)
	}
	w.clk.pass(20 * time.Minute)
	_ = w.Pass(ctx)
}

type crash struct{}

// After any call that failed, or was the last one of a process, whether it took effect
// or not: the next start puts everything right, and no pod has lost its address.
func TestCrashAnywhere(t *testing.T) {
	world := func() (*ipamtest.Memory, *node) {
		m := cluster(2, pool("four", "10.1.0.0/28", 30), pool("six", "fd00::/64", 126))
		mustAssign(t, client(m, 1, newClock()), request("node-1", "other"))
		return m, newNode(t, m, 0, newClock())
	}
	m, w := world()
	start := m.Calls()
	life(t, m, w)
	calls := m.Calls() - start
	if clean(t, m); calls < 60 {
		t.Errorf("only %d calls in a life", calls)
	}
	for n := range calls {
		for _, how := range []struct{ applied, dies, once bool }{{}, {applied: true}, {once: true}, {applied: true, once: true}, {dies: true}, {applied: true, dies: true}} {
			m, w := world()
			at := m.Calls() + n
			m.Fail = func(call int, _ string) (error, bool) {
				switch {
				case call < at || how.once && call > at:
					return nil, false
				case call == at && how.dies && !how.applied:
					panic(crash{})
				case call == at+1 && how.dies:
					panic(crash{})
				}
				return ipamtest.ErrAway, how.applied && call == at
			}
			survive(t, m, w)
			m.Fail = nil
			w.pods = slices.DeleteFunc(w.pods, func(p calicoipam.Pod) bool { return len(p.Addrs) == 0 })
			w.start(t)
			w.clk.pass(time.Minute)
			mustPass(t, w)
			w.clk.pass(20 * time.Minute)
			mustPass(t, w)
			clean(t, m)
			whole(t, m, w)
			if t.Failed() {
				t.Fatalf("call %d of %d, %+v", n, calls, how)
			}
		}
	}
}

// survive is a life that may end early.
func survive(t *testing.T, m *ipamtest.Memory, w *node) {
	defer func() {
		if p := recover(); p != nil && p != (crash{}) {
			panic(p)
		}
	}()
	life(t, m, w)
}

// whole checks that the blocks give every pod of a node its addresses, and no other
// pod of that node any.
func whole(t *testing.T, m *ipamtest.Memory, w *node) {
	t.Helper()
	count := 0
	for _, p := range w.pods {
		for _, a := range p.Addrs {
			if got := owner(m, a); got != p.Name {
				t.Errorf("%s of %s is of %q", a, p.Name, got)
			}
			count++
		}
	}
	for _, obj := range m.All("IPAMHandle") {
		if id := field(obj, "spec", "handleID"); len(id) > 22 && id[:22] == "k8s-pod-network."+w.name {
			count--
		}
	}
	if count > len(w.pods) { // two families
		t.Errorf("%d addresses more than handles", count)
	}
}

// Random lives with an API server that comes and goes, and starts in between.
func TestModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 5))
		m, clk := cluster(1, pool("four", "10.1.0.0/26", 29)), newClock()
		w := newNode(t, m, 0, clk)
		mustPass(t, w)
		live := []string{}
		for step := range 150 {
			name := fmt.Sprint("p", step)
			switch rng.IntN(12) {
			case 0:
				away(m, rng.IntN(2) == 0)
			case 1:
				w.start(t)
				w.sees(t, m)
			case 2:
				_ = w.Pass(t.Context())
				clk.pass(time.Duration(rng.IntN(600)) * time.Second)
			case 3, 4, 5, 6:
				if len(live) > 0 {
					i := rng.IntN(len(live))
					w.del(t, live[i])
					live = slices.Delete(live, i, i+1)
				}
			default:
				if m.Fail == nil {
					w.sees(t, m)
				}
				if _, err := w.add(t.Context(), name); err == nil {
					live = append(live, name)
				} else if m.Fail == nil && len(live) < 50 {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
			}
			seen := map[netip.Addr]string{}
			for _, p := range w.pods {
				if was := seen[p.Addrs[0]]; was != "" {
					t.Fatalf("seed %d, step %d: %s has the address of %s", seed, step, p.Name, was)
				}
				seen[p.Addrs[0]] = p.Name
			}
		}
		away(m, false)
		clk.pass(time.Hour)
		w.start(t)
		mustPass(t, w)
		clean(t, m)
		whole(t, m, w)
		if len(w.pods) != len(live) || t.Failed() {
			t.Fatalf("seed %d: %d pods, want %d", seed, len(w.pods), len(live))
		}
	}
}

// Nodes race for blocks and addresses, with a pool that is too small: no address is
// given twice, and all is consistent in the end.
func TestNodesRace(t *testing.T) {
	m, clk := cluster(4, pool("p", "10.1.0.0/26", 29)), newClock()
	var mu sync.Mutex
	has := map[netip.Addr]string{}
	var wg sync.WaitGroup
	var nodes []*node
	for n := range 4 {
		w := newNode(t, m, n, clk)
		nodes = append(nodes, w)
		for g := range 2 {
			rng := rand.New(rand.NewPCG(uint64(n), uint64(g)))
			wg.Go(func() { racer(t, w, g, rng, &mu, has) })
		}
		wg.Go(func() {
			for range 10 {
				w.Look()
				_ = w.Pass(context.Background())
				clk.pass(time.Minute)
			}
		})
	}
	wg.Wait()
	clk.pass(time.Minute)
	for _, w := range nodes {
		w.Look()
		mustPass(t, w)
		whole(t, m, w)
	}
	clean(t, m)
}

func racer(t *testing.T, w *node, g int, rng *rand.Rand, mu *sync.Mutex, has map[netip.Addr]string) {
	live := map[string]netip.Addr{}
	for i := range 60 {
		name := fmt.Sprint("g", g, "p", i)
		got, err := w.add(context.Background(), name)
		mu.Lock()
		if err == nil {
			if has[got[0]] != "" {
				t.Errorf("%s of %s is given to %s", got[0], has[got[0]], w.name+name)
			}
			has[got[0]], live[name] = w.name+name, got[0]
		}
		mu.Unlock()
		for name, a := range live {
			if len(live) > 5 || rng.IntN(4) == 0 {
				mu.Lock()
				delete(has, a)
				mu.Unlock()
				delete(live, name)
				w.del(t, name)
			}
		}
	}
}
