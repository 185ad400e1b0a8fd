package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/config"
)

const kubeconfig = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
 clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}], users: [{name: u, user: {token: t}}]}
`

func sourceOf(t *testing.T, path string) (*Agent, error) {
	t.Helper()
	cfg, err := config.Parse("c.yaml", []byte("node: n\nsource: kube\nkubeconfig: "+path+"\nstateDir: "+t.TempDir()+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{cfg: cfg, log: slog.New(slog.DiscardHandler), version: "v"}
	return a, a.openSource()
}

func TestSourceIsKube(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	_, err := sourceOf(t, path)
	if key := (*config.KeyError)(nil); !errors.As(err, &key) || !strings.HasPrefix(err.Error(), "c.yaml:3: kubeconfig: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := sourceOf(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if a.source.Name() != "kube" || len(a.sourceObjects()) != 0 || len(a.sourceParts()) != 0 {
		t.Errorf("before it runs: %s, %+v, %+v", a.source.Name(), a.sourceObjects(), a.sourceParts())
	}
}
