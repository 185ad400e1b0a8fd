//go:build cluster

package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/ociimage"
)

// What the tests run, built and found once.
var (
	kubeDir string // what scripts/kube-binaries has built
	debDir  string // what scripts/container-binaries has fetched
	binDir  string // Culvert's programs, podtool, and the images of both
)

// podtool is the image that all pods run.
const podtool = "localhost/podtool:1"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		kubeDir, debDir = os.Getenv("KUBETEST_BIN"), os.Getenv("CONTAINER_BIN")
		if kubeDir == "" || debDir == "" {
			fmt.Fprintln(os.Stderr, "KUBETEST_BIN or CONTAINER_BIN is empty: run make test-cluster")
			return 1
		}
		dir, err := os.MkdirTemp("", "culvert-cluster-")
		if err == nil {
			binDir = dir
			defer os.RemoveAll(dir)
			err = build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// build builds the programs and their images.
func build(dir string) error {
	cmd := exec.Command("go", "build", "-pgo=off", "-trimpath", "-o", dir+"/", "./cmd/culvertd", "./cmd/culvert", "./cmd/culvert-cni", "./internal/cluster/podtool")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	for _, image := range []struct {
		file, name string
		programs   []string
		cmd        []string
	}{
		{"culvert.tar", "localhost/culvert:latest", []string{"culvertd", "culvert", "culvert-cni"}, nil},
		{"podtool.tar", podtool, []string{"podtool"}, []string{"pause"}},
	} {
		arch, err := ociimage.Machine(filepath.Join(dir, image.programs[0]))
		if err != nil {
			return err
		}
		var files []ociimage.File
		for _, p := range image.programs {
			files = append(files, ociimage.File{Path: "/bin/" + p, Mode: 0o755, From: filepath.Join(dir, p)})
		}
		err = ociimage.Write(filepath.Join(dir, image.file), []string{image.name}, files, ociimage.Config{
			Architecture: arch, User: "0:0", Env: []string{"PATH=/bin"}, Entrypoint: []string{"/bin/" + image.programs[0]}, Cmd: image.cmd,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cluster is a Kubernetes cluster.
type cluster struct {
	t       *testing.T
	name    string
	dir     string
	wire    string // network namespace of the bridge that joins the machines
	env     []string
	control *machine
	nodes   []*machine
	kube    string // path of an administrator's kubeconfig
}

const (
	gateway   = "10.99.0.254"
	apiServer = "https://10.99.0.10:6443"
)

// newCluster makes the wire.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces and needs root: sudo make test-cluster")
	}
	c := &cluster{t: t, name: fmt.Sprintf("cvk-%06x", rand.Uint32N(1<<24))}
	dir, err := os.MkdirTemp("", c.name+"-") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	c.dir = dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := []string{binDir, kubeDir, debDir + "/usr/bin", debDir + "/usr/sbin", os.Getenv("PATH"), "/usr/sbin", "/sbin"}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PATH=") && !strings.HasPrefix(e, "KUBERNETES_") {
			c.env = append(c.env, e)
		}
	}
	c.env = append(c.env, "PATH="+strings.Join(path, ":"))
	c.wire = c.name + "-wire"
	c.netns(c.wire)
	must(t, "ip", "-n", c.wire, "link", "add", "br0", "type", "bridge")
	must(t, "ip", "-n", c.wire, "addr", "add", gateway+"/24", "dev", "br0")
	must(t, "ip", "-n", c.wire, "link", "set", "br0", "up")
	return c
}

// netns makes a network namespace that goes with the test.
func (c *cluster) netns(name string) {
	c.t.Helper()
	must(c.t, "ip", "netns", "add", name)
	c.t.Cleanup(func() { must(c.t, "ip", "netns", "del", name) })
}

// kubectl runs kubectl as the administrator.
func (c *cluster) kubectl(args ...string) (string, error) {
	return output(c.control.command(append([]string{"kubectl", "--kubeconfig", c.kube}, args...)...))
}

// mustKubectl is kubectl for a command that succeeds.
func (c *cluster) mustKubectl(args ...string) string {
	c.t.Helper()
	out, err := c.kubectl(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// apply applies manifests.
func (c *cluster) apply(text string) {
	c.t.Helper()
	cmd := c.control.command("kubectl", "--kubeconfig", c.kube, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if _, err := output(cmd); err != nil {
		c.t.Fatal(err)
	}
}

// output runs a command and returns what it printed; both streams are in its error.
func output(cmd *exec.Cmd) (string, error) {
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	defer timer.Stop()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// must runs a command here that succeeds.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := output(exec.Command(args[0], args[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually tries f until it succeeds or the time is over.
func eventually(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
