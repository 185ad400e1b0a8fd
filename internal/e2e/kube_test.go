//go:build kube

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"culvert/ctrl/api"
	"culvert/internal/kubetest"
	"culvert/internal/lab"
)

// agentUser is who culvertd is for the API server.
const agentUser = "system:serviceaccount:kube-system:culvert"

// useKube starts the agent of a node, to read from the API server as a kubeconfig says.
func (c *cluster) useKube(n *lab.Node, path string) {
	c.t.Helper()
	c.t.Setenv("CULVERT_SOURCE", "kube")
	c.t.Setenv("CULVERT_KUBECONFIG", path)
	c.t.Setenv("CULVERT_MODE", "auto")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.StartAgent(ctx, n); err != nil {
		c.t.Fatal(err)
	}
}

// waitStatus waits until a node's status is as f says.
func waitStatus(t *testing.T, n *lab.Node, what string, f func(api.Status) bool) {
	t.Helper()
	var s api.Status
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		s = api.Status{}
		if err := api.NewClient(n.Socket).Get(context.Background(), "/v1/status", &s); err == nil && f(s) {
			return
		}
	}
	t.Fatalf("%s is not %s: %+v", n.Name, what, s)
}

func says(s api.Status, part string) bool {
	return strings.Contains(strings.Join(s.Degraded, "\n"), part)
}

// Two Culvert nodes and one of the kernel, whose tables come from an API server that goes
// away and comes back: packets do not notice, and neither does a cold start.
func TestKubeCluster(t *testing.T) {
	s := kubetest.Start(t, kubetest.User{Name: agentUser})
	s.ApplyFiles(t, "../../deploy/rbac.yaml")
	c := up(t, lab.Options{NodeKinds: []lab.Kind{lab.Culvert, lab.Culvert, lab.Flannel}})
	s.ApplyFiles(t, filepath.Join(c.ManifestDir(), "nodes.yaml"))
	a, b := c.Nodes[0], c.Nodes[1]
	paths := map[*lab.Node]string{}
	for _, n := range []*lab.Node{a, b} {
		c.stopCleanly(n)
		paths[n] = s.Proxy(t, func(f func() error) error { return inside(n.Netns, f) }).Kubeconfig(t, agentUser)
		c.useKube(n, paths[n])
	}
	if err := os.RemoveAll(c.ManifestDir()); err != nil {
		t.Fatal(err)
	}
	reached := func() {
		t.Helper()
		for _, from := range c.AllPods() {
			for _, to := range c.AllPods() {
				must(t, from.Netns, "ping", "-n", "-c", "1", "-W", "5", to.Addr.String())
			}
		}
	}
	reached()
	waitStatus(t, a, "well", func(s api.Status) bool {
		return s.Ready && !s.Stale && s.Source == "kube" && len(s.Degraded) == 0 && len(s.Objects) > 0
	})
	if out := culvert(t, a, "status"); !strings.Contains(out, "Node 3, Service 1, heard ") {
		t.Errorf("status says nothing of the objects:\n%s", out)
	}
	ping := startPing(a.Pods[0].Netns, b.Pods[0].Addr.String())
	s.StopAPI()
	for _, n := range []*lab.Node{a, b} {
		waitStatus(t, n, "stale", func(s api.Status) bool {
			return s.Ready && s.Stale && says(s, "cannot be reached") || says(s, "ends every connection")
		})
	}
	if sent, received := ping.result(t); received < sent-1 { // the last may be on its way
		t.Errorf("%d of %d came back while the API server went", received, sent)
	}
	c.stopCleanly(a)
	c.useKube(a, paths[a])
	waitStatus(t, a, "started cold", func(s api.Status) bool {
		return s.Ready && s.Stale && s.Peers == 2 && says(s, "objects.json.gz, until API server")
	})
	reached()
	s.StartAPI(t)
	s.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: new}, spec: {podCIDR: 10.244.200.0/24, podCIDRs: [10.244.200.0/24]}, status: {addresses: [{type: InternalIP, address: 192.168.0.200}]}}`)
	for _, n := range []*lab.Node{a, b} {
		waitStatus(t, n, "well again", func(s api.Status) bool { return s.Ready && !s.Stale && s.Peers == 3 && len(s.Degraded) == 0 })
		if out := culvert(t, n, "route"); !strings.Contains(out, "10.244.200.0/24") {
			t.Errorf("%s has no route to a node that came:\n%s", n.Name, out)
		}
	}
	nodes := schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	if err := s.Objects(t).Resource(nodes).Delete(t.Context(), "new", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, b, "without the node that went", func(s api.Status) bool { return s.Peers == 2 })
	reached()
	if err := c.StopAgent(b, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.useKube(b, paths[b])
	waitStatus(t, b, "well after a crash", func(s api.Status) bool { return s.Ready && !s.Stale && s.Peers == 2 })
	reached()
	if out := culvert(t, a, "config"); !strings.Contains(out, "/api/v1/nodes") {
		t.Errorf("config says nothing of the source:\n%s", out)
	}
}
