//go:build kube

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"culvert/ctrl/api"
	"culvert/ctrl/calicoipam"
	"culvert/ctrl/calicoipam/ipamtest"
	"culvert/ctrl/kube"
	"culvert/internal/kubetest"
	"culvert/internal/lab"
)

// inconsistent says what is wrong in the blocks and handles of a server, where the
// kernel's nodes have no blocks, only affinities.
func inconsistent(t *testing.T, server *kubetest.Server) error {
	t.Helper()
	var lists [3][]*unstructured.Unstructured
	for i, resource := range []string{"ipamblocks", "ipamhandles", "blockaffinities"} {
		gvr := schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: resource}
		all, err := server.Objects(t).Resource(gvr).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for j := range all.Items {
			if node, _, _ := unstructured.NestedString(all.Items[j].Object, "spec", "node"); node == "" || node == "worker1" {
				lists[i] = append(lists[i], &all.Items[j])
			}
		}
	}
	if problems := ipamtest.Check(lists[0], lists[1], lists[2]); len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	if len(lists[1]) != 2 {
		return fmt.Errorf("%d handles; want the tunnel's and the pod's", len(lists[1]))
	}
	return nil
}

// found is what culvert ipam check finds, the blocks and handles at the API server included.
func found(t *testing.T, n *lab.Node) []api.IPAMFinding {
	t.Helper()
	out, _ := exec.Command(filepath.Join(binDir, "culvert"), "--socket", n.Socket, "ipam", "check", "-o", "json").Output() // exits with 1
	var v api.IPAMCheck
	if err := json.Unmarshal(out, &v); err != nil || len(v.Skipped) > 0 || !slices.Contains(v.Compared, "Pods at the API server") {
		t.Fatalf("ipam check: %v: %s", err, out)
	}
	return v.Findings
}

// A Culvert node joins a Calico cluster of kernel nodes with nothing but a Node and an
// IPPool: it claims a block and its tunnel address at the API server, its pods' addresses
// are written there, and without the API server they get addresses all the same.
func TestKubeCalicoIPAM(t *testing.T) {
	cluster := calicoCluster(t, "calico")
	cluster.Nodes[1].Pods = []lab.ClusterPod{{Name: "any"}}
	c := up(t, lab.Options{Cluster: cluster})
	n, pod, peer := c.Nodes[1], c.Nodes[1].Pods[0], c.Nodes[2].Pods[0]

	server := kubetest.Start(t)
	server.InstallCalico(t, kubetest.CalicoV1)
	server.ApplyFiles(t, "../../ctrl/testdata/calico/nodes.yaml", "../../ctrl/testdata/calico/pools.yaml")
	for node, cidr := range map[string]string{"master": "10.244.186.128/26", "worker2": "10.244.50.128/26"} {
		server.Apply(t, fmt.Sprintf(`{apiVersion: crd.projectcalico.org/v1, kind: BlockAffinity, metadata: {name: %s-b}, spec: {cidr: %s, node: %s, state: confirmed, deleted: "false"}}`, node, cidr, node))
	}
	proxy := server.Proxy(t, func(f func() error) error { return inside(n.Netns, f) })
	if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CULVERT_SOURCE", "kube")
	t.Setenv("CULVERT_KUBECONFIG", proxy.Kubeconfig(t, kubetest.Admin))
	if err := c.StartAgent(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	ping := func() {
		t.Helper()
		must(t, pod.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", peer.Addr.String())
	}
	// The pod was there before, and its address is recorded now.
	consistent := func() {
		t.Helper()
		var err error
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if err = inconsistent(t, server); err == nil {
				return
			}
		}
		t.Fatalf("the blocks do not say what the node says: %v", err)
	}
	consistent()
	ping()
	again := func() {
		t.Helper()
		for _, command := range []string{"DEL", "ADD"} {
			out, err := c.CNI(t.Context(), n, pod, command)
			if err != nil {
				t.Fatal(err)
			}
			if command == "ADD" {
				before := pod.Addr
				pod.Addr = resultAddr(t, out)
				if !n.PodCIDR.Contains(pod.Addr) || pod.Addr == before {
					t.Errorf("the pod gets %s after %s", pod.Addr, before)
				}
			}
		}
	}
	again()
	ping()
	consistent()
	// The API server knows no such pod, until it does.
	if f := found(t, n); len(f) != 1 || f[0].Kind != "pod_gone" || f[0].Address != pod.Addr.String() {
		t.Errorf("ipam check finds %+v", f)
	}
	server.Apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: any, namespace: lab}, spec: {nodeName: worker1, containers: [{name: c, image: none}]}}`)
	if f := found(t, n); len(f) != 0 {
		t.Errorf("ipam check finds %+v", f)
	}
	if a := culvertJSON[api.IPAMAddress](t, n, "ipam", "show", pod.Addr.String()); a.State != "used" || a.Kind != "block" || a.Handle != "culvert."+pod.ContainerID {
		t.Errorf("%+v", a)
	}
	handles, err := server.Objects(t).Resource(schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "ipamhandles"}).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range handles.Items {
		names = append(names, h.GetName())
	}
	if want := []string{"culvert." + pod.ContainerID, "vxlan-tunnel-addr-worker1"}; !slices.Equal(names, want) {
		t.Errorf("handles %v, want %v", names, want)
	}
	// Away, over a restart, and back.
	proxy.Cut()
	again()
	ping()
	if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAgent(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	ping()
	proxy.Mend()
	consistent()
	ping()

	// Somebody else was given a pod's address meanwhile: both keep it, and it is told.
	proxy.Cut()
	again()
	admin, err := kube.NewClient(server.Kubeconfig(t, kubetest.Admin), "culvert-test")
	if err != nil {
		t.Fatal(err)
	}
	thief := calicoipam.NewClient(calicoipam.Config{Node: "worker2", Store: kube.NewIPAM(admin)})
	request := calicoipam.Request{Handle: "k8s-pod-network.thief", Attrs: map[string]string{"node": "worker2", "namespace": "lab", "pod": "thief"}}
	request.Want = []netip.Addr{pod.Addr}
	if _, err := thief.Assign(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	proxy.Mend()
	told := func(want bool) {
		t.Helper()
		var s api.Status
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			s = culvertJSON[api.Status](t, n, "status")
			if want == slices.ContainsFunc(s.Degraded, func(line string) bool {
				return strings.Contains(line, "Pod lab/any: status.podIP: address "+pod.Addr.String()+" is taken") && strings.Contains(line, "of pod lab/thief on worker2")
			}) {
				return
			}
		}
		t.Fatalf("told: %v; want %t", s.Degraded, want)
	}
	told(true)
	ping()
	request.Want = nil
	if err := thief.Settle(t.Context(), func() (calicoipam.Request, bool) { return request, true }); err != nil {
		t.Fatal(err)
	}
	told(false)
	consistent()
	ping()
}

// resultAddr is the address of an ADD's result.
func resultAddr(t *testing.T, out []byte) netip.Addr {
	t.Helper()
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &result); err != nil || len(result.IPs) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return result.IPs[0].Address.Addr()
}
