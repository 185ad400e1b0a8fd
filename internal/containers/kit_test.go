//go:build containers

package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// What the tests run, built and found once.
var (
	binDir string // Culvert's programs, cnitool, cri and podtool
	debDir string // what scripts/container-binaries has fetched
)

// newPlugins is where in binDir newer plugins of the CNI project are than Debian's, which
// know CNI 1.1.
const newPlugins = "plugins"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if debDir = os.Getenv("CONTAINER_BIN"); debDir == "" {
			fmt.Fprintln(os.Stderr, "CONTAINER_BIN is empty: run make test-containers")
			return 1
		}
		dir, err := os.MkdirTemp("", "culvert-containers-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binDir = dir
		os.Setenv("CULVERTD_CHECK_FRAMES", "1")
		for _, b := range [][]string{
			{"../..", "", "./cmd/culvertd", "./cmd/culvert-cni", "./cmd/culvert", "./internal/containers/podtool"},
			{"../../tools/cni", "", "./cri", "github.com/containernetworking/cni/cnitool"},
			{"../../tools/cni", newPlugins, "tool"},
		} {
			build := exec.Command("go", append([]string{"build", "-pgo=off", "-o", filepath.Join(dir, b[1]) + "/"}, b[2:]...)...)
			build.Dir, build.Env = b[0], append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// cluster is a lab whose first node the tests are about.
type cluster struct {
	*lab.Lab
	t    *testing.T
	node *lab.Node
	dir  string // the test's files
}

// up builds a lab, which goes with the test.
func up(t *testing.T, opts lab.Options) *cluster {
	t.Helper()
	opts.BinDir = binDir
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{l, t, l.Nodes[0], t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.node.LogFile)
			t.Logf("culvertd:\n%s", log[max(0, len(log)-6000):])
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"net.d", "varlib", "bin"} {
		if err := os.Mkdir(filepath.Join(c.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.collectPlugins()
	return c
}

// collectPlugins puts ours and the CNI project's plugins into one directory.
func (c *cluster) collectPlugins() {
	plugins, _ := filepath.Glob(filepath.Join(debDir, "usr/lib/cni/*"))
	for _, path := range append(plugins, filepath.Join(binDir, "culvert-cni")) {
		if err := os.Symlink(path, filepath.Join(c.dir, "bin", filepath.Base(path))); err != nil {
			c.t.Fatal(err)
		}
	}
}

// newNetns makes a namespace for a pod and returns its name; its path is in /run/netns.
func (c *cluster) newNetns(name string) string {
	c.t.Helper()
	name = c.Name + "-" + name // Down deletes those
	c.must("ip", "netns", "add", name)
	return name
}

// conflist writes a network configuration of culvert-cni, with fields added, and of the
// plugins that follow it. A version may be a choice: "1.0.0,1.1.0".
func (c *cluster) conflist(version, fields string, chained ...string) {
	c.t.Helper()
	all := strings.Split(version, ",")
	choice, _ := json.Marshal(all)
	ours := fmt.Sprintf(`{"type":"culvert-cni","socket":%q,"logFile":%q%s}`, c.node.Socket, filepath.Join(c.dir, "cni.log"), fields)
	text := fmt.Sprintf(`{"cniVersion":%q,"cniVersions":%s,"name":"culvert","plugins":[%s]}`, all[0], choice, strings.Join(append([]string{ours}, chained...), ","))
	if !json.Valid([]byte(text)) {
		c.t.Fatalf("not JSON: %s", text)
	}
	c.writeConf(text)
}

// writeConf puts a configuration in place at once, as installers do: runtimes watch.
func (c *cluster) writeConf(text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, "net.d", "10-culvert.conflist")
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
		c.t.Fatal(err)
	}
}

// command is a command in a network namespace, with the programs of these tests on its path.
func (c *cluster) command(netns string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + netns}, args...)...)
	cmd.Env = append(os.Environ(), c.env()...)
	return cmd
}

func (c *cluster) env() []string {
	libs, _ := filepath.Glob(filepath.Join(debDir, "usr/lib/*/xtables"))
	return []string{
		"PATH=" + strings.Join([]string{binDir, debDir + "/usr/bin", debDir + "/usr/sbin", os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":"),
		"XTABLES_LIBDIR=" + strings.Join(libs, ":"),
		"NETCONFPATH=" + filepath.Join(c.dir, "net.d"), "CNI_PATH=" + filepath.Join(c.dir, "bin"),
	}
}

// in runs a command in a namespace.
func (c *cluster) in(netns string, args ...string) (string, error) {
	return output(c.command(netns, args...))
}

// must runs a command that succeeds.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	out, err := output(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// mustIn is in for a command that succeeds.
func (c *cluster) mustIn(netns string, args ...string) string {
	c.t.Helper()
	out, err := c.in(netns, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// output runs a command and returns what it printed; both streams are in its error.
func output(cmd *exec.Cmd) (string, error) {
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	defer timer.Stop()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// pods is what culvertd has.
func (c *cluster) pods() map[string]api.Pod {
	c.t.Helper()
	var list []api.Pod
	if err := api.NewClient(c.node.Socket).Get(context.Background(), "/v1/pods", &list); err != nil {
		c.t.Fatal(err)
	}
	all := map[string]api.Pod{}
	for _, p := range list {
		all[p.Name] = p
	}
	return all
}

// eventually tries f until it succeeds or half a minute has passed.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
