//go:build containers

package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// cniResult is what is looked at of a result, in any version.
type cniResult struct {
	CNIVersion string
	Interfaces []struct {
		Name, Mac, Sandbox string
		MTU                int
	}
	IPs []struct {
		Address   netip.Prefix
		Gateway   netip.Addr
		Interface *int
	}
	Routes []struct {
		Dst netip.Prefix
		GW  netip.Addr
	}
}

// cnitool runs a command of the CNI project's tool, which is libcni. Its cache, in
// /var/lib/cni, is one of the test's.
func (c *cluster) cnitool(command, netns string, env ...string) (string, error) {
	cmd := c.command(c.node.Netns, "unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind "$0" /var/lib && exec cnitool "$@"`, filepath.Join(c.dir, "varlib"), command, "culvert", "/run/netns/"+netns)
	cmd.Env = append(cmd.Env, env...)
	return output(cmd)
}

// mustTool is cnitool for a command that succeeds.
func (c *cluster) mustTool(command, netns string, env ...string) string {
	c.t.Helper()
	out, err := c.cnitool(command, netns, env...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// add is an ADD with its result, in which eth0 and its addresses are to be found as runtimes do.
func (c *cluster) add(netns string, env ...string) (r cniResult) {
	c.t.Helper()
	out := c.mustTool("add", netns, env...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
	for _, ip := range r.IPs {
		if ip.Interface == nil || *ip.Interface >= len(r.Interfaces) || r.Interfaces[*ip.Interface].Name != "eth0" ||
			r.Interfaces[*ip.Interface].Sandbox != "/run/netns/"+netns || !ip.Address.IsSingleIP() {
			c.t.Errorf("an address that runtimes do not find: %s", out)
		}
	}
	if len(r.IPs) == 0 {
		c.t.Errorf("no address: %s", out)
	}
	return r
}

// TestContainersCNITool goes through a pod's life with libcni, in every version, with
// a choice of them, and with a TAP.
func TestContainersCNITool(t *testing.T) {
	c := up(t, lab.Options{Pods: 1, Family: lab.Dual})
	far := c.Nodes[1].Pods[0]
	for i, version := range slices.Concat(api.CNIVersions, []string{"1.0.0,1.1.0"}) {
		kind := "veth"
		if i == len(api.CNIVersions) {
			kind = "tap"
		}
		t.Run(version+" "+kind, func(t *testing.T) {
			c.t = t
			c.conflist(version, `,"interface":"`+kind+`","capabilities":{"ips":true,"mac":true,"portMappings":true}`)
			_, choice, chosen := strings.Cut(version, ",")
			if chosen {
				version = choice // libcni takes the highest that it knows
			}
			pod := c.newNetns(fmt.Sprint("p", i))
			c.mustTool("status", pod)
			r := c.add(pod, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web",
				`CAP_ARGS={"mac":"02:11:22:33:44:55","portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`)
			if ends := map[string]int{"veth": 2, "tap": 1}; len(r.Interfaces) != ends[kind] {
				t.Errorf("interfaces of a %s: %+v", kind, r.Interfaces)
			}
			if r.CNIVersion != version || len(r.IPs) != 2 || len(r.Routes) != 2 || r.Interfaces[*r.IPs[0].Interface].Mac != "02:11:22:33:44:55" {
				t.Errorf("result: %+v", r)
			}
			if mtu := r.Interfaces[*r.IPs[0].Interface].MTU; (mtu == c.PodMTU()) != (version == "1.1.0") {
				t.Errorf("MTU %d in a result of %s", mtu, version)
			}
			if p := c.pods()["web"]; p.MAC != "02:11:22:33:44:55" || len(p.PortMappings) != 1 || p.PortMappings[0].HostPort != 8080 {
				t.Errorf("culvertd has %+v", p)
			}
			for _, addr := range far.Addrs {
				c.mustIn(pod, "ping", "-n", "-c", "1", "-W", "5", addr.String())
			}
			c.hostPort(pod, "80", "8080", false)
			if _, err := c.cnitool("add", pod, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web"); err == nil || !strings.Contains(err.Error(), "already") {
				t.Errorf("a second ADD: %v", err)
			}
			if version != "0.3.1" { // which has no CHECK
				c.mustTool("check", pod)
				c.mustIn(pod, "ip", "addr", "del", r.IPs[0].Address.String(), "dev", "eth0")
				if _, err := c.cnitool("check", pod); err == nil || !strings.Contains(err.Error(), r.IPs[0].Address.Addr().String()) {
					t.Errorf("CHECK without the address: %v", err)
				}
			}
			for range 2 {
				c.mustTool("del", pod)
			}
			if _, still := c.pods()["web"]; still {
				t.Error("DEL left the pod")
			}
		})
	}
}

// gc runs culvert-cni's GC as a runtime with this list of valid attachments does.
func (c *cluster) gc(valid string) error {
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"culvert","type":"culvert-cni","socket":%q,"cni.dev/valid-attachments":%s,"cni.dev/attachments":%[2]s}`,
		c.node.Socket, valid)
	cmd := c.command(c.node.Netns, "culvert-cni")
	cmd.Env = append(cmd.Env, "CNI_COMMAND=GC")
	cmd.Stdin = strings.NewReader(conf)
	_, err := output(cmd)
	return err
}

// TestContainersGC: cnitool knows no valid attachments, and sends no list of them. What
// libcni has cached goes by DEL, and nothing else: without a list we take none for stale.
func TestContainersGC(t *testing.T) {
	c := up(t, lab.Options{Pods: 1})
	c.conflist("1.1.0", "")
	for _, name := range []string{"a", "b", "c", "d"} {
		c.add(c.newNetns(name), "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME="+name)
	}
	for _, name := range []string{"b", "c", "d"} { // the runtime has forgotten these; the plugin has not
		cached, err := filepath.Glob(filepath.Join(c.dir, "varlib/cni/results", "culvert-"+c.pods()[name].ContainerID+"-eth0"))
		if err != nil || len(cached) != 1 {
			t.Fatalf("libcni's cache: %v, %v", cached, err)
		}
		if err := os.Remove(cached[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.cnitool("gc", c.Name+"-a"); err == nil || !strings.Contains(err.Error(), "GC needs cni.dev/valid-attachments") {
		t.Errorf("GC without a list: %v", err)
	}
	if left := c.pods(); len(left) != 4 || left["a"].Name != "" { // one is the lab's
		t.Errorf("cnitool's GC left %+v", left)
	}
	d, labs := c.pods()["d"], c.node.Pods[0]
	valid := fmt.Sprintf(`[{"containerID":%q,"ifname":"eth0"},{"containerID":%q,"ifname":"eth0"}]`, d.ContainerID, labs.ContainerID)
	if err := c.gc(valid); err != nil {
		t.Error(err)
	}
	if left := c.pods(); len(left) != 2 || left["d"].Name != "d" {
		t.Errorf("GC left %+v", left)
	}
	if out := c.mustIn(c.node.Netns, "ip", "-o", "link", "show", "type", "veth"); strings.Count(out, "link/ether ee:ee:ee:ee:ee:ee") != 2 {
		t.Errorf("GC left links:\n%s", out)
	}
}

// TestContainersAgentAway: what libcni is told while culvertd is not there, and that a
// DEL of that time is done later.
func TestContainersAgentAway(t *testing.T) {
	c := up(t, lab.Options{Pods: 1})
	c.conflist("1.1.0", "")
	pod, late := c.newNetns("p"), c.newNetns("late")
	named := func(name string) string {
		return "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=" + name
	}
	first := c.add(pod, named("web"))
	if err := c.StopAgent(c.node, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"status": "code=51", "add": "code=11", "check": "code=11"} {
		netns := late
		if command == "check" {
			netns = pod
		}
		_, err := c.cnitool(command, netns, named("late"))
		log, _ := os.ReadFile(filepath.Join(c.dir, "cni.log"))
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		// libcni follows a failed ADD with nothing: that is the runtime's to do.
		if err == nil || !strings.Contains(err.Error(), "culvertd is not answering") || !strings.Contains(lines[len(lines)-1], want) {
			t.Errorf("%s: %v\n%s", command, err, lines[len(lines)-1])
		}
	}
	c.mustTool("del", pod, named("web"))
	if err := c.StartAgent(context.Background(), c.node); err != nil {
		t.Fatal(err)
	}
	if _, still := c.pods()["web"]; still {
		t.Error("the DEL was not done when culvertd started")
	}
	c.mustTool("status", late)
	second := c.add(late, named("late"))
	c.mustTool("check", late, named("late"))
	c.mustIn(late, "ping", "-n", "-c", "1", "-W", "5", c.Nodes[1].Pods[0].Addr.String())
	if first.IPs[0].Address == second.IPs[0].Address {
		t.Errorf("address %s was given again at once", first.IPs[0].Address)
	}
	c.mustTool("del", late, named("late"))
}
