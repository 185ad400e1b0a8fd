package peer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"culvert/bench/testbed"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// addPods attaches the pods as a container runtime does, the first one last: it
// keeps the routes that the plugin makes. Those of the others go, since all pods
// are in one namespace and each has a default route to make.
func (r *culvertRun) addPods() error {
	b := r.i.Bed
	for n := len(b.Pods) - 1; n >= 0; n-- {
		p := &b.Pods[n]
		if err := r.addPod(p); err != nil {
			return fmt.Errorf("CNI ADD of pod %d: %w", n, err)
		}
		if n == 0 {
			break
		}
		if err := b.Pod.DropRoutes(p.Device); err != nil {
			return err
		}
	}
	return b.FindPods()
}

// addPod attaches a pod. Both ends of its veth get GRO, so that frames can be
// redirected into them.
func (r *culvertRun) addPod(p *testbed.Pod) error {
	b := r.i.Bed
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "culvert", "type": "culvert-cni", "interface": "veth",
		"socket": r.path("culvert.sock"), "logFile": r.path("cni.log"),
		"capabilities":  map[string]bool{"mac": true},
		"runtimeConfig": map[string]string{"mac": p.MAC.String()},
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(r.ctx, filepath.Join(r.Bin, "culvert-cni"))
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+p.Name, "CNI_IFNAME="+p.Device,
		"CNI_NETNS="+b.Pod.Path(), "CNI_PATH="+r.Bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+p.Name+";IP="+p.Addr.String())
	out, err := b.Node.Run(r.ctx, cmd)
	if err != nil {
		return err
	}
	var result types100.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return fmt.Errorf("its result: %w: %s", err, out)
	}
	if len(result.IPs) != 1 || !result.IPs[0].Address.IP.Equal(p.Addr.AsSlice()) {
		return fmt.Errorf("it did not give the address %s: %s", netip.PrefixFrom(p.Addr, 32), out)
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" {
			p.Host = i.Name
		}
	}
	if err := b.Node.GRO(p.Host); err != nil {
		return err
	}
	return b.Pod.GRO(p.Device)
}
