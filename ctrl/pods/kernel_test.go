package pods

import (
	"context"
	"fmt"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/testnet"
)

// portless is a dataplane that takes every port, for tests with real links.
type portless struct{}

func (portless) Attach(Record) error { return nil }
func (portless) Detach(Record) error { return nil }

// TestRealLinks goes through a pod's life on the kernel: ADD, CHECK, restart
// of the agent, loss of the pod's namespace, DEL.
func TestRealLinks(t *testing.T) {
	node, a, b := testnet.NewNS(t), testnet.NewNS(t), testnet.NewNS(t)
	in := func(ns *testnet.NS) func(*api.CNIRequest) {
		return func(r *api.CNIRequest) { r.Netns = fmt.Sprintf("/proc/self/fd/%d", int(ns.Handle())) }
	}
	dir := t.TempDir()
	manager := func() *Manager {
		m := newManager(t, newWorld(), dir)
		m.cfg.Links, m.cfg.Attacher = kernel{}, portless{}
		return m
	}
	node.Do(t, func() {
		m := manager()
		must(t, m, call("ADD", "c1", "a", in(a)))
		must(t, m, call("ADD", "c2", "b", in(b)))
		must(t, m, call("CHECK", "c1", "a", in(a)))
		mustFail(t, m, call("CHECK", "c1", "a", in(b)), api.CNICheckFailed, "not the other end")
		mustFail(t, m, call("ADD", "c3", "c", in(a)), api.CNIInterfaceExists, "CNI_IFNAME exists")
		mustFail(t, m, call("ADD", "c3", "c"), api.CNIInvalidEnvironment, "CNI_NETNS")
		if len(m.List()) != 2 || m.cfg.IPAM.Taken() != 4 {
			t.Errorf("failed ADDs left something: %+v", m.List())
		}

		m = manager() // culvertd restarts
		if err := m.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		must(t, m, call("CHECK", "c2", "b", in(b)))
		if m.Count() != 2 {
			t.Errorf("%d pods attached again", m.Count())
		}
		for range 2 {
			must(t, m, call("DEL", "c1", "a", in(a)))
		}
		must(t, m, call("DEL", "c2", "b", func(r *api.CNIRequest) { r.Netns = "/gone" }))
		for _, pod := range []string{"a", "b"} {
			name := m.hostName(&request{namespace: "default", pod: pod})
			if _, ok, err := m.cfg.Links.Find(name); ok || err != nil {
				t.Errorf("link of %s is left: %v", pod, err)
			}
		}
	})
}

// TestAddIsFast is the budget of a real ADD, a dataplane excluded.
func TestAddIsFast(t *testing.T) {
	node, pod := testnet.NewNS(t), testnet.NewNS(t)
	node.Do(t, func() {
		m := newManager(t, newWorld(), t.TempDir())
		m.cfg.Links, m.cfg.Attacher = kernel{}, portless{}
		best := time.Hour
		for range 5 {
			start := time.Now()
			must(t, m, call("ADD", "c", "p", func(r *api.CNIRequest) { r.Netns = fmt.Sprintf("/proc/self/fd/%d", int(pod.Handle())) }))
			best = min(best, time.Since(start))
			must(t, m, call("DEL", "c", "p"))
		}
		t.Logf("ADD takes %v", best)
		if best > 50*time.Millisecond {
			t.Errorf("ADD takes %v at best", best)
		}
	})
}
