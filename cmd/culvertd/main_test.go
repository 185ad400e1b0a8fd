package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/config"
)

// TestRun: exit codes and what is said where. The agent is a double.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", "node: worker-7\n")
	bad := file("bad.yaml", "node: worker-7\nmodus: native\n")
	for _, c := range []struct {
		name   string
		args   []string
		agent  error
		code   int
		stdout string
		stderr string
		ran    bool
	}{
		{"run", []string{"--config", good}, nil, 0, "", "", true},
		{"run without a file", nil, nil, 0, "", "", true},
		{"agent fails", []string{"--config", good}, errors.New("no uplink"), 1, "", "no uplink", true},
		{"json log", []string{"--config", good, "--log-format", "json"}, errors.New("no uplink"), 1, "", `"error":"no uplink"`, true},
		{"check", []string{"--config", good, "--check"}, nil, 0, "worker-7 is valid\n", "", false},
		{"check of a bad file", []string{"--config", bad, "--check"}, nil, 2, "", "bad.yaml:2: modus: ", false},
		{"bad file", []string{"--config", bad}, nil, 2, "", "bad.yaml:2: modus: ", false},
		{"no such file", []string{"--config", filepath.Join(dir, "none")}, nil, 2, "", "does not exist", false},
		{"version", []string{"--version"}, nil, 0, "culvertd ", "", false},
		{"help", []string{"--help"}, nil, 0, "-log-format", "", false},
		{"unknown flag", []string{"--nonsense"}, nil, 2, "", "-nonsense; see culvertd --help", false},
		{"argument", []string{"nonsense"}, nil, 2, "", `unexpected argument "nonsense"`, false},
		{"log format", []string{"--log-format", "xml"}, nil, 2, "", "must be text or json", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ran := false
			serve := func(_ context.Context, cfg *config.Config, _ *slog.Logger) error {
				ran = cfg != nil
				return c.agent
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), c.args, []string{"NODE_NAME=worker-1"}, &stdout, &stderr, serve)
			if code != c.code || ran != c.ran {
				t.Errorf("exit code %d, agent ran: %v; want %d, %v", code, ran, c.code, c.ran)
			}
			if !strings.Contains(stdout.String(), c.stdout) || c.stdout == "" && stdout.Len() > 0 {
				t.Errorf("standard output %q, want %q", &stdout, c.stdout)
			}
			if !strings.Contains(stderr.String(), c.stderr) || c.stderr == "" && stderr.Len() > 0 {
				t.Errorf("standard error %q, want %q", &stderr, c.stderr)
			}
			if c.code != 0 && strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("%q is not one line", &stderr)
			}
		})
	}
}

// TestUnknownVariable is a warning: the environment belongs to others too.
func TestUnknownVariable(t *testing.T) {
	var stdout, stderr bytes.Buffer
	serve := func(context.Context, *config.Config, *slog.Logger) error { return nil }
	environ := []string{"NODE_NAME=worker-1", "CULVERT_MODUS=native"}
	if code := run(t.Context(), nil, environ, &stdout, &stderr, serve); code != 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	if !strings.Contains(stderr.String(), "variable=CULVERT_MODUS") {
		t.Errorf("standard error %q", &stderr)
	}
}
