//go:build containers

package containers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// The CNI project's plugins, as they stand behind ours in a chain.
const (
	tuning    = `{"type":"tuning","sysctl":{"net.core.somaxconn":"511"},"mtu":1300}`
	bandwidth = `{"type":"bandwidth","capabilities":{"bandwidth":true}}`
	portmap   = `{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}`
	chainArgs = `CAP_ARGS={"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],` +
		`"bandwidth":{"ingressRate":8000000,"ingressBurst":8000000,"egressRate":8000000,"egressBurst":8000000}}`
)

// hostPort has a server in a pod, and reaches it at the node's port: from another node, from
// pods of both nodes, and from the node itself if the node's own kernel translates.
func (c *cluster) hostPort(pod, port, hostPort string, kernel bool) {
	c.t.Helper()
	server := c.command(pod, "podtool", "serve", port)
	if err := server.Start(); err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	far, at := c.Nodes[1], c.node.Addr.String()
	hosts := map[string]string{far.Netns: at, far.Pods[0].Netns: at, c.node.Pods[0].Netns: at}
	if kernel {
		hosts[c.node.Netns] = "127.0.0.1"
	}
	for from, host := range hosts {
		eventually(c.t, "the node's port "+hostPort+" at "+host+" from "+from, func() error {
			_, err := c.in(from, "podtool", "get", "http://"+host+":"+hostPort+"/")
			return err
		})
	}
}

// TestContainersChain has tuning, bandwidth and portmap work on what ADD of ours tells them.
func TestContainersChain(t *testing.T) {
	c := up(t, lab.Options{Pods: 1})
	// CHECK of Debian 12's portmap looks for IPv4's rules in IPv6's table as well, where
	// there is an ip6tables: here there is none.
	sbin := filepath.Join(c.dir, "sbin")
	if err := errors.Join(os.Mkdir(sbin, 0o755), os.Symlink(filepath.Join(debDir, "usr/sbin/xtables-nft-multi"), filepath.Join(sbin, "iptables"))); err != nil {
		t.Fatal(err)
	}
	path := "PATH=" + strings.Join([]string{binDir, sbin, os.Getenv("PATH")}, ":")
	iptables := []string{"iptables-save", "-t", "nat"}
	for _, tt := range []struct {
		version, portmap, plugins string
		rules                     []string // portmap's are told by
	}{
		{"0.3.1", portmap, "", iptables},
		{"0.4.0", portmap, "", iptables},
		{"1.0.0", portmap, "", iptables}, // Debian 12's know none newer
		{"1.1.0", strings.Replace(portmap, "{", `{"backend":"nftables",`, 1), filepath.Join(binDir, newPlugins) + ":", []string{"nft", "list", "ruleset"}},
	} {
		t.Run(tt.version, func(t *testing.T) {
			c.t = t
			c.conflist(tt.version, `,"capabilities":{"ips":true}`, tuning, bandwidth, tt.portmap)
			pod := c.newNetns("p" + strings.ReplaceAll(tt.version, ".", ""))
			plugins := "CNI_PATH=" + tt.plugins + filepath.Join(c.dir, "bin")
			c.mustTool("status", pod, path, plugins)
			r := c.add(pod, path, plugins, chainArgs, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web")
			if p := c.pods()["web"]; len(p.PortMappings) != 0 {
				t.Errorf("portmap's mappings are culvertd's as well: %+v", p)
			}
			if got := c.mustIn(pod, "cat", "/proc/sys/net/core/somaxconn"); strings.TrimSpace(got) != "511" {
				t.Errorf("tuning: somaxconn is %s", got)
			}
			if got := c.mustIn(pod, "ip", "link", "show", "eth0"); !strings.Contains(got, "mtu 1300") {
				t.Errorf("tuning: %s", got)
			}
			dnat := fmt.Sprintf("%s:80", r.IPs[0].Address.Addr())
			if got := c.mustIn(c.node.Netns, tt.rules...); !strings.Contains(got, dnat) {
				t.Errorf("portmap: %q is not among\n%s", dnat, got)
			}
			host := r.Interfaces[0].Name
			if got := c.mustIn(c.node.Netns, "tc", "qdisc", "show", "dev", host); !strings.Contains(got, "tbf") {
				t.Errorf("bandwidth: %s has %s", host, got)
			}
			c.mustIn(pod, "ping", "-n", "-c", "1", "-W", "5", c.Nodes[1].Pods[0].Addr.String())
			c.hostPort(pod, "80", "8080", true)
			if tt.version != "0.3.1" {
				c.mustTool("check", pod, path, plugins, chainArgs)
			}
			for range 2 {
				c.mustTool("del", pod, path, plugins, chainArgs)
			}
			if got := c.mustIn(c.node.Netns, tt.rules...); strings.Contains(got, dnat) {
				t.Errorf("portmap left its rule:\n%s", got)
			}
			if links := c.mustIn(c.node.Netns, "ip", "-o", "link"); strings.Contains(links, host) || strings.Contains(links, "bwp") {
				t.Errorf("DEL left links:\n%s", links)
			}
		})
	}
	c.t = t
	c.writeConf(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"culvert","plugins":[{"type":"loopback"},{"type":"culvert-cni","socket":%q}]}`, c.node.Socket))
	behind := c.newNetns("lo")
	if out := c.mustTool("add", behind); !strings.Contains(out, `"name": "lo"`) || !strings.Contains(out, `"name": "eth0"`) {
		t.Errorf("behind loopback: %s", out)
	}
	c.mustTool("check", behind)
	c.mustTool("del", behind)
	// A TAP has no end on the node: portmap needs none, bandwidth does.
	tap := c.newNetns("tap")
	c.conflist("1.0.0", `,"interface":"tap"`, tuning, portmap)
	c.add(tap, path, chainArgs)
	c.hostPort(tap, "80", "8080", true)
	c.mustTool("check", tap, path, chainArgs)
	c.mustTool("del", tap, path, chainArgs)
	c.conflist("1.0.0", `,"interface":"tap"`, bandwidth)
	if _, err := c.cnitool("add", tap, path, chainArgs); err == nil || !strings.Contains(err.Error(), "no veth peer") {
		t.Errorf("bandwidth behind a TAP: %v", err)
	}
	c.mustTool("del", tap, path, chainArgs)
	// Behind a plugin that has made the interface we have no place.
	ptp := `{"type":"ptp","ipam":{"type":"host-local","subnet":"192.0.2.0/24","dataDir":"` + filepath.Join(c.dir, "host-local") + `"}}`
	c.writeConf(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"culvert","plugins":[%s,{"type":"culvert-cni","socket":%q}]}`, ptp, c.node.Socket))
	pod := c.newNetns("second")
	if _, err := c.cnitool("add", pod); err == nil || !strings.Contains(err.Error(), "has eth0 already") {
		t.Errorf("behind ptp: %v", err)
	}
	c.mustTool("del", pod)
}
