package bulk

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
	"culvert/ctrl/api"
)

// agent is the culvertd of a node.
type agent struct {
	node   *node
	bin    string
	dir    string
	daemon *testbed.Process
	client *api.Client
}

// errNoTap says that this Culvert does not make taps for pods.
var errNoTap = errors.New("culvert-cni refuses interface tap")

// agentConfig has what must be said; everything else is as by default. The VNI
// and port are Flannel's.
const agentConfig = `node: %s
source: dir:%s
uplinks: [%s]
vxlan: {vni: %d, port: %d}
socket: %s
stateDir: %s
`

// nodeManifest is one node as an API server holds it.
const nodeManifest = `apiVersion: v1
kind: Node
metadata: {name: %s}
spec: {podCIDR: %[2]s, podCIDRs: [%[2]s]}
status: {addresses: [{type: InternalIP, address: %[3]s}]}
---
`

// startAgent starts culvertd on the node and waits until it is ready.
func (n *node) startAgent(ctx context.Context, bin, dir string, all [2]*node) error {
	a := &agent{node: n, bin: bin, dir: filepath.Join(dir, n.name)}
	a.client = api.NewClient(a.path("culvert.sock"))
	if err := a.writeFiles(all); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(bin, "culvertd"), "--config", a.path("culvertd.yaml"))
	cmd.Env = append(os.Environ(), "NODE_NAME="+n.name)
	var err error
	if a.daemon, err = n.space.Start(cmd, a.path("culvertd.log")); err != nil {
		return err
	}
	n.agent = a
	return a.daemon.Await(ctx, 10*time.Second, func() error {
		var status api.Status
		if err := a.client.Get(ctx, "/v1/status", &status); err != nil {
			return err
		}
		if !status.Ready {
			return fmt.Errorf("not ready: %v", status.Reasons)
		}
		return nil
	})
}

func (a *agent) path(name string) string { return filepath.Join(a.dir, name) }

// writeFiles writes the configuration and the manifests of all nodes.
func (a *agent) writeFiles(all [2]*node) error {
	manifests, state := a.path("manifests"), a.path("state")
	for _, dir := range []string{manifests, state} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	var nodes []byte
	for _, n := range all {
		nodes = fmt.Appendf(nodes, nodeManifest, n.name, n.cidr, n.addr)
	}
	if err := os.WriteFile(filepath.Join(manifests, "nodes.yaml"), nodes, 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(agentConfig, a.node.name, manifests, a.node.uplink, testbed.VNI, testbed.Port, a.client.Socket(), state)
	return os.WriteFile(a.path("culvertd.yaml"), []byte(config), 0o644)
}

// addPod attaches a pod as a container runtime does. Its error is errNoTap if
// this Culvert cannot make a tap.
func (a *agent) addPod(ctx context.Context, p *pod, side Side) error {
	kind := "veth"
	if side == Tap {
		kind = "tap"
	}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "culvert", "type": "culvert-cni", "interface": kind,
		"socket": a.client.Socket(), "logFile": a.path("cni.log"),
	})
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(a.bin, "culvert-cni"))
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=cvbt"+p.name, "CNI_IFNAME="+testbed.PodDevice,
		"CNI_NETNS="+p.space.Path(), "CNI_PATH="+a.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+p.name+";IP="+p.addr.String())
	out, err := a.node.space.Run(ctx, cmd)
	if err == nil {
		return nil
	}
	// Code 2 is "unsupported field" of the CNI specification.
	var refusal struct{ Code uint }
	if json.Unmarshal([]byte(out), &refusal) == nil && refusal.Code == api.CNIUnsupportedField && side == Tap {
		return fmt.Errorf("%w: %w", errNoTap, err)
	}
	return fmt.Errorf("CNI ADD: %w\n%s", err, a.daemon.Log())
}

// drops are the frames that the agent has discarded so far, by reason.
func (a *agent) drops(ctx context.Context) (map[string]uint64, error) {
	var list []api.Drop
	if err := a.client.Get(ctx, "/v1/drops", &list); err != nil {
		return nil, fmt.Errorf("drops of %s: %w", a.node.name, err)
	}
	sum := make(map[string]uint64)
	for _, d := range list {
		sum[d.Reason] += d.Packets
	}
	return sum, nil
}
