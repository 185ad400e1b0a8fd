//go:build containers

package containers

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sandbox is a pod of containerd's.
type sandbox struct {
	name, id string
	ip, ip6  string
	config   string // as JSON: the same text goes with each of its containers
}

// sandboxConfig is what kubelet would ask for.
func (b *box) sandboxConfig(name, ports string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"uid":"uid-%[1]s","namespace":"test"},"hostname":%[1]q,"log_directory":%q,`+
		`"port_mappings":[%s],"linux":{"cgroup_parent":%q}}`, name, filepath.Join(b.dir, "logs", name), ports, b.cgroup)
}

// runPod has containerd make a pod; ports are port mappings as JSON objects.
func (b *box) runPod(name, ports string) *sandbox {
	b.t.Helper()
	s := &sandbox{name: name, config: b.sandboxConfig(name, ports)}
	var made struct {
		ID string `json:"pod_sandbox_id"`
	}
	b.mustCRI("RunPodSandbox", `{"config":`+s.config+`}`, &made)
	s.id = made.ID
	var is struct {
		Status struct {
			Network struct {
				IP         string
				Additional []struct{ IP string } `json:"additional_ips"`
			}
		}
	}
	b.mustCRI("PodSandboxStatus", fmt.Sprintf(`{"pod_sandbox_id":%q}`, s.id), &is)
	p, net := b.pods()[name], is.Status.Network
	if len(net.Additional) != 1 || len(p.Addrs) != 2 || p.Addrs[0] != net.IP || p.Addrs[1] != net.Additional[0].IP || p.ContainerID != s.id || p.Namespace != "test" {
		b.t.Fatalf("containerd says of %s %+v, culvertd %+v", name, net, p)
	}
	s.ip, s.ip6 = p.Addrs[0], p.Addrs[1]
	return s
}

// runContainer starts podtool in a pod and returns the container's ID.
func (b *box) runContainer(s *sandbox, args ...string) string {
	b.t.Helper()
	list, _ := json.Marshal(args)
	var made struct {
		ID string `json:"container_id"`
	}
	b.mustCRI("CreateContainer", fmt.Sprintf(`{"pod_sandbox_id":%q,"sandbox_config":%s,"config":{"metadata":{"name":"main"},"image":{"image":%q},`+
		`"args":%s,"log_path":"main.log","linux":{}}}`, s.id, s.config, image, list), &made)
	b.mustCRI("StartContainer", fmt.Sprintf(`{"container_id":%q}`, made.ID), nil)
	return made.ID
}

// get has a container fetch a page.
func (b *box) get(container, url string) (string, error) {
	var out struct {
		Stdout, Stderr []byte
		ExitCode       int `json:"exit_code"`
	}
	err := b.cri("ExecSync", fmt.Sprintf(`{"container_id":%q,"cmd":["/podtool","get",%q],"timeout":20}`, container, url), &out)
	if err == nil && out.ExitCode != 0 {
		err = fmt.Errorf("exit code %d: %s", out.ExitCode, out.Stderr)
	}
	return string(out.Stdout), err
}

// stopPod ends a pod's network, and with remove the pod.
func (b *box) stopPod(s *sandbox, remove bool) {
	b.t.Helper()
	b.mustCRI("StopPodSandbox", fmt.Sprintf(`{"pod_sandbox_id":%q}`, s.id), nil)
	if remove {
		b.mustCRI("RemovePodSandbox", fmt.Sprintf(`{"pod_sandbox_id":%q}`, s.id), nil)
	}
}

// TestContainersContainerd has containerd make pods as kubelet has it do: they reach each
// other, pods of the other node reach them, nodes do, and their host ports; also after culvertd was killed and started again, and
// leave nothing.
func TestContainersContainerd(t *testing.T) {
	for name, conf := range map[string]struct {
		ours    string
		chained []string
	}{
		"alone":   {`,"capabilities":{"ips":true,"mac":true,"portMappings":true}`, nil},
		"portmap": {`,"capabilities":{"ips":true,"mac":true}`, []string{portmap}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.conflist("1.0.0,1.1.0", conf.ours, conf.chained...)
			b.lifeOfPods(len(conf.chained) > 0)
		})
	}
}

// lifeOfPods is the test; portmapped says who does port mappings.
func (b *box) lifeOfPods(portmapped bool) {
	t := b.t
	eventually(t, "the runtime's network", func() error {
		var s struct {
			Status struct {
				Conditions []struct {
					Type   string
					Status bool
				}
			}
		}
		err := b.cri("Status", `{}`, &s)
		for _, c := range s.Status.Conditions {
			if c.Type == "NetworkReady" && c.Status {
				return err
			}
		}
		return fmt.Errorf("not ready: %+v, %w", s, err)
	})

	web, client := b.runPod("web", `{"container_port":8080,"host_port":30080}`), b.runPod("client", "")
	b.runContainer(web, "serve", "8080")
	caller := b.runContainer(client, "pause")
	url := "http://" + web.ip + ":8080/"
	far := b.Nodes[1].Pods[0]
	reached := func() {
		t.Helper()
		eventually(t, "pod to pod", func() error {
			out, err := b.get(caller, url)
			if err == nil && !strings.Contains(out, "you are "+client.ip+":") {
				err = fmt.Errorf("the server says %q", out)
			}
			return err
		})
		if out, err := b.get(caller, "http://["+web.ip6+"]:8080/"); err != nil || !strings.Contains(out, "you are ["+client.ip6+"]:") {
			t.Errorf("pod to pod with IPv6: %s, %v", out, err)
		}
		out, err := b.in(far.Netns, "podtool", "get", url)
		if err != nil || !strings.Contains(out, "you are "+far.Addr.String()+":") {
			t.Errorf("from the other node: %s, %v", out, err)
		}
		for from, url := range map[string]string{b.node.Netns: url, b.Nodes[1].Netns: "http://" + b.node.Addr.String() + ":30080/"} {
			if _, err := b.in(from, "podtool", "get", url); err != nil {
				t.Errorf("from a node: %v", err)
			}
		}
	}
	reached()
	dnat := "--to-destination " + web.ip + ":8080"
	if got := b.mustIn(b.node.Netns, "iptables-save", "-t", "nat"); strings.Contains(got, dnat) != portmapped {
		t.Errorf("portmap behind us: %t, %q:\n%s", portmapped, dnat, got)
	}
	if p := b.pods()["web"]; (len(p.PortMappings) == 0) != portmapped {
		t.Errorf("portmap behind us: %t, culvertd's mappings %+v", portmapped, p.PortMappings)
	}

	// culvertd crashes. A pod that ends meanwhile ends, one that begins has to wait.
	b.killAgent()
	b.stopPod(client, false)
	late := b.sandboxConfig("late", "")
	if err := b.cri("RunPodSandbox", `{"config":`+late+`}`, nil); err == nil || !strings.Contains(err.Error(), "culvertd is not answering") {
		t.Errorf("a pod without culvertd: %v", err)
	}
	b.startAgent()
	if _, still := b.pods()["client"]; still {
		t.Error("a pod that ended while culvertd was away is still there")
	}
	b.stopPod(client, true)
	client = b.runPod("late", "")
	caller = b.runContainer(client, "pause")
	reached()

	for _, s := range []*sandbox{web, client} {
		b.stopPod(s, false) // kubelet does so twice, too
		b.stopPod(s, true)
	}
	if left := b.pods(); len(left) != 1 { // the lab's
		t.Errorf("left: %+v", left)
	}
	if got := b.mustIn(b.node.Netns, "iptables-save", "-t", "nat"); strings.Contains(got, dnat) {
		t.Errorf("portmap's rule is left:\n%s", got)
	}
}

// TestContainersCtr runs a container with containerd's own tool, which calls CNI itself.
func TestContainersCtr(t *testing.T) {
	b := newBox(t)
	b.conflist("1.0.0", "")
	far := b.Nodes[1].Pods[0]
	server := b.command(far.Netns, "podtool", "serve", "8080")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Wait() }()
	defer func(p *exec.Cmd) { _ = p.Process.Kill() }(server)
	url := "http://" + far.Addr.String() + ":8080/"
	eventually(t, "the server", func() error {
		_, err := b.in(b.node.Pods[0].Netns, "podtool", "get", url)
		return err
	})
	out, err := b.ctr("--namespace", "k8s.io", "run", "--rm", "--cni", "--cgroup", b.cgroup+"/ctr", image, "one", "/podtool", "get", url)
	if err != nil || !strings.Contains(out, "you are 10.244.1.") {
		t.Errorf("%s, %v", out, err)
	}
	if left := b.pods(); len(left) != 1 {
		t.Errorf("left: %+v", left)
	}
}
