package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"culvert/bench/testbed"
	"culvert/ctrl/api"
)

// Culvert is the project's own culvertd, with one worker, and pods attached
// by the project's own CNI plugin: what a user runs.
type Culvert struct {
	// Bin is the directory of culvertd, culvert and culvert-cni.
	Bin string
	// Mode is xdp.mode of the configuration: auto, native or generic.
	Mode string
	// Poll is poll of the configuration: busy, adaptive or interrupt.
	Poll string
	// Label is added to the name, to tell builds apart.
	Label string
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
	return name + c.Label
}

// Check implements Device.
func (c Culvert) Check(Options) error {
	for _, name := range []string{"culvertd", "culvert", "culvert-cni"} {
		if _, err := os.Stat(filepath.Join(c.Bin, name)); err != nil {
			return fmt.Errorf("%w: make build", err)
		}
	}
	return nil
}

// Start implements Device.
func (c Culvert) Start(ctx context.Context, o Options) (*Instance, error) {
	return start(ctx, c, o, func(i *Instance) error {
		r := &culvertRun{Culvert: c, ctx: ctx, i: i}
		r.client = api.NewClient(r.path("culvert.sock"))
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
	client *api.Client
}

func (r *culvertRun) path(name string) string { return filepath.Join(r.i.Bed.Dir, name) }

// Times that culvertd may take to become ready, with no peers and for each.
const (
	culvertReady     = 15 * time.Second
	culvertReadyPeer = 5 * time.Millisecond
)

func (r *culvertRun) start() error {
	if err := r.i.Bed.AddUnderlay(testbed.Uplink); err != nil {
		return err
	}
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
	r.i.runs(r.daemon)
	r.i.Log, r.i.CPU = r.daemon.Log, []string{r.daemon.Proc()}
	limit := culvertReady + time.Duration(len(r.i.Bed.Peers))*culvertReadyPeer
	if err := r.daemon.Await(r.ctx, limit, r.ready); err != nil {
		return err
	}
	if err := r.addPods(); err != nil {
		return fmt.Errorf("%w\n%s", err, r.daemon.Log())
	}
	return r.note()
}

// ready asks the agent whether it is, with all peers.
func (r *culvertRun) ready() error {
	var status api.Status
	if err := r.client.Get(r.ctx, "/v1/status", &status); err != nil {
		return err
	}
	if !status.Ready {
		return fmt.Errorf("not ready: %v", status.Reasons)
	}
	if want := len(r.i.Bed.Peers); status.Peers != want {
		return fmt.Errorf("%d peers of %d: %v", status.Peers, want, status.Degraded)
	}
	return nil
}

// note says how many workers there are and the ports' modes.
func (r *culvertRun) note() error {
	var ports []api.Port
	if err := r.client.Get(r.ctx, "/v1/ports", &ports); err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	r.i.Note = "1 worker, poll " + r.Poll
	seen := make(map[string]bool)
	for _, p := range ports {
		if mode := p.Kind + " " + p.XDP.Mode; p.XDP.Mode != "" && !seen[mode] {
			seen[mode] = true
			r.i.Note += ", " + mode
		}
	}
	return nil
}
