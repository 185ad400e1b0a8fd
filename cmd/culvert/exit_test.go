package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/api/apitest"
)

// compile makes the binary.
func compile(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "culvert")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// TestExitCodes runs the built binary: its codes are part of the surface.
func TestExitCodes(t *testing.T) {
	binary := compile(t)
	ready := serve(t, apitest.New())
	starting := apitest.New()
	starting.State.Ready = false
	starting.State.Reasons = []string{"uplink eth0 is down"}
	notReady := serve(t, starting)
	nobody := filepath.Join(t.TempDir(), "nobody.sock")
	for _, c := range []struct {
		args   string
		socket string
		code   int
		stdout string // a part of it; "-" for none at all
		stderr string
	}{
		{"status", ready, 0, "state     ready\n", ""},
		{"status --brief", ready, 0, "worker-1 ready\n", ""},
		{"route get 10.244.2.3", ready, 0, "10.244.2.0/24", ""},
		{"flow flush --proto 6 --state established", ready, 0, "1 flow entries have been deleted.\n", ""},
		{"explain no_route", nobody, 0, "no_route: ", ""},
		{"version", nobody, 0, "culvert ", ""},
		{"--version", nobody, 0, "culvert ", ""},
		{"--help", nobody, 0, "Usage:", ""},

		{"route get 10.77.0.1", ready, 1, "-", "culvert: no route to 10.77.0.1\n"},
		{"route get 10.77.0.1 -o json", ready, 1, "-", "culvert: no route to 10.77.0.1\n"},
		{"trace --src 10.244.1.2 --dst 10.9.0.1 --port nowhere", ready, 1, "-", "culvert: there is no port nowhere\n"},
		{"port", nobody, 1, "-", "culvertd does not answer on " + nobody},
		{"status", nobody, 1, "-", "culvertd does not answer"},

		{"route get nonsense", ready, 2, "-", `"nonsense" is no IP address`},
		{"route get", ready, 2, "-", "accepts 1 arg(s)"},
		{"route nonsense", ready, 2, "-", "unknown command"},
		{"nonsense", ready, 2, "-", "unknown command"},
		{"port -o yaml", ready, 2, "-", "must be one of table, json"},
		{"port --nonsense", ready, 2, "-", "unknown flag"},
		{"explain nonsense", nobody, 2, "-", "no drop reason"},
		{"explain none", nobody, 2, "-", "no drop reason"},
		{"trace --dst 10.9.0.1", ready, 2, "-", "required flag"},
		{"flow --src nonsense", ready, 2, "-", "is no IP address"},
		{"flow --proto foo", ready, 2, "-", `"foo" is no protocol`},
		{"flow --proto 256", ready, 2, "-", `"256" is no protocol`},
		{"flow --proto=", ready, 2, "-", `"" is no protocol`},
		{"flow flush --state nope", ready, 2, "-", `"NOPE" is no state`},
		{"flow watch -p foo", nobody, 2, "-", `"foo" is no protocol`},
		{"lab up --nodes 0", nobody, 2, "-", "from 1 to 26"},
		{"lab up --nodes 27", nobody, 2, "-", "from 1 to 26"},
		{"lab up --nodes -1", nobody, 2, "-", "from 1 to 26"},
		{"lab up --pods 0", nobody, 2, "-", "from 1 to 100"},
		{"lab demo --mtu 0", nobody, 2, "-", "from 576 to 9000"},
		{"lab demo --nodes two", nobody, 2, "-", "from 1 to 26"},
		{"lab up --nodes 1 --peer flannel", nobody, 2, "-", "at least 2 nodes"},

		{"status", notReady, 3, "not ready: uplink eth0 is down\n", "not ready"},
		{"status --brief", notReady, 3, "worker-1 not ready: uplink eth0 is down\n", "not ready"},
		{"status -o json", notReady, 3, `"ready": false`, "not ready"},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := exec.Command(binary, strings.Fields(c.args)...)
			cmd.Env = append(os.Environ(), "CULVERT_SOCKET="+c.socket)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("exit code %d, want %d; standard error %q", got, c.code, &stderr)
			}
			if c.stdout == "-" && stdout.Len() > 0 || c.stdout != "-" && !strings.Contains(stdout.String(), c.stdout) {
				t.Errorf("standard output %q, want %q", &stdout, c.stdout)
			}
			if !strings.Contains(stderr.String(), c.stderr) || c.code == 0 && stderr.Len() > 0 {
				t.Errorf("standard error %q, want %q", &stderr, c.stderr)
			}
		})
	}
}
