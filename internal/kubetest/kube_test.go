//go:build kube

package kubetest

import (
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

var nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

const manifest = `
apiVersion: v1
kind: Node
metadata: {name: n1, annotations: {a: b}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
`

// RBAC refuses what nobody was given, data survive a restart of the API server, and
// a proxy that is cut is a server that is away.
func TestKubeServer(t *testing.T) {
	s := Start(t, User{Name: "nobody"})
	s.Apply(t, manifest)
	s.Apply(t, manifest) // replaces it
	node, err := s.Objects(t).Resource(nodes).Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, _ := node.Object["status"].(map[string]any)
	if node.GetAnnotations()["a"] != "b" || status["addresses"] == nil {
		t.Errorf("the node has no annotation or no address: %v", node.Object)
	}
	nobody, err := dynamic.NewForConfig(s.Config("nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Resource(nodes).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("nobody lists nodes: %v", err)
	}
	proxy := s.Proxy(t, nil)
	config := s.config(Admin, proxy.port)
	config.Timeout = 5 * time.Second
	through, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	get := func() error {
		_, err := through.Resource(nodes).Get(t.Context(), "n1", metav1.GetOptions{})
		return err
	}
	if err := get(); err != nil {
		t.Errorf("through the proxy: %v", err)
	}
	proxy.Cut()
	if get() == nil {
		t.Error("a proxy that is cut lets through")
	}
	proxy.Mend()
	s.StopAPI()
	if get() == nil {
		t.Error("a server that is stopped answers")
	}
	s.StartAPI(t)
	if err := get(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// Both layouts of Calico's resources take what Calico writes and refuse nonsense.
func TestKubeCalico(t *testing.T) {
	s := Start(t)
	s.InstallCalico(t, CalicoV1)
	s.InstallCalico(t, CalicoV3)
	s.ApplyFiles(t, "../../ctrl/testdata/calico/nodes.yaml", "../../ctrl/testdata/calico/pools.yaml", "../../ctrl/testdata/calico/blocks.yaml")
	affinities := schema.GroupVersionResource{Group: "projectcalico.org", Version: "v3", Resource: "blockaffinities"}
	client := s.Objects(t).Resource(affinities)
	bad := decode(t, `{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: x}, spec: {cidr: 10.0.0.0/26, deleted: "false", node: node-1, state: confirmed}}`)
	if _, err := client.Create(t.Context(), bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("deleted as a string in v3: %v", err)
	}
	bad = decode(t, `{apiVersion: crd.projectcalico.org/v1, kind: IPAMBlock, metadata: {name: x}, spec: {cidr: 10.0.0.0/26, strictAffinity: false, unallocated: [], attributes: []}}`)
	blocks := schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "ipamblocks"}
	if _, err := s.Objects(t).Resource(blocks).Create(t.Context(), bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a block without allocations in v1: %v", err)
	}
	s.Apply(t, `{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: x}, spec: {cidr: 10.0.0.0/26, deleted: false, node: node-1, state: confirmed}}`)
}

func decode(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	var u unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(manifest), &u.Object); err != nil {
		t.Fatal(err)
	}
	return &u
}
