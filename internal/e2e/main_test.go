package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// binDir holds the programs under test, built once.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "culvert-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binDir = dir
		// Every agent of these tests verifies who owns each frame, at every step.
		os.Setenv("CULVERTD_CHECK_FRAMES", "1")
		if there := os.Getenv("VM_PROGRAMS"); there != "" { // in a virtual machine, which has no compiler
			binDir = there
			return m.Run()
		}
		args := []string{"build", "-pgo=off", "-o", dir + "/"}
		if raceBuild {
			args = append(args, "-race")
			// Every program sleeps a second at its end by default, and a lab has dozens.
			os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=20"))
		}
		build := exec.Command("go", append(args, "../../cmd/culvertd", "../../cmd/culvert-cni", "../../cmd/culvert")...)
		if !raceBuild { // the race detector needs cgo
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// cluster is a lab with the helpers that tests need.
type cluster struct {
	*lab.Lab
	t *testing.T
}

// up builds a lab that is removed with the test. When the test fails, the
// agents' logs and drop counters are shown.
func up(t *testing.T, opts lab.Options) *cluster {
	t.Helper()
	return upFrom(t, binDir, opts)
}

// upFrom is up with programs of another directory.
func upFrom(t *testing.T, bin string, opts lab.Options) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root: sudo make test")
	}
	opts.BinDir = bin
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{l, t}
	t.Cleanup(func() {
		for _, n := range c.Nodes {
			if n.Kind == lab.Culvert {
				c.stopCleanly(n)
			}
		}
		if t.Failed() {
			c.explain()
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// stopCleanly ends a node's agent, if it runs, and fails the test if it lost
// frames or does not say that it is done.
func (c *cluster) stopCleanly(n *lab.Node) {
	if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
		c.t.Error(err)
	}
	log, err := os.ReadFile(n.LogFile)
	if err != nil {
		c.t.Error(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "msg=source") || strings.Contains(line, "another XDP program is on the device") {
			continue // a mistake that a test made on purpose
		}
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic:") || strings.Contains(line, "DATA RACE") {
			c.t.Errorf("%s: %s", n.Name, line)
		}
	}
}

// explain logs what the agents have to say.
func (c *cluster) explain() {
	for _, n := range c.Nodes {
		if n.Kind != lab.Culvert {
			continue
		}
		log, _ := os.ReadFile(n.LogFile)
		if len(log) > 8000 {
			log = log[len(log)-8000:]
		}
		c.t.Logf("%s:\n%s", n.Name, log)
		var drops []api.Drop
		if err := api.NewClient(n.Socket).Get(context.Background(), "/v1/drops", &drops); err == nil {
			c.t.Logf("%s drops: %+v", n.Name, drops)
		}
	}
}

// netns runs a command in a namespace and returns its output and error.
func netns(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", name}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s in %s: %w\n%s", strings.Join(args, " "), name, err, out)
	}
	return string(out), err
}

// must runs a command in a namespace and fails the test if it fails.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := netns(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// culvert runs the operator's command against a node's agent.
func culvert(t *testing.T, n *lab.Node, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, "culvert"), append([]string{"--socket", n.Socket}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("culvert %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// culvertJSON decodes the JSON output of the operator's command.
func culvertJSON[T any](t *testing.T, n *lab.Node, args ...string) (v T) {
	t.Helper()
	out := culvert(t, n, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("culvert %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// eventually tries f until it succeeds or five seconds have passed.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// dropped is the number of frames that a node dropped for a reason.
func dropped(t *testing.T, n *lab.Node, reason string) (sum uint64) {
	t.Helper()
	for _, d := range culvertJSON[[]api.Drop](t, n, "drops") {
		if d.Reason == reason {
			sum += d.Packets
		}
	}
	return sum
}

// command is a command in a namespace.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", name}, args...)...)
}

// iperf measures TCP from one namespace to another in Gbit/s.
func iperf(t *testing.T, from, to, addr string, seconds int) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds+20)*time.Second)
	defer cancel()
	server := command(ctx, to, "iperf3", "-s", "-1", "-p", "5201")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	var out []byte
	var err error
	for range 20 { // until the server listens
		time.Sleep(100 * time.Millisecond)
		if out, err = command(ctx, from, "iperf3", "-c", addr, "-p", "5201", "-t", fmt.Sprint(seconds), "-J").Output(); err == nil {
			break
		}
	}
	var r struct {
		End struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err != nil || json.Unmarshal(out, &r) != nil {
		t.Fatalf("iperf3 from %s to %s: %v\n%s", from, addr, err, out)
	}
	return r.End.SumReceived.BitsPerSecond / 1e9
}

// median of an odd number of values.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
