package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/bench/result"
)

// call runs the command and returns its exit code and what it wrote.
func call(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, diagnostics bytes.Buffer
	code = execute(ctx, args, &out, &diagnostics)
	return code, out.String(), diagnostics.String()
}

// leavesNothing checks, when the test ends, that no file of a testbed is left.
func leavesNothing(t *testing.T) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	t.Cleanup(func() {
		left, err := os.ReadDir(os.Getenv("TMPDIR"))
		if err != nil || len(left) > 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
	})
}

// TestRun measures the kernel for a moment: a table, the results and the page come
// of it, and the results can be shown and compared.
func TestRun(t *testing.T) {
	out := t.TempDir()
	leavesNothing(t)
	code, stdout, stderr := call(t.Context(), "run", "--force", "-e", "encap-size,latency", "-d", "kernel", "--quick", "--rounds", "1",
		"--duration", "200ms", "--warm-up", "20ms", "--patience", "0s", "--out", out)
	results := filepath.Join(out, "results.json")
	if code != 0 || !strings.Contains(stdout, results) || !strings.Contains(stdout, "kernel: flannel.1") || !strings.Contains(stderr, "encap-size 1/1  kernel  64 B") {
		t.Fatalf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	r, err := result.Read(results)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Experiments {
		for n := range e.Cases {
			if s := e.Cases[n].Spread("kernel", e.Metric); s.N != 1 || s.Median <= 0 {
				t.Errorf("%s, %s: %+v", e.Name, e.Cases[n].Name, s)
			}
		}
	}
	if r.Settings.Set != "chosen" || r.Settings.Rounds != 1 || r.Settings.Seconds != 0.2 {
		t.Errorf("settings are %+v", r.Settings)
	}
	page := filepath.Join(t.TempDir(), "new", "page.html")
	if code, again, _ := call(t.Context(), "report", results, "--html", page); code != 0 || !strings.HasPrefix(stdout, again) {
		t.Errorf("shown again, exit code %d:\n%s", code, again)
	}
	if b, err := os.ReadFile(page); err != nil || !bytes.Contains(b, []byte("<svg")) {
		t.Errorf("the page: %v", err)
	}
	if code, text, _ := call(t.Context(), "compare", results, results); code != 0 || !strings.Contains(text, "0 of") || !strings.Contains(text, "too few") {
		t.Errorf("compared with itself, exit code %d:\n%s", code, text)
	}
	code, text, _ := call(t.Context(), "compare", results, results, "-o", "json")
	if code != 0 || !json.Valid([]byte(text)) {
		t.Errorf("compared as JSON, exit code %d:\n%s", code, text)
	}
}

// TestInterrupt ends a run in its middle: it reports what it has, and leaves
// nothing.
func TestInterrupt(t *testing.T) {
	out := t.TempDir()
	leavesNothing(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(2*time.Second, func() { cancel(errInterrupted) })
	code, _, stderr := call(ctx, "run", "--force", "-e", "encap-size", "-d", "kernel", "--duration", "10s", "--patience", "0s", "--out", out)
	if code != exitInterrupted || !strings.Contains(stderr, "interrupted") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if r, err := result.Read(filepath.Join(out, "results-part.json")); err != nil || len(r.Experiments) != 1 {
		t.Errorf("the results so far: %+v, %v", r, err)
	}
}

func TestUsage(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(broken, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"run -e speed", exitUsage, `experiment "speed" is unknown: there are encap-size, `},
		{"run -e encap-size -d router", exitUsage, `device "router" is in none`},
		{"run --duration 1ns", exitUsage, "must be 100ms to 1m"},
		{"run --rounds -1", exitUsage, "-1 rounds"},
		{"run --rounds 0", exitUsage, "0 rounds"},
		{"run --duration 0", exitUsage, "must be 100ms to 1m"},
		{"run --generator-cpu 99", exitUsage, "processor 99"},
		{"run --generator trex", exitUsage, "must be xdp, af_xdp or pktgen"},
		{"run --against x", exitUsage, "must be formatted as key=value"},
		{"run faster", exitUsage, "unknown command"},
		{"compare", exitUsage, "accepts 2 arg"},
		{"compare a.json b.json -o yaml", exitUsage, "must be text or json"},
		{"compare a.json b.json", exitFailed, "a.json"},
		{"report " + broken, exitFailed, broken},
	} {
		code, _, stderr := call(t.Context(), strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d, want %d\n%s", c.args, code, c.code, stderr)
		}
	}
}

func TestList(t *testing.T) {
	code, stdout, stderr := call(t.Context(), "list")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"encap-size", "decap-size", "latency", "zero-loss", "pods", "ovs-native", "kernel-rps", "tcp-mtu-wire", "tap-tap"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %s in\n%s", want, stdout)
		}
	}
}
