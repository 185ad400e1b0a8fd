package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cniTimeout is how long one call of the plugin may take.
const cniTimeout = 30 * time.Second

// addPods attaches the pods of Culvert nodes as a container runtime would.
func (l *Lab) addPods(ctx context.Context) error {
	for _, n := range l.Nodes {
		if n.Kind != Culvert {
			continue
		}
		for _, p := range n.Pods {
			if err := l.addPod(ctx, n, p); err != nil {
				return fmt.Errorf("pod %s on %s: %w", p.Name, n.Name, err)
			}
		}
	}
	return nil
}

// addPod runs ADD and takes over the address that the pod got.
func (l *Lab) addPod(ctx context.Context, n *Node, p *Pod) error {
	out, err := l.CNI(ctx, n, p, "ADD")
	if err != nil {
		return err
	}
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &result); err != nil || len(result.IPs) == 0 {
		return fmt.Errorf("the result of culvert-cni has no address: %.200s", out)
	}
	p.Addrs = nil
	for _, ip := range result.IPs {
		p.Addrs = append(p.Addrs, ip.Address.Addr())
	}
	slices.SortStableFunc(p.Addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	p.Addr = p.Addrs[0]
	return nil
}

// MapPorts gives a pod a new container, and addresses, with port mappings.
func (l *Lab) MapPorts(ctx context.Context, n *Node, p *Pod, ports ...PortMapping) error {
	if _, err := l.CNI(ctx, n, p, "DEL"); err != nil {
		return err
	}
	p.Ports = ports
	return l.addPod(ctx, n, p)
}

// interfaceOf is what a pod has; a lab of an older version does not say.
func interfaceOf(p *Pod) string {
	if p.Interface == "" {
		return "veth"
	}
	return p.Interface
}

// CNI runs culvert-cni in the node's namespace, with a runtime's environment,
// and returns what it printed.
func (l *Lab) CNI(ctx context.Context, n *Node, p *Pod, command string) ([]byte, error) {
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "culvert", "type": "culvert-cni", "interface": interfaceOf(p),
		"socket": n.Socket, "logFile": filepath.Join(l.Dir, n.Name, "culvert-cni.log"),
		"runtimeConfig": map[string]any{"portMappings": p.Ports},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cniTimeout)
	defer cancel()
	args := fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s", Namespace, p.Name, p.ContainerID)
	if p.asked.IsValid() {
		args += ";IP=" + p.asked.String()
	}
	cmd := exec.CommandContext(ctx, l.program("culvert-cni"))
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.ContainerID, "CNI_NETNS=" + netnsPath(p.Netns),
		"CNI_IFNAME=eth0", "CNI_PATH=" + l.BinDir,
		"CNI_ARGS=" + args,
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(conf), &stdout, &stderr
	if err := start(n.Netns, cmd); err != nil {
		return nil, fmt.Errorf("culvert-cni: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("culvert-cni %s: %w: %s %s", command, err, strings.TrimSpace(stdout.String()), strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
