package main

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/api/apitest"
	"culvert/ctrl/apiserver"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden from what the commands print")

// serve runs a on a real socket until the test ends and returns its path.
func serve(t *testing.T, a *apitest.Agent) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "culvert.sock")
	l, err := apiserver.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- apiserver.Serve(ctx, l, apiserver.Handler(a), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestGolden holds what every listing prints: testdata/NAME.golden.
func TestGolden(t *testing.T) {
	socket := serve(t, apitest.New())
	for name, args := range map[string]string{
		"status":       "status",
		"status-brief": "status --brief",
		"status-json":  "status -o json",
		"port":         "port",
		"port-json":    "port -o json",
		"route":        "route",
		"route-json":   "route -o json",
		"route-get":    "route get 10.244.2.3",
		"route-get-j":  "route get 10.244.2.3 -o json",
		"fdb":          "fdb",
		"fdb-json":     "fdb -o json",
		"neigh":        "neigh",
		"neigh-json":   "neigh -o json",
		"peer":         "peer",
		"pod":          "pod",
		"ipam":         "ipam",
		"ipam-json":    "ipam -o json",
		"ipam-show":    "ipam show 10.244.1.2",
		"ipam-cooling": "ipam show 10.244.1.3",
		"ipam-foreign": "ipam show 10.9.9.9",
		"ipam-show-j":  "ipam show 10.244.1.2 -o json",
		"flow":         "flow",
		"flow-json":    "flow -o json",
		"flow-udp":     "flow --proto udp --dst 10.244.2.0/24",
		"flow-flush":   "flow flush --proto tcp",
		"drops":        "drops",
		"drops-json":   "drops -o json",
		"explain":      "explain no_route",
		"explain-json": "explain -o json no_route",
		"trace":        "trace --src 10.244.1.2 --dst 10.9.0.1 --proto tcp --dport 80",
		"config":       "config",
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), append(strings.Fields(args), "--socket", socket), &stdout, &stderr); code != 0 {
				t.Fatalf("culvert %s: exit code %d: %s", args, code, &stderr)
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, stdout.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(stdout.Bytes(), want) {
				t.Errorf("culvert %s prints\n%s\nwant\n%s", args, &stdout, want)
			}
		})
	}
}

// TestKernelWords: these forms are those of bridge, ip and conntrack, which
// scripts parse already.
func TestKernelWords(t *testing.T) {
	socket := serve(t, apitest.New())
	for args, want := range map[string]string{
		"fdb":                  "66:61:0d:36:b4:86 dst 192.168.0.42 self permanent\n",
		"route get 10.244.1.0": "local 10.244.1.0 proto native\n",
		"flow --proto tcp": "tcp      6 431999 ESTABLISHED src=10.244.1.2 dst=10.244.2.3 sport=40000 dport=80 packets=10 bytes=1000 " +
			"src=10.244.2.3 dst=10.244.1.2 sport=80 dport=40000 packets=8 bytes=9000 [ASSURED]\n",
	} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), append(strings.Fields(args), "--socket", socket), &stdout, &stderr)
		if stdout.String() != want {
			t.Errorf("culvert %s: %q, want %q", args, stdout.String(), want)
		}
		if args == "flow --proto tcp" && stderr.String() != "1 flow entries have been shown.\n" {
			t.Errorf("culvert %s: standard error %q", args, stderr.String())
		}
	}
}
