//go:build kube

package kube

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"culvert/ctrl/source"
	"culvert/internal/kubetest"
)

// agentUser is who the source is for the API server.
const agentUser = "system:serviceaccount:kube-system:culvert"

// role gives it rules.
func role(rules string) string {
	return `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: culvert}, rules: [` + rules + `]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: culvert}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: culvert},
 subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: "` + agentUser + `"}]}
`
}

const (
	readCore   = `{apiGroups: [""], resources: [nodes, services, configmaps], verbs: [list, watch]}`
	readCRDs   = `{apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [list, watch]}`
	readCalico = `{apiGroups: [crd.projectcalico.org, projectcalico.org], resources: [ippools, blockaffinities, ipamblocks, felixconfigurations], verbs: [list, watch]}`
)

func manifest(name, cidr, addr string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Node, metadata: {name: %s, annotations: {culvert.dev/vtep-mac: "66:00:00:00:00:01"}}, spec: {podCIDR: %s, podCIDRs: [%s]}, status: {addresses: [{type: InternalIP, address: %s}]}}
`, name, cidr, cidr, addr)
}

// reading is a Source that runs against a real API server.
type reading struct {
	t   *testing.T
	src *Source

	mu    sync.Mutex
	sets  int
	last  *source.Objects
	wrong []string
	all   []string // that was ever wrong
}

func read(t *testing.T, kubeconfig, mode, dir string) *reading {
	t.Helper()
	client, err := NewClient(kubeconfig, "culvertd/test")
	if err != nil {
		t.Fatal(err)
	}
	r := &reading{t: t, src: NewSource(client, SourceOptions{Node: "n1", Mode: mode, StateDir: dir})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.src.Run(ctx, func(o *source.Objects) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.last, r.sets = o, r.sets+1
		}, func(errs []error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.wrong = texts(errs)
			r.all = append(r.all, r.wrong...)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

// until waits until f holds of the objects and what is wrong.
func (r *reading) until(what string, f func(o *source.Objects, wrong string) bool) {
	r.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		r.mu.Lock()
		o, wrong := r.last, strings.Join(r.wrong, "\n")
		r.mu.Unlock()
		if o == nil {
			o = &source.Objects{}
		}
		if f(o, wrong) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s: %v; wrong: %q; %+v", what, o.Counts(), wrong, r.src.Kinds())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *reading) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sets
}

// lists is how often nodes were listed.
func (r *reading) lists() uint64 {
	for _, k := range r.src.Kinds() {
		if k.Kind == "Node" {
			return k.Lists
		}
	}
	return 0
}

func address(o *source.Objects, i int) string {
	if i >= len(o.Nodes) || len(o.Nodes[i].Status.Addresses) == 0 {
		return ""
	}
	return o.Nodes[i].Status.Addresses[0].Address
}

var nodeResource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// Nodes come, change and go; watches break; the API server is away and comes back, or
// is away at a cold start.
func TestKubeSourceNodes(t *testing.T) {
	s := kubetest.Start(t, kubetest.User{Name: agentUser})
	s.ApplyFiles(t, "../../deploy/rbac.yaml")
	s.Apply(t, manifest("n1", "10.244.1.0/24", "192.0.2.1")+"---\n"+manifest("n2", "10.244.2.0/24", "192.0.2.2"))
	proxy, dir := s.Proxy(t, nil), t.TempDir()
	r := read(t, proxy.Kubeconfig(t, agentUser), "auto", dir)
	r.until("two nodes", func(o *source.Objects, wrong string) bool {
		return len(o.Nodes) == 2 && wrong == "" && address(o, 1) == "192.0.2.2" && o.Nodes[0].Spec.PodCIDRs[0] == "10.244.1.0/24"
	})
	s.Apply(t, manifest("n2", "10.244.2.0/24", "192.0.2.22"))
	r.until("another address", func(o *source.Objects, _ string) bool { return address(o, 1) == "192.0.2.22" })
	s.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-flannel-cfg, namespace: kube-flannel}, data: {net-conf.json: "{}"}}`)
	r.until("flannel's network", func(o *source.Objects, _ string) bool {
		return len(o.ConfigMaps) == 1 && o.ConfigMaps[0].Data["net-conf.json"] == "{}"
	})
	s.Apply(t, strings.Replace(manifest("n2", "10.244.2.0/24", "192.0.2.22"), "00:01", "00:02", 1))
	r.until("another MAC", func(o *source.Objects, _ string) bool {
		return o.Nodes[1].Annotations[source.AnnotationVTEPMAC] == "66:00:00:00:00:02"
	})
	// A heartbeat is none; what comes after it is there, so it was passed over.
	before := r.count()
	beat := fmt.Sprintf(`{"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": %q}]}}`, time.Now().UTC().Format(time.RFC3339))
	if _, err := s.Objects(t).Resource(nodeResource).Patch(t.Context(), "n2", types.StrategicMergePatchType, []byte(beat), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	s.Apply(t, manifest("n3", "10.244.3.0/24", "192.0.2.3"))
	r.until("a third node", func(o *source.Objects, _ string) bool { return address(o, 2) == "192.0.2.3" })
	if n := r.count() - before; n > 2 { // a node and its address, a request each
		t.Errorf("%d sets for a heartbeat and a node", n)
	}
	if err := s.Objects(t).Resource(nodeResource).Delete(t.Context(), "n3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("a node less", func(o *source.Objects, _ string) bool { return len(o.Nodes) == 2 })
	for i := range 3 {
		proxy.Break()
		addr := fmt.Sprintf("192.0.2.%d", 30+i)
		s.Apply(t, manifest("n2", "10.244.2.0/24", addr))
		r.until("resumed", func(o *source.Objects, _ string) bool { return address(o, 1) == addr })
	}
	if n := r.lists(); n != 1 {
		t.Errorf("nodes were listed %d times although watches only broke", n)
	}
	r.mu.Lock()
	if r.all != nil {
		t.Errorf("reported: %q", r.all)
	}
	r.mu.Unlock()
	s.StopAPI()
	r.until("away", func(o *source.Objects, wrong string) bool {
		return strings.Contains(wrong, "API server https://127.0.0.1:") && strings.Contains(wrong, "stays in force") && len(o.Nodes) == 2
	})
	cold := read(t, proxy.Kubeconfig(t, agentUser), "auto", t.TempDir())
	cold.until("away from the start", func(o *source.Objects, wrong string) bool { return wrong != "" && o.Nodes == nil })
	s.StartAPI(t)
	s.Apply(t, manifest("n2", "10.244.2.0/24", "192.0.2.40"))
	for _, r := range []*reading{r, cold} {
		r.until("back", func(o *source.Objects, wrong string) bool { return wrong == "" && address(o, 1) == "192.0.2.40" })
	}
	if n := r.lists(); n > 2 {
		t.Errorf("nodes were listed %d times over a restart of the API server", n)
	}
	t.Logf("after a restart of the API server: %+v", r.src.Kinds())
}

// What RBAC does not allow is named, and used when it is allowed.
func TestKubeSourceForbidden(t *testing.T) {
	s := kubetest.Start(t, kubetest.User{Name: agentUser})
	s.Apply(t, manifest("n1", "10.244.1.0/24", "192.0.2.1"))
	s.InstallCalico(t, kubetest.CalicoV1)
	s.Apply(t, role(readCore+","+readCRDs))
	r := read(t, s.Kubeconfig(t, agentUser), "calico", "")
	r.until("forbidden", func(_ *source.Objects, wrong string) bool {
		return strings.Contains(wrong, `list and watch ippools: 403`) &&
			strings.Contains(wrong, `{apiGroups: ["crd.projectcalico.org"], resources: ["ippools"], verbs: [list, watch]}`) &&
			strings.Contains(wrong, `resources: ["ipamblocks"]`)
	})
	t.Log(r.wrong)
	if r.count() != 0 {
		t.Error("half of the objects are applied")
	}
	s.Apply(t, role(readCore+","+readCRDs+","+readCalico))
	r.until("allowed", func(o *source.Objects, wrong string) bool { return wrong == "" && len(o.Nodes) == 1 })
	stranger := read(t, s.Kubeconfig(t, "stranger"), "native", "")
	stranger.until("unknown", func(_ *source.Objects, wrong string) bool {
		return strings.Contains(wrong, "does not know culvertd: 401 Unauthorized")
	})
}

// Calico's resources are read in either layout, whenever they are defined.
func TestKubeSourceCalico(t *testing.T) {
	s := kubetest.Start(t, kubetest.User{Name: agentUser})
	s.ApplyFiles(t, "../../deploy/rbac.yaml")
	s.Apply(t, manifest("n1", "10.244.1.0/24", "192.0.2.1"))
	r := read(t, s.Kubeconfig(t, agentUser), "auto", "")
	r.until("a node", func(o *source.Objects, _ string) bool { return len(o.Nodes) == 1 })
	v3 := strings.NewReplacer("crd.projectcalico.org/v1", kubetest.CalicoV3, `deleted: "false"`, "deleted: false")
	objects := `{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.244.0.0/16, vxlanMode: Always, natOutgoing: true}}
---
{apiVersion: crd.projectcalico.org/v1, kind: BlockAffinity, metadata: {name: n1-b}, spec: {cidr: 10.244.1.0/26, node: n1, state: confirmed, deleted: "false"}}
---
{apiVersion: crd.projectcalico.org/v1, kind: IPAMBlock, metadata: {name: b}, spec: {cidr: 10.244.1.0/26, affinity: "host:n1", allocations: [0, null], unallocated: [1], strictAffinity: false,
 attributes: [{handle_id: h, secondary: {node: n1, pod: a, namespace: b}}]}}
---
{apiVersion: crd.projectcalico.org/v1, kind: FelixConfiguration, metadata: {name: default}, spec: {vxlanVNI: 4097}}
`
	good := func(o *source.Objects, wrong string) bool {
		return wrong == "" && len(o.IPPools) == 1 && o.IPPools[0].Spec.NATOutgoing && len(o.BlockAffinities) == 1 && o.BlockAffinities[0].Spec.Deleted == "false" &&
			len(o.IPAMBlocks) == 1 && o.IPAMBlocks[0].Spec.Attributes[0].Secondary["pod"] == "a" && len(o.FelixConfigurations) == 1
	}
	s.InstallCalico(t, kubetest.CalicoV3)
	s.Apply(t, v3.Replace(objects))
	r.until("native", good)
	paths := func() (all string) {
		for _, k := range r.src.Kinds() {
			all += k.Path + " "
		}
		return all
	}
	if !strings.Contains(paths(), "/apis/projectcalico.org/v3/ipamblocks ") {
		t.Errorf("read: %s", paths())
	}
	s.InstallCalico(t, kubetest.CalicoV1)
	s.Apply(t, strings.Replace(objects, "name: p}", "name: classic}", 1))
	r.until("classic", func(o *source.Objects, wrong string) bool { return good(o, wrong) && o.IPPools[0].Name == "classic" })
	crds := s.Objects(t).Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if err := crds.Delete(t.Context(), "ippools.crd.projectcalico.org", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("without pools", func(o *source.Objects, wrong string) bool {
		return wrong == "" && len(o.IPPools) == 0 && len(o.IPAMBlocks) == 1
	})
}
