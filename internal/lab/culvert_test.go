package lab

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/ctrl/api"
)

// buildPrograms builds culvertd, culvert-cni and culvert.
func buildPrograms(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("go", "build", "-pgo=off", "-o", dir+"/", "./cmd/culvertd", "./cmd/culvert-cni", "./cmd/culvert")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	return dir
}

// TestDemo runs the whole demo: two Culvert nodes, then a Culvert node with a
// kernel node of either kind, the real programs everywhere.
func TestDemo(t *testing.T) {
	bin := buildPrograms(t)
	for _, o := range []Options{{}, {Peer: Flannel}, {Peer: Calico}, {Nodes: 3, Pods: 1}} {
		name := string(o.Peer)
		if name == "" {
			name = "culvert"
		}
		if o.Nodes > 2 {
			name += "-bridge"
		}
		t.Run(name, func(t *testing.T) {
			o.BinDir = bin
			var out bytes.Buffer
			start := time.Now()
			err := RunDemo(t.Context(), o, &out)
			t.Logf("%v\n%s", time.Since(start), out.String())
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"culvert route", "culvert fdb", "culvert flow", "nothing is left"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing", want)
				}
			}
			if strings.Contains(out.String(), "✗") {
				t.Error("something failed without an error")
			}
			name, _, _ := strings.Cut(strings.TrimPrefix(out.String(), "lab "), ":")
			mustBeGone(t, name)
		})
	}
}

// TestAgentComesAndGoes kills culvertd both ways and takes a pod's namespace
// away: the other pods come back without a new ADD, and a DEL that found no
// agent is done.
func TestAgentComesAndGoes(t *testing.T) {
	l := up(t, Options{BinDir: buildPrograms(t)})
	a, b := l.Nodes[0], l.Nodes[1]
	reach := func(from, to *Pod, want bool) {
		t.Helper()
		for try := range 20 {
			r, err := Ping(t.Context(), from, to.Addr, 56, 1)
			if err != nil {
				t.Fatal(err)
			}
			if r.Received == 1 {
				break
			}
			if try == 19 || !want {
				if want {
					t.Errorf("%s does not reach %s", from.Name, to.Name)
				}
				return
			}
		}
		if !want {
			t.Errorf("%s reaches %s", from.Name, to.Name)
		}
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if err := l.StopAgent(a, signal); err != nil {
			t.Fatal(err)
		}
		reach(b.Pods[0], a.Pods[0], false)
		if err := l.StartAgent(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		reach(b.Pods[0], a.Pods[0], true)
		reach(a.Pods[1], b.Pods[1], true)
	}
	// A DEL while the agent is away, a namespace that goes while it is there.
	if err := l.StopAgent(a, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CNI(t.Context(), a, a.Pods[0], "DEL"); err != nil {
		t.Fatal(err)
	}
	if err := l.StartAgent(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := deleteNetns(b.Pods[0].Netns); err != nil {
		t.Fatal(err)
	}
	reach(b.Pods[1], a.Pods[1], true)
	for _, n := range []*Node{a, b} {
		deadline := time.Now().Add(3 * time.Second)
		for {
			var pods []api.Pod
			if err := api.NewClient(n.Socket).Get(t.Context(), "/v1/pods", &pods); err != nil {
				t.Fatal(err)
			}
			ready := slices.DeleteFunc(slices.Clone(pods), func(p api.Pod) bool { return p.State != "ready" })
			if len(ready) == 1 && ready[0].Name == n.Pods[1].Name {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has pods %+v", n.Name, pods)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}
