package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
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
			ref := podlink.Ref{HostName: m.hostName(&request{namespace: "default", pod: pod})}
			if _, ok, err := m.cfg.Links.Find(ref); ok || err != nil {
				t.Errorf("link of %s is left: %v", pod, err)
			}
		}
	})
}

// withTAP asks for a TAP.
var withTAP = withConf(`{"interface":"tap"}`)

// TestRealTAPs is TestRealLinks for pods with a TAP; one loses its namespace, and
// one its device, without a DEL.
func TestRealTAPs(t *testing.T) {
	node, a, b := testnet.NewNS(t), testnet.NewNS(t), testnet.NewNS(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, ns := range map[string]*testnet.NS{"a": a, "b": b, "c": testnet.NewNS(t)} {
		if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", int(ns.Handle())), path(name)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) func(*api.CNIRequest) {
		return func(r *api.CNIRequest) { r.Netns = path(name) }
	}
	manager := func() *Manager {
		m := newManager(t, newWorld(), dir)
		m.cfg.Links, m.cfg.Attacher = kernel{}, portless{}
		return m
	}
	node.Do(t, func() {
		m := manager()
		must(t, m, call("ADD", "c1", "a", withTAP, in("a")))
		must(t, m, call("ADD", "c2", "b", withTAP, in("b")))
		must(t, m, call("CHECK", "c1", "a", withTAP, in("a")))
		mustFail(t, m, call("CHECK", "c1", "a", withTAP, in("b")), api.CNICheckFailed, "not")
		mustFail(t, m, call("ADD", "c3", "c", withTAP, in("a")), api.CNIInterfaceExists, "CNI_IFNAME exists")
		mustFail(t, m, call("ADD", "c3", "c", withTAP), api.CNIInvalidEnvironment, "CNI_NETNS")

		m = manager() // culvertd restarts
		if err := m.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		must(t, m, call("CHECK", "c2", "b", withTAP, in("b")))
		m.LookForTAPs()
		if m.Count() != 2 {
			t.Errorf("%d pods attached again", m.Count())
		}
		if err := os.Remove(path("a")); err != nil {
			t.Fatal(err)
		}
		b.Delete(t, "eth0")
		m.LookForTAPs()
		for _, rec := range m.List() {
			if rec.State != StateGone {
				t.Errorf("%s is %s", rec.Name(), rec.State)
			}
		}
		must(t, m, call("ADD", "c4", "c", withTAP, in("c")))

		m = manager()
		if err := m.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		if l := m.List(); len(l) != 1 || l[0].Pod != "c" {
			t.Errorf("after a restart: %+v", l)
		}
		for range 2 {
			must(t, m, call("DEL", "c4", "c", withTAP, in("c")))
		}
		must(t, m, call("ADD", "c5", "c", withTAP, in("c")))
		m = newManager(t, newWorld(), t.TempDir()) // which knows nothing of it
		m.cfg.Links, m.cfg.Attacher = kernel{}, portless{}
		must(t, m, call("DEL", "c5", "other", withTAP, in("c"))) // another pod's
		ref := podlink.Ref{Kind: podlink.TAP, HostName: podlink.HostName("cv", "default", "c", ""), Netns: path("c"), IfName: "eth0"}
		if !podlink.Adopts(ref) {
			t.Error("another pod's TAP was removed")
		}
		must(t, m, call("DEL", "c5", "c", withTAP, in("c")))
		if podlink.Adopts(ref) {
			t.Error("a DEL without a record left the TAP")
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
