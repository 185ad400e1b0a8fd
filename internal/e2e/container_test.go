package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"culvert/ctrl/api"
	"culvert/deploy"
	"culvert/internal/lab"
)

// inContainer starts culvertd the way the runtime does in deploy/culvert.yaml: the capabilities
// of the manifest and no others, no new privileges, /proc/sys and /sys read-only, the
// node's /proc/sys/net writable elsewhere.
const inContainer = `#!/bin/sh
exec unshare --mount --propagation slave sh -ec '
mkdir -p %[1]s/net
mount --bind /proc/sys/net %[1]s/net
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /sys /sys
mount -o remount,bind,ro /sys
export CULVERTD_PROC_SYS=%[1]s
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all%[2]s %[3]s "$@"
' culvertd "$@"
`

// manifestCapabilities are those that the DaemonSet adds to none.
func manifestCapabilities(t *testing.T) (names []string) {
	t.Helper()
	for doc := range strings.SplitSeq(string(deploy.Manifest), "\n---\n") {
		var ds appsv1.DaemonSet
		if err := yaml.Unmarshal([]byte(doc), &ds); err != nil || ds.Kind != "DaemonSet" {
			continue
		}
		for _, c := range ds.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
			names = append(names, strings.ToLower(string(c)))
		}
	}
	return names
}

// capabilityBits are those of linux/capability.h.
var capabilityBits = map[string]uint{"net_admin": 12, "net_raw": 13, "ipc_lock": 14, "sys_admin": 21}

// TestInContainer: with what the DaemonSet gives it, culvertd does all that pods of either
// kind and family need, and the runtime is told of the plugin once it can be asked.
func TestInContainer(t *testing.T) {
	bin, names := t.TempDir(), manifestCapabilities(t)
	var want uint64
	for _, name := range names {
		want |= 1 << capabilityBits[name]
	}
	script := fmt.Sprintf(inContainer, filepath.Join(bin, "sys"), ",+"+strings.Join(names, ",+"), filepath.Join(binDir, "culvertd"))
	if err := os.WriteFile(filepath.Join(bin, "culvertd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"culvert", "culvert-cni"} {
		if err := os.Symlink(filepath.Join(binDir, name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	conf := func(n *lab.Node) string { return filepath.Join(filepath.Dir(n.Socket), "net.d") }
	c := upFrom(t, bin, lab.Options{
		Family: lab.Dual, Interfaces: []string{"veth", "tap"},
		Source: func(l *lab.Lab, n *lab.Node) (string, error) {
			from := filepath.Join(filepath.Dir(n.Socket), "10-culvert.conflist")
			list := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"culvert","plugins":[{"type":"culvert-cni","socket":%q}]}`, n.Socket)
			if err := os.MkdirAll(conf(n), 0o755); err != nil {
				return "", err
			}
			return fmt.Sprintf("source: dir:%s\ncni: {confDir: %s, conf: %s}\n", l.ManifestDir(), conf(n), from), os.WriteFile(from, []byte(list), 0o600)
		},
	})
	n, far := c.Nodes[0], c.Nodes[1]
	if got := effective(t, n.PID); got != want {
		t.Errorf("capabilities %#x, the manifest gives %#x: %v", got, want, names)
	}
	reach := func() {
		t.Helper()
		for _, from := range n.Pods {
			for _, to := range slices.Concat(n.Pods, far.Pods) {
				for _, a := range to.Addrs {
					must(t, from.Netns, "ping", "-n", "-c", "1", "-W", "2", a.String())
				}
			}
		}
		transfer(t, n.Pods[0].Netns, far.Pods[1].Netns, far.Pods[1].Addr.String(), 2, 1<<20)
	}
	reach()
	eventually(t, "the runtime is told", func() error {
		_, err := os.Stat(filepath.Join(conf(n), "10-culvert.conflist"))
		return err
	})
	healthy(t, n, conf(n), names)
	looked := 0
	for _, p := range culvertJSON[[]api.Pod](t, n, "pod") {
		if p.Name != n.Pods[0].Name { // the other's device is in the pod
			continue
		}
		for path, value := range map[string]string{"ipv6/conf/%s/disable_ipv6": "1", "ipv4/conf/%s/forwarding": "0"} {
			path = "/proc/sys/net/" + fmt.Sprintf(path, p.Port)
			if got := must(t, n.Netns, "cat", path); strings.TrimSpace(got) != value {
				t.Errorf("%s is %s", path, got)
			}
			looked++
		}
	}
	if looked != 2 {
		t.Errorf("%d settings looked at", looked)
	}
	if err := c.StopAgent(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(conf(n), "10-culvert.conflist")
	if err := os.Remove(file); err != nil { // on a new node it is not there
		t.Fatal(err)
	}
	startUnready(t, c, n, func() {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the runtime is told of an agent that is not ready: %v", err)
		}
	})
	reach()
	eventually(t, "the runtime is told again", func() error {
		_, err := os.Stat(file)
		return err
	})
}

// startUnready starts a node's agent without its manifests, calls meanwhile when it has
// said for a while that it is not ready, and gives it the manifests.
func startUnready(t *testing.T, c *cluster, n *lab.Node, meanwhile func()) {
	t.Helper()
	away := c.ManifestDir() + ".away"
	if err := errors.Join(os.Rename(c.ManifestDir(), away), os.Mkdir(c.ManifestDir(), 0o755)); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- c.StartAgent(context.Background(), n) }()
	eventually(t, "the agent is not ready", func() error {
		var s api.Status
		if err := api.NewClient(n.Socket).Get(t.Context(), "/v1/status", &s); err != nil {
			return err
		}
		if s.Ready || !strings.Contains(strings.Join(s.Reasons, " "), "Node object") {
			return fmt.Errorf("ready %v: %v", s.Ready, s.Reasons)
		}
		return nil
	})
	time.Sleep(500 * time.Millisecond) // more than twice as long as it waits between looks
	meanwhile()
	files, err := filepath.Glob(filepath.Join(away, "*"))
	for _, f := range files {
		err = errors.Join(err, os.Rename(f, filepath.Join(c.ManifestDir(), filepath.Base(f))))
	}
	if err = errors.Join(err, <-started); err != nil {
		t.Fatal(err)
	}
}

// healthy lets 'culvert doctor' examine a node as 'kubectl exec' would.
func healthy(t *testing.T, n *lab.Node, confDir string, capabilities []string) {
	t.Helper()
	out := must(t, n.Netns, "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+"+strings.Join(capabilities, ",+"),
		filepath.Join(binDir, "culvert"), "--socket", n.Socket, "doctor", "-o", "json", "--cni-conf-dir", confDir)
	var all []struct{ Check, State, Found string }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, f := range all {
		if f.State != "ok" && !strings.HasPrefix(f.Check, "uplink") { // a veth is what the lab has
			t.Errorf("doctor: %+v", f)
		}
		if f.Check == "peers" && !strings.HasPrefix(f.Found, "1 of 1 asked") {
			t.Errorf("doctor: %+v", f)
		}
	}
}

// effective are a process's capabilities.
func effective(t *testing.T, pid int) uint64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return mask
		}
	}
	t.Fatalf("no capabilities in %s", status)
	return 0
}
