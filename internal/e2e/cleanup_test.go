package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"culvert/ctrl/cleanup"
	"culvert/internal/lab"
)

// nodeLooks is what of a node Culvert could have changed: links, addresses, routes, rules,
// packet filter, and the files below dirs.
func nodeLooks(t *testing.T, n *lab.Node, dirs ...string) string {
	t.Helper()
	var b strings.Builder
	for _, words := range []string{
		"ip -br link", "ip -br addr", "ip route show table all", "ip -6 route show table all", "ip rule", "ip neigh show nud permanent",
		"nft list ruleset", "tc qdisc show",
	} {
		b.WriteString("# " + words + "\n" + must(t, n.Netns, strings.Fields(words)...))
	}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				b.WriteString(path + "\n")
			}
			return nil
		})
	}
	return b.String()
}

// cleanupOf runs `culvert cleanup` on a node.
func cleanupOf(t *testing.T, n *lab.Node, args ...string) (items []cleanup.Item, err error) {
	t.Helper()
	dir := filepath.Dir(n.Socket)
	args = append([]string{
		filepath.Join(binDir, "culvert"), "cleanup", "-o", "json", "--config", filepath.Join(dir, "culvertd.yaml"),
		"--cni-conf-dir", filepath.Join(dir, "net.d"), "--cni-bin-dir", filepath.Join(dir, "bin"),
	}, args...)
	out, err := netns(n.Netns, args...)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(out), &items); err != nil {
		t.Fatalf("culvert %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return items, nil
}

// After `culvert cleanup` a node is as it was before Culvert came; before, cleanup says
// what is in its way.
func TestCleanup(t *testing.T) {
	never := map[string]string{} // by node: how it looked before culvertd ever ran there
	c := up(t, lab.Options{Pods: 3, Interfaces: []string{"veth", "tap"}, Source: func(l *lab.Lab, n *lab.Node) (string, error) {
		if never[n.Name] == "" {
			never[n.Name] = nodeLooks(t, n)
		}
		return "source: dir:" + l.ManifestDir() + "\n", nil
	}})
	n := c.Nodes[0]
	dir := filepath.Dir(n.Socket)
	state := filepath.Join(dir, "state")
	files := map[string]string{
		"net.d/10-culvert.conflist": `{"cniVersion":"1.0.0","name":"k8s","plugins":[{"type":"culvert-cni"},{"type":"portmap"}]}`,
		"net.d/20-other.conflist":   `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}`,
		"net.d/README":              "culvert-cni",
		"bin/culvert-cni":           "the plugin",
		"bin/bridge":                "another",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(why string, args ...string) {
		t.Helper()
		if _, err := cleanupOf(t, n, args...); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("cleanup %v: %v, want %q", args, err, why)
		}
	}
	refused("culvertd runs", "--force")
	if err := c.StopAgent(n, syscall.SIGKILL); err != nil { // the socket is left, too
		t.Fatal(err)
	}
	refused("lab/a1, lab/a2, lab/a3; drain the node")
	before := ""
	eventually(t, "the kernel has removed what ends with culvertd", func() error {
		last := before
		if before = nodeLooks(t, n, dir); before != last || strings.Contains(before, "cvi") || strings.Contains(before, "cvg") {
			return errors.New(before)
		}
		return nil
	})
	dry, err := cleanupOf(t, n, "--force", "--dry-run")
	if err != nil || slices.ContainsFunc(dry, func(i cleanup.Item) bool { return i.Removed }) {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	if after := nodeLooks(t, n, dir); after != before {
		t.Errorf("a dry run changed\n%s to\n%s", before, after)
	}
	// What a culvertd without a namespace of its own would leave, and what looks like it.
	for _, add := range []string{
		"cvi0a1b2cs type veth peer name other0", "cvi0a1b2c type veth peer name other1", "cvnotours type veth peer name other2",
	} {
		must(t, n.Netns, append([]string{"ip", "link", "add"}, strings.Fields(add)...)...)
	}
	done, err := cleanupOf(t, n, "--force")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range done {
		if !i.Removed {
			t.Errorf("not removed: %+v", i)
		}
		names = append(names, i.Name)
	}
	for _, want := range []string{
		"culvert0", "cvi0a1b2cs", filepath.Join(dir, "net.d/10-culvert.conflist"), filepath.Join(dir, "bin/culvert-cni"), n.Socket,
		filepath.Join(state, "pods"), filepath.Join(state, "lock"), state,
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %q", want, names)
		}
	}
	for _, name := range []string{"cvi0a1b2c", "cvnotours"} {
		must(t, n.Netns, "ip", "link", "del", name)
	}
	for _, p := range n.Pods {
		if out, err := netns(p.Netns, "ip", "link", "show", "eth0"); err == nil {
			t.Errorf("pod %s has its interface still:\n%s", p.Name, out)
		}
	}
	if again, err := cleanupOf(t, n); err != nil || len(again) != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if after := nodeLooks(t, n); after != never[n.Name] {
		t.Errorf("before Culvert the node was\n%s and after it is\n%s", never[n.Name], after)
	}
	for name := range files {
		gone := name == "net.d/10-culvert.conflist" || name == "bin/culvert-cni"
		if _, err := os.Stat(filepath.Join(dir, name)); (err != nil) != gone {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.StartAgent(context.Background(), n); err != nil { // installed anew
		t.Fatal(err)
	}
	if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := cleanupOf(t, n); err != nil {
		t.Errorf("of a node that was drained: %v", err)
	}
	if after := nodeLooks(t, n); after != never[n.Name] {
		t.Errorf("before Culvert the node was\n%s and after it is\n%s", never[n.Name], after)
	}
}
