package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"culvert/ctrl/api"
)

// readyTimeout is how long culvertd may take to be ready for pods.
const readyTimeout = 20 * time.Second

// startAgents writes the manifests that all nodes read, then starts culvertd
// on its nodes and waits until each is ready.
func (l *Lab) startAgents(ctx context.Context) error {
	if err := os.Mkdir(l.ManifestDir(), 0o755); err != nil {
		return err
	}
	if l.cluster != nil {
		if err := l.copyManifests(); err != nil {
			return err
		}
	} else if err := os.WriteFile(filepath.Join(l.ManifestDir(), "nodes.yaml"), []byte(l.manifests()), 0o644); err != nil {
		return err
	}
	for _, n := range l.Nodes {
		if n.Kind != Culvert {
			continue
		}
		if err := l.startAgent(n); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		if err := l.save(); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes {
		if n.Kind != Culvert {
			continue
		}
		if err := l.waitReady(ctx, n); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return nil
}

// StartAgent starts culvertd again on a node where StopAgent has ended it, and
// waits until it is ready.
func (l *Lab) StartAgent(ctx context.Context, n *Node) error {
	if n.Kind != Culvert || n.alive() {
		return fmt.Errorf("%s: culvertd runs, or has no place there", n.Name)
	}
	if err := l.startAgent(n); err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	return l.waitReady(ctx, n)
}

// ManifestDir is the directory of manifests that every culvertd of the lab
// watches.
func (l *Lab) ManifestDir() string { return filepath.Join(l.Dir, "manifests") }

// manifests are the nodes as an API server would hold them. Kernel nodes say
// their VTEP's MAC, Culvert nodes have theirs by rule.
func (l *Lab) manifests() string {
	var b strings.Builder
	for _, n := range l.Nodes {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: %s\n", n.Name)
		if n.Kind != Culvert {
			fmt.Fprintf(&b, "  annotations:\n    culvert.dev/vtep-mac: %q\n", n.VTEPMAC)
		}
		fmt.Fprintf(&b, "spec:\n  podCIDR: %q\n  podCIDRs: [%s]\n", n.PodCIDR, list(n.PodCIDRs))
		fmt.Fprintf(&b, "status:\n  addresses:\n  - {type: InternalIP, address: %q}\n  - {type: Hostname, address: %s}\n", n.Addr, n.Name)
	}
	return b.String()
}

// list is a YAML list of prefixes, without its brackets.
func list(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, strconv.Quote(p.String()))
	}
	return strings.Join(out, ", ")
}

// agentConfig is culvertd's configuration on a node.
func (l *Lab) agentConfig(n *Node, dir string) (string, error) {
	from := "source: dir:" + l.ManifestDir() + "\n"
	if l.source != nil {
		var err error
		if from, err = l.source(l, n); err != nil {
			return "", fmt.Errorf("source of the objects: %w", err)
		}
	}
	return fmt.Sprintf(`node: %s
%suplinks: [%s]
socket: %s
stateDir: %s
%s%s`, n.Name, from, uplink, n.Socket, filepath.Join(dir, "state"), l.modeConfig(), l.config), nil
}

// startAgent starts culvertd in the node's namespace. It lives on when this
// program ends, until Down.
func (l *Lab) startAgent(n *Node) error {
	dir := filepath.Join(l.Dir, n.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	n.Socket, n.LogFile = filepath.Join(dir, "culvert.sock"), filepath.Join(dir, "culvertd.log")
	config := filepath.Join(dir, "culvertd.yaml")
	text, err := l.agentConfig(n, dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	log, err := os.OpenFile(n.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(l.program("culvertd"), "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: Ctrl-C is for us, and we end it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := start(n.Netns, cmd); err != nil {
		return fmt.Errorf("starting culvertd: %w", err)
	}
	n.PID = cmd.Process.Pid
	n.StartTime, _ = startTime(n.PID)
	exited := make(chan struct{})
	n.exited = exited
	go func() {
		_ = cmd.Wait() // its log says why it ended
		close(exited)
	}()
	return nil
}

// waitReady waits until culvertd says that it is ready.
func (l *Lab) waitReady(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	client := api.NewClient(n.Socket)
	var status api.Status
	for {
		err := client.Get(ctx, "/v1/status", &status)
		if err == nil && status.Ready {
			return nil
		}
		select {
		case <-n.exited:
			return fmt.Errorf("culvertd ended; its last words in %s:\n%s", n.LogFile, tail(n.LogFile))
		case <-ctx.Done():
			why := strings.Join(status.Reasons, "; ")
			if why == "" && err != nil {
				why = err.Error()
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("culvertd is not ready after %v (%s); its last words in %s:\n%s", readyTimeout, why, n.LogFile, tail(n.LogFile))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail is the end of a log file.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return "    " + strings.Join(lines, "\n    ")
}
