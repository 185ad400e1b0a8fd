//go:build containers

package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"culvert/ctrl/api"
	"culvert/internal/lab"
	"culvert/internal/ociimage"
)

// image is the one image there is: podtool, and nothing below it.
const image = "localhost/podtool:1"

// box is the node's namespaces of mounts and processes: what containerd and culvertd
// run in, with paths of their own, and what ends with all that was started in it.
type box struct {
	*cluster
	pid    int    // of process 1, as seen from here
	cgroup string // that containers are in
}

// boxScript gives the box directories of its own where programs have fixed ones. $1 is
// the test's directory.
const boxScript = `set -e
mkdir "$1/netns" "$1/etc" "$1/etc.work" "$1/opt" "$1/opt.work"
mount --rbind /run/netns "$1/netns"
mount -t tmpfs tmpfs /run
mkdir /run/netns
mount --rbind "$1/netns" /run/netns
for d in etc opt; do
  mount -t overlay overlay -o "lowerdir=/$d,upperdir=$1/$d,workdir=$1/$d.work" "/$d"
done
rm -rf /etc/cni /opt/cni
mkdir /etc/cni /opt/cni
ln -s "$1/net.d" /etc/cni/net.d
ln -s "$1/bin" /opt/cni/bin
mount --bind "$1/varlib" /var/lib
touch "$1/ready"
sleep infinity & wait`

const containerdConfig = `version = 2
root = "%[1]s/containerd/root"
state = "%[1]s/containerd/state"
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + image + `"
  restrict_oom_score_adj = true # root without CAP_SYS_RESOURCE
  netns_mounts_under_state_dir = true
`

// newBox moves the node's culvertd into a box, and starts containerd there.
func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{cluster: up(t, lab.Options{Pods: 1, Family: lab.Dual})}
	b.cgroup = "/" + b.Name
	if err := b.StopAgent(b.node, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd := b.command(b.node.Netns, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private",
		"bash", "-c", boxScript, "bash", b.dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.end(cmd)
		if t.Failed() {
			out, _ := os.ReadFile(filepath.Join(b.dir, "containerd.log"))
			t.Logf("containerd:\n%s\nbox:\n%s", out[max(0, len(out)-6000):], log.String())
		}
	})
	eventually(t, "the box", func() error {
		if _, err := os.Stat(filepath.Join(b.dir, "ready")); err != nil {
			return fmt.Errorf("%w: %s", err, log.String())
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err == nil {
			b.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	b.startAgent()
	b.startContainerd()
	return b
}

// end ends every process of the box, and the mounts with them, then removes the cgroups.
func (b *box) end(unshare *exec.Cmd) {
	if b.pid != 0 {
		_ = syscall.Kill(b.pid, syscall.SIGKILL)
	}
	_ = unshare.Process.Kill()
	_ = unshare.Wait()
	eventually(b.t, "the cgroups are gone", func() error {
		left, err := filepath.Glob("/sys/fs/cgroup/*" + b.cgroup)
		for _, top := range left {
			out, failed := exec.Command("find", top, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").CombinedOutput()
			if failed != nil || len(out) > 0 {
				err = fmt.Errorf("%w: %s", failed, out)
			}
		}
		return err
	})
}

// boxed is a command in the box.
func (b *box) boxed(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(b.pid), "--net", "--mount", "--pid", "--"}, args...)...)
	cmd.Env = append(os.Environ(), b.env()...)
	return cmd
}

// start starts a program in the box, which lives as long as that, with a log of its own.
func (b *box) start(args ...string) *exec.Cmd {
	b.t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, args[0]+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	cmd := b.boxed(args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go cmd.Wait() // its log says why it ended
	return cmd
}

// startAgent starts culvertd as the lab does, and waits until it is ready for pods.
func (b *box) startAgent() {
	b.t.Helper()
	b.node.LogFile = filepath.Join(b.dir, "culvertd.log")
	b.start("culvertd", "--config", filepath.Join(b.Dir, b.node.Name, "culvertd.yaml"))
	eventually(b.t, "culvertd", func() error {
		var s api.Status
		err := api.NewClient(b.node.Socket).Get(context.Background(), "/v1/status", &s)
		if err == nil && !s.Ready {
			err = fmt.Errorf("not ready: %v", s.Reasons)
		}
		return err
	})
}

// killAgent ends culvertd as a crash does.
func (b *box) killAgent() {
	b.t.Helper()
	if out, err := output(b.boxed("bash", "-c", `for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != culvertd ] || kill -KILL "${p#/proc/}"; done`)); err != nil {
		b.t.Fatal(out, err)
	}
	eventually(b.t, "culvertd is gone", func() error {
		if err := api.NewClient(b.node.Socket).Get(context.Background(), "/v1/status", &api.Status{}); err == nil {
			return fmt.Errorf("it still answers")
		}
		return nil
	})
}

// startContainerd starts it with our image.
func (b *box) startContainerd() {
	b.t.Helper()
	conf := filepath.Join(b.dir, "containerd.toml")
	archive := filepath.Join(b.dir, "image.tar")
	if err := os.WriteFile(conf, fmt.Appendf(nil, containerdConfig, b.dir), 0o644); err != nil {
		b.t.Fatal(err)
	}
	err := ociimage.Write(archive, []string{image}, []ociimage.File{{Path: "/podtool", Mode: 0o755, From: filepath.Join(binDir, "podtool")}},
		ociimage.Config{Architecture: runtime.GOARCH, Entrypoint: []string{"/podtool"}, Cmd: []string{"pause"}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.start("containerd", "-c", conf)
	eventually(b.t, "containerd", func() error {
		_, err := b.ctr("version")
		return err
	})
	if out, err := b.ctr("--namespace", "k8s.io", "image", "import", archive); err != nil {
		b.t.Fatal(out, err)
	}
}

// ctr runs containerd's own tool.
func (b *box) ctr(args ...string) (string, error) {
	return output(b.boxed(append([]string{"ctr", "--address", filepath.Join(b.dir, "containerd.sock")}, args...)...))
}

// cri calls a method as kubelet does, with a request as JSON, and decodes the reply.
func (b *box) cri(method, request string, reply any) error {
	cmd := b.boxed("cri", filepath.Join(b.dir, "containerd.sock"), method)
	cmd.Stdin = strings.NewReader(request)
	out, err := output(cmd)
	if err == nil && reply != nil {
		err = json.Unmarshal([]byte(out), reply)
	}
	return err
}

// mustCRI is cri for a call that succeeds.
func (b *box) mustCRI(method, request string, reply any) {
	b.t.Helper()
	if err := b.cri(method, request, reply); err != nil {
		b.t.Fatal(err)
	}
}
