package tcp

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// buildPrograms builds culvertd and culvert-cni.
func buildPrograms(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	out, err := exec.Command("go", "build", "-pgo=off", "-o", dir+"/", "../../cmd/culvertd", "../../cmd/culvert-cni").CombinedOutput()
	if err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	return dir
}

// leavesNothing checks, when the test ends, that it left no file, process or
// network namespace.
func leavesNothing(t *testing.T) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	before := openNamespaces(t)
	t.Cleanup(func() {
		left, err := os.ReadDir(os.Getenv("TMPDIR"))
		if err != nil || len(left) > 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
		if list := children(t); len(list) > 0 {
			t.Errorf("processes are left: %v", list)
		}
		if after := openNamespaces(t); after != before {
			t.Errorf("%d namespaces are open, %d were before", after, before)
		}
	})
}

// children are the processes that have this one as parent.
func children(t *testing.T) (list []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := bytes.Cut(b, []byte(") "))
		if f := bytes.Fields(after); len(f) > 1 && string(f[1]) == strconv.Itoa(os.Getpid()) {
			list = append(list, string(b))
		}
	}
	return list
}

// openNamespaces counts the network namespaces that this process keeps alive.
func openNamespaces(t *testing.T) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "net:[") {
			n++
		}
	}
	return n
}

// TestRuns measures shortly, and is interrupted, with programs built anew.
func TestRuns(t *testing.T) {
	programs := buildPrograms(t)
	t.Run("pairs", func(t *testing.T) { testPairs(t, programs) })
	t.Run("interrupted", func(t *testing.T) { testInterrupt(t, programs) })
}

// testPairs runs the kernel and Culvert for a second on one node and on two.
func testPairs(t *testing.T, programs string) {
	leavesNothing(t)
	us := Pair{Culvert, Culvert}
	o := Options{
		Scenarios:   []Scenario{{"local", NoWire, []Pair{baseline, us}}, {"gso-wire", GSO, []Pair{baseline, us}}},
		Connections: []int{1}, Rounds: 1, Seconds: 1, Bin: programs, Echoes: 100,
	}
	r, err := Run(stopped, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Measurements) != 4 || len(r.Latencies) != 4 {
		t.Fatalf("%d measurements and %d latencies", len(r.Measurements), len(r.Latencies))
	}
	for _, m := range r.Measurements {
		t.Logf("%+v", m)
		if m.Gbits < 0.1 || m.Gbits > 1000 || m.Seconds < 0.9 || m.BusyFraction <= 0 {
			t.Errorf("%s, %s: implausible", m.Scenario, m.Pair)
		}
		if (m.AgentSeconds > 0) != (m.Pair == us.String()) || (m.FrameLen[0] > 100) != (m.Scenario == "gso-wire") {
			t.Errorf("%s, %s: culvertds took %g s, frames have %g bytes", m.Scenario, m.Pair, m.AgentSeconds, m.FrameLen[0])
		}
	}
	for _, l := range r.Latencies {
		if l.Sent != 100 || l.Received == 0 || l.MeanMicros < 1 || l.MeanMicros > 1e5 {
			t.Errorf("implausible: %+v", l)
		}
	}
}

// testInterrupt ends a run in the middle of a turn.
func testInterrupt(t *testing.T, programs string) {
	leavesNothing(t)
	ctx, cancel := context.WithTimeout(stopped, 2*time.Second)
	defer cancel()
	o := Options{
		Scenarios:   []Scenario{{"gso-wire", GSO, []Pair{{Culvert, Kernel}}}},
		Connections: []int{1}, Rounds: 1, Seconds: 30, Bin: programs,
	}
	r, err := Run(ctx, o)
	if !errors.Is(err, context.DeadlineExceeded) || len(r.Measurements) > 0 {
		t.Errorf("the run ended with %v and %d measurements", err, len(r.Measurements))
	}
}

// TestWires checks that long frames cross only the wire that passes them, and
// that the packet sockets see them.
func TestWires(t *testing.T) {
	leavesNothing(t)
	for wire, want := range map[Wire]bool{GSO: true, MTU: false, MTUGRO: false} {
		b, err := newBed(stopped, "", wire, baseline)
		if err != nil {
			t.Fatal(err)
		}
		o, m := Options{Seconds: 1}, Measurement{}
		_, err = b.iperf(stopped, o, 1, func(ctx context.Context) error {
			return b.observe(ctx, Options{Seconds: 0, WarmUp: 1}, &m)
		})
		if err := errors.Join(err, b.close()); err != nil {
			t.Fatal(err)
		}
		if (m.LongFrames > 0) != want {
			t.Errorf("wire %s: %d long frames were seen", wire, m.LongFrames)
		}
		if err := MTU.checkFrames(&m); (err != nil) != want {
			t.Errorf("wire %s: the check says %v", wire, err)
		}
	}
}
