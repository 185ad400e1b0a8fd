//go:build cluster

package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is one of the cluster's: namespaces of network, mounts, processes, IPC and host
// name, with directories of its own where programs have fixed ones.
type machine struct {
	t    *testing.T
	name string // that of its network namespace, too
	host string // as Kubernetes calls it
	addr string // on the wire
	dir  string
	pid  int // of its process 1, as seen from here
	env  []string
}

// boxScript makes the machine, in its namespaces. $1 is its directory, $2 its name. The
// three sysctls are those that kubelet insists on: files that have the values already, so
// that it changes nothing of the real machine.
const boxScript = `set -e
cd "$1"
hostname "$2"
mkdir etc etc.work opt opt.work varlib varlog cgroup
mount --make-rshared /
mount --rbind /sys/fs/cgroup cgroup
mount -t sysfs sysfs /sys
mount --rbind cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mkdir /run/netns
mount --bind /run/netns /run/netns
for d in etc opt; do
  mount -t overlay overlay -o "lowerdir=/$d,upperdir=$1/$d,workdir=$1/$d.work" "/$d"
done
rm -rf /etc/cni /opt/cni
mkdir -p /etc/cni/net.d /opt/cni/bin
mount --bind varlib /var/lib
mount --bind varlog /var/log
for s in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  f=sysctl-${s##*/}
  echo "${s#*=}" > "$f"
  mount --bind "$f" "/proc/sys/${s%%=*}"
done
ip link set lo up
touch ready
while :; do sleep 3600 & wait $!; done`

// newMachine starts a machine on the wire.
func (c *cluster) newMachine(host, addr string) *machine {
	c.t.Helper()
	m := &machine{t: c.t, name: c.name + "-" + host, host: host, addr: addr, dir: filepath.Join(c.dir, host), env: c.env}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.netns(m.name)
	must(c.t, "ip", "-n", m.name, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", c.wire)
	must(c.t, "ip", "-n", c.wire, "link", "set", host, "master", "br0", "up")
	must(c.t, "ip", "-n", m.name, "addr", "add", addr+"/24", "dev", "eth0")
	must(c.t, "ip", "-n", m.name, "link", "set", "eth0", "up")
	must(c.t, "ip", "-n", m.name, "route", "add", "default", "via", gateway)
	cmd := exec.Command("nsenter", "--net=/run/netns/"+m.name, "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child",
		"--propagation", "private", "bash", "-c", boxScript, "bash", m.dir, host)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { m.end(cmd) })
	eventually(c.t, time.Minute, "machine "+host, func() error {
		if _, err := os.Stat(filepath.Join(m.dir, "ready")); err != nil {
			return fmt.Errorf("%w: %s", err, log.String())
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err == nil {
			m.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return m
}

// cgroup is the parent of the machine's containers.
func (m *machine) cgroup() string { return "/" + m.name }

// makeCgroups makes it in every hierarchy.
func (m *machine) makeCgroups() {
	m.t.Helper()
	all, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, path := range all {
		top := filepath.Dir(path)
		if err := os.MkdirAll(top+m.cgroup(), 0o755); err != nil {
			m.t.Fatal(err)
		}
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(top, f)); err == nil {
				if err := os.WriteFile(filepath.Join(top+m.cgroup(), f), value, 0o644); err != nil {
					m.t.Fatal(err)
				}
			}
		}
	}
}

// end ends every process of the machine, and its mounts with them, then removes the
// cgroups.
func (m *machine) end(unshare *exec.Cmd) {
	if m.pid != 0 {
		_ = syscall.Kill(m.pid, syscall.SIGKILL)
	}
	_ = unshare.Process.Kill()
	_ = unshare.Wait()
	eventually(m.t, 20*time.Second, "the cgroups are gone", func() error {
		left, err := filepath.Glob("/sys/fs/cgroup/*" + m.cgroup())
		for _, top := range left {
			out, failed := exec.Command("find", top, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").CombinedOutput()
			if failed != nil || len(out) > 0 {
				err = fmt.Errorf("%w: %s", failed, out)
			}
		}
		return err
	})
}

// command is a command on the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--"}, args...)...)
	cmd.Env = m.env
	return cmd
}

// run runs a command on the machine.
func (m *machine) run(args ...string) (string, error) { return output(m.command(args...)) }

// must is run for a command that succeeds.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, err := m.run(args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// start starts a daemon on the machine, which lives as long as that, with a log of its own.
func (m *machine) start(args ...string) {
	m.t.Helper()
	log, err := os.OpenFile(m.log(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := m.command(args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, m.dir
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go cmd.Wait() // its log says why it ended
}

func (m *machine) log(daemon string) string { return filepath.Join(m.dir, daemon+".log") }

// tell shows the end of a daemon's log.
func (m *machine) tell(daemon string) {
	if text, err := os.ReadFile(m.log(daemon)); err == nil {
		m.t.Logf("%s of %s:\n%s", daemon, m.host, text[max(0, len(text)-3000):])
	}
}

// write writes one of the machine's files.
func (m *machine) write(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}
