//go:build kube

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/internal/kubetest"
	"culvert/internal/lab"
)

// inTime waits for what an API server and two machines' worth of programs take on a busy one.
func inTime(t *testing.T, what string, f func() error) {
	t.Helper()
	err := f()
	for deadline := time.Now().Add(90 * time.Second); err != nil && time.Now().Before(deadline); err = f() {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// metricsOf is the page of a node's agent.
func metricsOf(t *testing.T, n *lab.Node) string {
	t.Helper()
	var c net.Conn
	err := inside(n.Netns, func() (err error) {
		c, err = net.Dial("tcp", "127.0.0.1:9476")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// TestKubePublish: a node joins a flannel cluster by the API server alone, with no more
// permissions than deploy/rbac.yaml grants. It says of itself what flanneld would, tells
// of another node's mistake at that Node, and what worked goes on.
func TestKubePublish(t *testing.T) {
	files := newcomer(t)
	rule := flavour.VTEPMAC("agent").String()
	c := up(t, lab.Options{Cluster: flannelCluster(files, rule)})
	n, s1 := c.Nodes[1], c.Nodes[0].Pods[0]
	s := kubetest.Start(t, kubetest.User{Name: agentUser})
	s.ApplyFiles(t, append(files, "../../deploy/rbac.yaml")...)
	core, err := typed.NewForConfig(s.Config(kubetest.Admin))
	if err != nil {
		t.Fatal(err)
	}
	c.stopCleanly(n)
	if err := os.Remove(filepath.Join(c.Dir, n.Name, "state", "node.json")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CULVERT_SOURCE", "kube")
	t.Setenv("CULVERT_KUBECONFIG", s.Proxy(t, func(f func() error) error { return inside(n.Netns, f) }).Kubeconfig(t, agentUser))
	start := func() {
		t.Helper()
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	start()
	published := func() {
		t.Helper()
		inTime(t, "it is on the Node", func() error {
			node, err := core.Nodes().Get(t.Context(), "agent", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for key, want := range map[string]string{
				"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.168.0.11",
				"backend-data": `{"VNI":1,"VtepMAC":"` + rule + `"}`,
			} {
				if got := node.Annotations["flannel.alpha.coreos.com/"+key]; got != want {
					return fmt.Errorf("%s is published as %s, want %s", key, got, want)
				}
			}
			if !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
				return c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionFalse && c.Reason == "CulvertIsUp"
			}) {
				return fmt.Errorf("conditions are %+v", node.Status.Conditions)
			}
			return nil
		})
	}
	published()
	reached := func() {
		t.Helper()
		must(t, n.Pods[0].Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", s1.Addr.String())
	}
	reached()
	inTime(t, "all is well", func() error {
		if st := culvertJSON[api.Status](t, n, "status"); len(st.Degraded)+len(st.Conflicts) > 0 || st.Mode != "flannel" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})

	// Another node has the server's prefix.
	s.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: zz, annotations: {flannel.alpha.coreos.com/kube-subnet-manager: "true", flannel.alpha.coreos.com/backend-type: vxlan,
 flannel.alpha.coreos.com/public-ip: 192.168.0.99, flannel.alpha.coreos.com/backend-data: '{"VNI":1,"VtepMAC":"0a:00:00:00:00:99"}'}}, spec: {podCIDR: 10.42.0.0/24, podCIDRs: [10.42.0.0/24]}}`)
	zz, err := core.Nodes().Get(t.Context(), "zz", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	inTime(t, "there is an Event", func() error {
		list, err := core.Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=DuplicatePodCIDR,involvedObject.uid=" + string(zz.UID)})
		if err == nil && (len(list.Items) != 1 || list.Items[0].InvolvedObject.Name != "zz" || list.Items[0].ReportingInstance != "agent") {
			err = fmt.Errorf("%+v", list.Items)
		}
		return err
	})
	st := culvertJSON[api.Status](t, n, "status")
	if len(st.Conflicts) != 1 || st.Conflicts[0].Object != (api.Object{Kind: "Node", Name: "zz"}) || st.Conflicts[0].Reason != "DuplicatePodCIDR" || st.Conflicts[0].Since.IsZero() || len(st.Degraded) != 1 {
		t.Errorf("conflicts %+v, degraded %q", st.Conflicts, st.Degraded)
	}
	metrics := metricsOf(t, n)
	for _, line := range []string{`culvert_conflicts{kind="Node"} 1`, `culvert_sync_errors_total{source="publish"} 0`} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("no line %s in\n%s", line, metrics)
		}
	}
	reached()

	// What is published stays the same over a restart, whatever is lost on the disk.
	if err := c.StopAgent(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(c.Dir, n.Name, "state", "node.json")); err != nil {
		t.Fatal(err)
	}
	start()
	published()
	reached()
}
