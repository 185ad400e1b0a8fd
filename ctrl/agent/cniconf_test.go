package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/config"
)

// TestConfProblems: what keeps the runtime from our configuration is told as long as it does.
func TestConfProblems(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ours := filepath.Join(from, "10-culvert.conflist")
	put(ours, `{"plugins":[{"type":"culvert-cni","socket":"/run/x.sock"}]}`)
	cfg, err := config.Parse("c.yaml", []byte("node: n\nsocket: /run/x.sock\ncni: {confDir: "+dir+", conf: "+ours+"}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := a.openCNI(); err != nil {
		t.Fatal(err)
	}
	there, first := filepath.Join(dir, "10-culvert.conflist"), filepath.Join(dir, "05-x.conf")
	const foreign = `{"type":"bridge"}`
	for _, c := range []struct {
		name    string
		before  func()
		problem string
	}{
		{"empty", func() {}, ""},
		{"removed", func() { os.Remove(there) }, ""},
		{"another before it", func() { put(first, foreign) }, "05-x.conf comes before 10-culvert.conflist"},
		{"another behind it", func() { os.Rename(first, filepath.Join(dir, "99-x.conf")) }, ""},
		{"another in its place", func() { put(there, foreign) }, "is not Culvert's and stays as it is"},
		{"gone again", func() { os.Remove(there) }, ""},
		{"no directory", func() { os.RemoveAll(dir) }, "no such file"},
	} {
		c.before()
		a.installConf()
		if (c.problem == "") != (a.cniProblem == "") || !strings.Contains(a.cniProblem, c.problem) {
			t.Errorf("%s: %q, want %q", c.name, a.cniProblem, c.problem)
		}
		if _, err := os.Stat(there); c.problem == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	a.cfg.Socket = "/run/y.sock"
	if err := a.openCNI(); err == nil || !strings.Contains(err.Error(), "c.yaml:3: cni.conf") {
		t.Errorf("a configuration that asks elsewhere: %v", err)
	}
}
