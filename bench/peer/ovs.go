package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"culvert/bench/testbed"
)

// OVS is Open vSwitch with its userspace datapath on AF_XDP ports, the closest
// relative of Culvert. It takes Debian's openvswitch-switch, and runs daemons
// of its own with private directories: an Open vSwitch that serves the machine
// is not touched.
type OVS struct {
	// Mode is the ports' xdp-mode: native or generic.
	Mode string
	// CPU is the processor of its one polling thread.
	CPU int
}

// Files of Debian's packages.
const (
	ovsServer = "/usr/sbin/ovsdb-server"
	ovsSwitch = "/usr/sbin/ovs-vswitchd"
	ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"
)

// Name implements Device.
func (o OVS) Name() string { return "ovs-" + o.Mode }

// ovsPortMemory is what one AF_XDP port takes: 16384 chunks of 4096 bytes
// (lib/netdev-afxdp.c, NUM_FRAMES), all of them pinned, their metadata and rings.
const ovsPortMemory = 75 << 20

// Check implements Device.
func (o OVS) Check(opt Options) error {
	for _, file := range []string{ovsServer, ovsSwitch, ovsSchema} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: apt-get install openvswitch-switch", err)
		}
	}
	if o.Mode != "native" && o.Mode != "generic" {
		return fmt.Errorf("OVS xdp-mode %q: must be native or generic", o.Mode)
	}
	opt = opt.full()
	if opt.Encap != VXLAN {
		return fmt.Errorf("the userspace datapath of Open vSwitch has no tunnels of the kind %s", opt.Encap)
	}
	available, err := fields("/proc/meminfo", "MemAvailable:")
	if err != nil {
		return err
	}
	if need := uint64(opt.Pods+1) * ovsPortMemory; need > available/4*3 {
		return fmt.Errorf("%d AF_XDP ports of Open vSwitch take %d MiB of memory, and %d MiB are free", opt.Pods+1, need>>20, available>>20)
	}
	return nil
}

// Start implements Device.
func (o OVS) Start(ctx context.Context, opt Options) (*Instance, error) {
	return start(ctx, o, opt, func(i *Instance) error {
		if err := i.Bed.ConnectPods(testbed.PodMTU); err != nil {
			return err
		}
		if err := sumChecksums(i.Bed); err != nil {
			return err
		}
		r := &ovsRun{OVS: o, ctx: ctx, i: i, dir: i.Bed.Dir}
		if err := r.startDaemons(); err != nil {
			return fmt.Errorf("open vSwitch: %w", err)
		}
		if err := r.configure(); err != nil {
			return fmt.Errorf("open vSwitch: %w\n%s", err, i.Log())
		}
		// It closes its ports one by one. While it opens them it does not even look
		// for signals: who interrupts that does not want to wait.
		r.daemon.Patience = ovsReady + time.Duration(opt.Pods)*ovsReadyPod
		return nil
	})
}

// sumChecksums has everybody send finished checksums: the switch takes frames as
// they are, drops tunnel packets whose outer checksum is not right, and passes on
// pods' packets that whoever gets them drops.
func sumChecksums(b *testbed.Bed) error {
	for _, p := range b.Pods {
		if err := b.Pod.SumChecksums(p.Device); err != nil {
			return err
		}
	}
	return b.Wire.SumChecksums(testbed.WireDevice)
}

// ovsRun is one set of daemons.
type ovsRun struct {
	OVS
	ctx    context.Context
	i      *Instance
	dir    string
	daemon *testbed.Process
}

func (r *ovsRun) path(name string) string { return filepath.Join(r.dir, name) }

// command makes a command that finds its files in the private directory.
func (r *ovsRun) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(r.ctx, name, args...)
	cmd.Env = append(os.Environ(),
		"OVS_RUNDIR="+r.dir, "OVS_LOGDIR="+r.dir, "OVS_DBDIR="+r.dir, "OVS_SYSCONFDIR="+r.dir)
	return cmd
}

// run runs a command in the node's namespace.
func (r *ovsRun) run(name string, args ...string) (string, error) {
	return r.i.Bed.Node.Run(r.ctx, r.command(name, args...))
}

// daemonCommand is one that stopping the benchmark ends by Instance.Close only:
// the context would kill it before its devices are given back.
func (r *ovsRun) daemonCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = r.command(name).Env
	return cmd
}

func (r *ovsRun) startDaemons() error {
	if _, err := r.run("ovsdb-tool", "create", r.path("conf.db"), ovsSchema); err != nil {
		return err
	}
	db := r.path("db.sock")
	server, err := r.i.Bed.Node.Start(r.daemonCommand(ovsServer, r.path("conf.db"), "--remote=punix:"+db,
		"--unixctl="+r.path("server.ctl"), "-vconsole:warn", "-vfile:off", "-vsyslog:off"), r.path("server.log"))
	if err != nil {
		return err
	}
	r.i.runs(server)
	err = server.Await(r.ctx, 5*time.Second, func() error {
		_, err := os.Stat(db)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.vsctl("init"); err != nil {
		return err
	}
	// One polling thread: the data path's, on its own processor.
	if err := r.vsctl("set", "Open_vSwitch", ".", fmt.Sprintf("other_config:pmd-cpu-mask=%#x", 1<<r.CPU)); err != nil {
		return err
	}
	r.daemon, err = r.i.Bed.Node.Start(r.daemonCommand(ovsSwitch, "unix:"+db,
		"--unixctl="+r.path("switch.ctl"), "-vconsole:warn", "-vfile:off", "-vsyslog:off"), r.path("switch.log"))
	if err != nil {
		return err
	}
	r.i.runs(r.daemon)
	r.i.Log, r.i.CPU = r.daemon.Log, []string{r.daemon.Proc()}
	return r.daemon.Await(r.ctx, 10*time.Second, func() error {
		_, err := r.appctl("version")
		return err
	})
}

// vsctl changes the database and does not wait for the switch.
func (r *ovsRun) vsctl(args ...string) error {
	_, err := r.run("ovs-vsctl", append([]string{"--no-wait", "--db=unix:" + r.path("db.sock")}, args...)...)
	return err
}

// appctl talks to the switch as ovs-appctl does, by JSON-RPC (ovs-appctl(8)),
// without a process for each command.
func (r *ovsRun) appctl(command string, args ...string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(r.ctx, "unix", r.path("switch.ctl"))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(ovsAnswer)); err != nil {
		return "", err
	}
	request := map[string]any{"id": 0, "method": command, "params": append([]string{}, args...)}
	if err := json.NewEncoder(c).Encode(request); err != nil {
		return "", fmt.Errorf("asking for %s: %w", command, err)
	}
	var answer struct{ Result, Error string }
	if err := json.NewDecoder(c).Decode(&answer); err != nil {
		return "", fmt.Errorf("answer to %s: %w", command, err)
	}
	if answer.Error != "" {
		return "", fmt.Errorf("%s: %s", command, answer.Error)
	}
	return answer.Result, nil
}

// ovsAnswer is how long a busy switch may take for a command.
const ovsAnswer = 10 * time.Second
