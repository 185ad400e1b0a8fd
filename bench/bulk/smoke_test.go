package bulk

import (
	"bytes"
	"context"
	"errors"
	"math"
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
	t.Run("datagrams", func(t *testing.T) { testDatagrams(t, programs) })
	t.Run("interrupted", func(t *testing.T) { testInterrupt(t, programs) })
}

// testPairs runs the kernel and Culvert for a second on one node and on two.
func testPairs(t *testing.T, programs string) {
	leavesNothing(t)
	for _, s := range []Scenario{{"local", NoWire, nil}, {"gso-wire", GSO, nil}} {
		for _, p := range []Pair{baseline, {Culvert, Culvert}} {
			n := 0
			err := Measure(stopped, Options{Seconds: 1, Bin: programs}, s, p, []int{1, 2}, func(connections int, m Measurement) {
				n++
				t.Logf("%s, %s × %d: %+v", s.Name, p, connections, m)
				if connections != n || m.Gbits < 0.1 || m.Gbits > 1000 || m.Seconds < 0.9 || m.CoresBusy <= 0 {
					t.Error("implausible")
				}
				if (m.AgentCores > 0) != p.From.agent() || (m.FrameLen[0] > 100) != (s.Wire == GSO) {
					t.Errorf("culvertds took %g cores, frames have %g bytes", m.AgentCores, m.FrameLen[0])
				}
			})
			if err != nil || n != 2 {
				t.Errorf("%s, %s: %d measurements, %v", s.Name, p, n, err)
			}
		}
	}
}

// testDatagrams sends UDP across the nodes, through the kernel and through Culvert.
func testDatagrams(t *testing.T, programs string) {
	leavesNothing(t)
	for _, p := range []Pair{baseline, {Culvert, Culvert}} {
		err := Measure(stopped, Options{Seconds: 1, WarmUp: 1, Bin: programs, Datagrams: 1000}, Scenario{"mtu-wire", MTU, nil}, p, []int{1},
			func(_ int, m Measurement) {
				t.Logf("%s: %+v", p, m)
				if m.Gbits < 0.01 || m.Lost < 0 || m.Lost >= 1 || math.Abs(m.FrameLen[0]-(1000+8+20+14+50)) > 25 || m.Congestion != "" {
					t.Error("implausible")
				}
			})
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// testInterrupt ends a measurement in its middle.
func testInterrupt(t *testing.T, programs string) {
	leavesNothing(t)
	ctx, cancel := context.WithTimeout(stopped, 2*time.Second)
	defer cancel()
	err := Measure(ctx, Options{Seconds: 30, Bin: programs}, Scenario{"gso-wire", GSO, nil}, Pair{Culvert, Kernel}, []int{1},
		func(int, Measurement) { t.Error("it was measured") })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the measurement ended with %v", err)
	}
}

// TestRefusals checks that a senseless measurement does not begin.
func TestRefusals(t *testing.T) {
	for name, change := range map[string]func(*Options, *Scenario, *Pair, *[]int){
		"fragments":     func(o *Options, _ *Scenario, _ *Pair, _ *[]int) { o.Datagrams = 1500 },
		"no time":       func(o *Options, _ *Scenario, _ *Pair, _ *[]int) { o.Seconds = 0 },
		"long":          func(o *Options, _ *Scenario, _ *Pair, _ *[]int) { o.Seconds = 3600 },
		"no warm-up":    func(_ *Options, s *Scenario, _ *Pair, _ *[]int) { s.Wire = MTU },
		"two in one":    func(_ *Options, _ *Scenario, p *Pair, _ *[]int) { p.To = Tap },
		"missing files": func(o *Options, _ *Scenario, p *Pair, _ *[]int) { o.Bin, *p = t.TempDir(), Pair{Tap, Tap} },
		"connections":   func(_ *Options, _ *Scenario, _ *Pair, c *[]int) { *c = []int{0} },
	} {
		o, s, p, c := Options{Seconds: 1}, Scenario{"local", NoWire, nil}, baseline, []int{1}
		change(&o, &s, &p, &c)
		err := Measure(stopped, o, s, p, c, func(int, Measurement) { t.Errorf("%s: measured", name) })
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
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
