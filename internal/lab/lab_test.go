package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// mustBeGone makes sure that nothing of a lab is left.
func mustBeGone(t *testing.T, name string) {
	t.Helper()
	for _, pattern := range []string{netnsPath(name + "*"), filepath.Join(stateDir, name+"*"), filepath.Join(os.TempDir(), name+"*")} {
		if left, _ := filepath.Glob(pattern); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
	labs, err := LoadAll()
	if err != nil {
		t.Error(err)
	}
	for _, l := range labs {
		if l.Name == name {
			t.Errorf("lab %s is still known", name)
		}
	}
}

func up(t *testing.T, o Options) *Lab {
	t.Helper()
	l, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		mustBeGone(t, l.Name)
	})
	return l
}

func TestPlan(t *testing.T) {
	l, err := plan(Options{Peer: Flannel, BinDir: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Nodes) != 2 || l.Nodes[0].Kind != Culvert || l.Nodes[1].Kind != Flannel || l.VNI != 1 || l.Port != 8472 || l.Bridge != "" {
		t.Errorf("%+v", l)
	}
	if p := l.AllPods(); len(p) != 4 || p[3].Name != "b2" || p[3].Addr.String() != "10.244.2.3" || l.Nodes[1].Addr.String() != "192.168.50.2" {
		t.Errorf("%+v", p)
	}
	seen := map[string]bool{}
	if l, err = plan(Options{Nodes: 26, Pods: 100, BinDir: "/x"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.AllPods() {
		if seen[p.Netns] || seen[p.Addr.String()] || len(p.ContainerID) > 64 {
			t.Errorf("%+v", p)
		}
		seen[p.Netns], seen[p.Addr.String()] = true, true
	}
	if l, err = plan(Options{Family: Dual, Underlay: IPv6, BinDir: "/x"}); err != nil {
		t.Fatal(err)
	}
	if n := l.Nodes[1]; n.Addr.String() != "fd50::2" || joined(n.PodCIDRs) != "10.244.2.0/24, fd44:0:0:2::/64" ||
		joined(n.Pods[0].Addrs) != "10.244.2.2, fd44:0:0:2::2" || n.Pods[0].Addr6() != n.Pods[0].Addrs[1] || l.PodMTU() != 1430 {
		t.Errorf("%+v", n)
	}
	for _, bad := range []Options{{Family: "5"}, {Underlay: Dual}, {Family: IPv6, MTU: 1300}, {Nodes: 27}, {Nodes: -1}, {Pods: 101}, {MTU: 100}, {Peer: "x"}, {Nodes: 1, Peer: Calico}, {NICs: []string{"02:00:00:00:00:01"}}} {
		if _, err := plan(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	// The rule of the native mode, by sha1sum.
	if got := vtepMAC("worker-1"); !strings.HasPrefix(got, "66:") || len(got) != 17 {
		t.Errorf("VTEP MAC %s", got)
	}
}

// TestKernelLabs builds labs of kernel nodes only and runs the demo in them:
// what the demo does works, and what differs with Culvert is Culvert.
// What a lab can be with an encapsulation, and the pods' MTU there.
func TestPlanEncap(t *testing.T) {
	for _, c := range []struct {
		o    Options
		mtu  int
		fail string
	}{
		{Options{}, 1450, ""},
		{Options{Encap: "ipip"}, 1480, ""},
		{Options{Encap: "none", Family: Dual}, 1500, ""},
		{Options{Encap: "ipip", CrossSubnet: true}, 1480, ""},
		{Options{Encap: "none", Peer: Calico}, 1500, ""},
		{Options{Encap: "gre"}, 0, "one of [vxlan ipip none] is possible"},
		{Options{Encap: "none", CrossSubnet: true}, 0, "choose vxlan or ipip"},
		{Options{Encap: "ipip", Family: Dual}, 0, "IPIP carries IPv4 over IPv4"},
		{Options{Encap: "ipip", Underlay: IPv6}, 0, "IPIP carries IPv4 over IPv4"},
		{Options{Encap: "ipip", Peer: Flannel}, 0, "a flannel peer"},
		{Options{CrossSubnet: true, Peer: Calico}, 0, "a calico peer"},
		{Options{Encap: "none", Peer: Calico, Family: Dual}, 0, "its routes are IPv4"},
	} {
		c.o.BinDir = "/x"
		l, err := plan(c.o)
		switch {
		case c.fail == "" && err != nil, c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
			t.Errorf("%+v: %v, want %q", c.o, err, c.fail)
		case err == nil && (l.PodMTU() != c.mtu || l.CrossSubnet != c.o.CrossSubnet):
			t.Errorf("%+v: pod MTU %d, %+v", c.o, l.PodMTU(), l)
		}
	}
}

func TestKernelLabs(t *testing.T) {
	for name, o := range map[string]Options{
		"flannel": {NodeKinds: []Kind{Flannel, Flannel}},
		"calico":  {NodeKinds: []Kind{Calico, Calico, Calico}},
		// Over IPv6, and IPv6 in it.
		"flannel 6": {NodeKinds: []Kind{Flannel, Flannel}, Family: Dual, Underlay: IPv6},
		"calico 6":  {NodeKinds: []Kind{Calico, Calico}, Family: IPv6},
	} {
		t.Run(name, func(t *testing.T) {
			l := up(t, o)
			labs, err := LoadAll()
			at := slices.IndexFunc(labs, func(o *Lab) bool { return o.Name == l.Name })
			if err != nil || at < 0 || labs[at].Nodes[1].Pods[1].Addr != l.Nodes[1].Pods[1].Addr {
				t.Errorf("loaded %+v, %v", labs, err)
			}
			var out bytes.Buffer
			if err := l.Demo(t.Context(), &out); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			t.Log(out.String())
			last := l.Nodes[len(l.Nodes)-1]
			for _, want := range []string{"10 of 10   3 of 3", "Gbit/s", "pod " + last.Pods[0].Name, last.Name + ", tunnel address"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in\n%s", want, out.String())
				}
			}
			for _, addr := range last.Pods[0].Addrs {
				most := l.PodMTU() - 28
				if addr.Is6() {
					most = l.PodMTU() - 48
				}
				// The first packets resolve neighbours, and are no part of the test.
				if _, err := Ping(t.Context(), l.Nodes[0].Pods[0], addr, 56, 3); err != nil {
					t.Error(err)
				}
				for size, want := range map[int]int{most: 1, most + 1: 0} {
					got, err := Ping(t.Context(), l.Nodes[0].Pods[0], addr, size, 1)
					if err != nil || got.Received != want {
						t.Errorf("a ping of %d bytes to %s: %+v, %v; want %d", size, addr, got, err, want)
					}
				}
			}
		})
	}
}

func TestUpUndoesItself(t *testing.T) {
	before, _ := filepath.Glob(netnsPath("cvl-*"))
	ctx, cancel := context.WithCancel(t.Context())
	progress := &cancelOn{"kernel nodes", cancel}
	if l, err := Up(ctx, Options{NodeKinds: []Kind{Flannel, Flannel}, Progress: progress}); !errors.Is(err, context.Canceled) || l != nil {
		t.Errorf("lab %v, error %v", l, err)
		if l != nil {
			_ = l.Down()
		}
	}
	after, _ := filepath.Glob(netnsPath("cvl-*"))
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("before %v, after %v", before, after)
	}
	if _, err := Up(t.Context(), Options{BinDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without programs: %v", err)
	}
}

// A source that ends the goroutine, as t.Fatal does, leaves nothing either.
func TestUpUndoesItselfWhenLeft(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"culvertd", "culvert-cni"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var name string
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = Up(t.Context(), Options{BinDir: bin, Source: func(l *Lab, _ *Node) (string, error) {
			name = l.Name
			runtime.Goexit()
			return "", nil
		}})
	}()
	<-done
	if name == "" {
		t.Fatal("the source was not asked")
	}
	mustBeGone(t, name)
}

// cancelOn cancels when it reads a word.
type cancelOn struct {
	word   string
	cancel context.CancelFunc
}

func (c *cancelOn) Write(b []byte) (int, error) {
	if strings.Contains(string(b), c.word) {
		c.cancel()
	}
	return len(b), nil
}

// TestAgentThatFails starts a culvertd that ends at once: Up tells why.
func TestAgentThatFails(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"culvertd", "culvert-cni"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho it is broken >&2\nexit 2\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Up(t.Context(), Options{BinDir: bin})
	if err == nil || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("error: %v", err)
	}
}

func TestStopTellsProcessesApart(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	n := &Node{Name: "node-x", PID: cmd.Process.Pid, StartTime: 1}
	if err := n.stop(); n.alive() || err != nil || cmd.Process.Signal(syscall.Signal(0)) != nil {
		t.Errorf("another process was ended: %v", err)
	}
	var err error
	if n.StartTime, err = startTime(n.PID); err != nil || !n.alive() {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil || n.alive() {
		t.Errorf("process not ended: %v", err)
	}
}
