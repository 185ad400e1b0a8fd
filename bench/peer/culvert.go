package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"culvert/bench/testbed"

	"github.com/vishvananda/netlink"
)

// Culvert is the project's own culvertd, with one worker, and a pod attached
// by the project's own CNI plugin: what a user runs.
type Culvert struct {
	// Bin is the directory of culvertd, culvert and culvert-cni.
	Bin string
	// Mode is xdp.mode of the configuration: auto, native or generic.
	Mode string
	// Poll is poll of the configuration: busy, adaptive or interrupt.
	Poll string
	// CPUs is a list for taskset that culvertd is confined to; empty for all.
	CPUs string
}

// Name implements Device.
func (c Culvert) Name() string {
	name := "culvert"
	if c.Mode != "auto" {
		name += "-" + c.Mode
	}
	if c.Poll != "adaptive" {
		name += "-" + c.Poll
	}
	return name
}

// Check implements Device.
func (c Culvert) Check() error {
	for _, name := range []string{"culvertd", "culvert", "culvert-cni"} {
		if _, err := os.Stat(filepath.Join(c.Bin, name)); err != nil {
			return fmt.Errorf("%w: make build", err)
		}
	}
	return nil
}

// Start implements Device.
func (c Culvert) Start(ctx context.Context) (*Instance, error) {
	return start(true, func(i *Instance) error {
		r := &culvertRun{Culvert: c, ctx: ctx, i: i}
		if err := r.start(); err != nil {
			return fmt.Errorf("culvert: %w", err)
		}
		return nil
	})
}

// culvertRun is one culvertd.
type culvertRun struct {
	Culvert
	ctx    context.Context
	i      *Instance
	daemon *testbed.Process
}

func (r *culvertRun) path(name string) string { return filepath.Join(r.i.Bed.Dir, name) }

func (r *culvertRun) start() error {
	if err := r.writeFiles(); err != nil {
		return err
	}
	argv := []string{filepath.Join(r.Bin, "culvertd"), "--config", r.path("culvertd.yaml")}
	if r.CPUs != "" {
		argv = append([]string{"taskset", "-c", r.CPUs}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "NODE_NAME="+testbed.NodeName)
	var err error
	if r.daemon, err = r.i.Bed.Node.Start(cmd, r.path("culvertd.log")); err != nil {
		return err
	}
	r.i.onClose(r.daemon.Stop)
	r.i.Log, r.i.CPU = r.daemon.Log, []string{r.daemon.Proc()}
	if err := r.daemon.Await(r.ctx, 10*time.Second, r.ready); err != nil {
		return err
	}
	if err := r.addPod(); err != nil {
		return fmt.Errorf("%w\n%s", err, r.daemon.Log())
	}
	// The peer's route is there when the manifests have been read.
	return r.daemon.Await(r.ctx, 5*time.Second, func() error {
		_, err := r.culvert("route", "get", testbed.PeerPod.String(), "-o", "json")
		return err
	})
}

// culvert runs the operator's command.
func (r *culvertRun) culvert(args ...string) (string, error) {
	args = append([]string{"--socket", r.path("culvert.sock")}, args...)
	return r.i.Bed.Node.Run(r.ctx, exec.CommandContext(r.ctx, filepath.Join(r.Bin, "culvert"), args...))
}

// ready asks the agent whether it is.
func (r *culvertRun) ready() error {
	out, err := r.culvert("status", "-o", "json")
	if err != nil {
		return err
	}
	var status struct{ Ready bool }
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if !status.Ready {
		return errors.New("not ready")
	}
	return nil
}

// addPod attaches the pod as a container runtime does. The host's end of its
// veth gets GRO, so that the generator's frames can be redirected into it.
func (r *culvertRun) addPod() error {
	before, err := r.veths()
	if err != nil {
		return err
	}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "culvert", "type": "culvert-cni", "interface": "veth",
		"socket": r.path("culvert.sock"), "logFile": r.path("cni.log"),
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(r.ctx, filepath.Join(r.Bin, "culvert-cni"))
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=cvbpod", "CNI_IFNAME="+testbed.PodDevice,
		"CNI_NETNS="+r.i.Bed.Pod.Path(), "CNI_PATH="+r.Bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench;IP="+testbed.PodAddr.String())
	if out, err := r.i.Bed.Node.Run(r.ctx, cmd); err != nil {
		return fmt.Errorf("CNI ADD: %w", err)
	} else if !bytes.Contains([]byte(out), []byte(testbed.PodAddr.String())) {
		return fmt.Errorf("CNI ADD did not give the pod the address %s: %s", testbed.PodAddr, out)
	}
	link, err := r.i.Bed.Pod.Link(testbed.PodDevice)
	if err != nil {
		return err
	}
	r.i.PodMAC = link.HardwareAddr
	after, err := r.veths()
	if err != nil {
		return err
	}
	for name := range after {
		if !before[name] {
			return r.tune(name)
		}
	}
	return errors.New("CNI ADD made no veth on the node")
}

// tune prepares both ends of the pod's veth for redirected frames and notes
// the ports' modes.
func (r *culvertRun) tune(host string) error {
	if err := r.i.Bed.Node.GRO(host); err != nil {
		return err
	}
	if err := r.i.Bed.Pod.GRO(testbed.PodDevice); err != nil {
		return err
	}
	out, err := r.culvert("port", "-o", "json")
	if err != nil {
		return err
	}
	var ports []struct {
		Name, Kind string
		XDP        struct{ Mode string }
	}
	if err := json.Unmarshal([]byte(out), &ports); err != nil {
		return fmt.Errorf("port: %w", err)
	}
	r.i.Note = "1 worker, poll " + r.Poll
	for _, p := range ports {
		if p.XDP.Mode != "" {
			r.i.Note += ", " + p.Kind + " " + p.XDP.Mode
		}
	}
	return nil
}

// veths are the names of the veths on the node.
func (r *culvertRun) veths() (map[string]bool, error) {
	names := make(map[string]bool)
	err := r.i.Bed.Node.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Type() == "veth" {
				names[l.Attrs().Name] = true
			}
		}
		return err
	})
	return names, err
}
