//go:build kube

package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"culvert/ctrl/api"
	"culvert/internal/kubetest"
	"culvert/internal/lab"
)

// apiServer is a real API server, and each node's way to it.
type apiServer struct {
	*kubetest.Server
	t       *testing.T
	applied bool // the lab's manifests
	proxies map[string]*kubetest.Proxy
}

// serve starts an API server with what culvertd may do there.
func serve(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{Server: kubetest.Start(t, kubetest.User{Name: agentUser}), t: t, proxies: map[string]*kubetest.Proxy{}}
	s.ApplyFiles(t, "../../deploy/rbac.yaml")
	return s
}

// source is lab.Options.Source: the lab's manifests are objects of the API server.
func (s *apiServer) source(l *lab.Lab, n *lab.Node) (string, error) {
	if !s.applied {
		files, err := filepath.Glob(filepath.Join(l.ManifestDir(), "*.yaml"))
		if err != nil || len(files) == 0 {
			return "", errors.New("no manifests")
		}
		s.ApplyFiles(s.t, files...)
		s.applied = true
	}
	p := s.proxies[n.Name]
	if p == nil {
		p = s.Proxy(s.t, func(f func() error) error { return inside(n.Netns, f) })
		s.proxies[n.Name] = p
	}
	return fmt.Sprintf("source: kube\nkubeconfig: %s\n", p.Kubeconfig(s.t, agentUser)), nil
}

var nodeResource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// annotate changes annotations of a Node.
func (s *apiServer) annotate(node string, annotations string) {
	s.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":%s}}`, annotations)
	if _, err := s.Objects(s.t).Resource(nodeResource).Patch(s.t.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// annotations are a Node's, of one domain.
func (s *apiServer) annotations(node, domain string) map[string]string {
	s.t.Helper()
	u, err := s.Objects(s.t).Resource(nodeResource).Get(s.t.Context(), node, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range u.GetAnnotations() {
		if name, ok := strings.CutPrefix(k, domain+"/"); ok {
			out[name] = v
		}
	}
	return out
}

// reach pings every pod from every other.
func reach(t *testing.T, c *cluster) {
	t.Helper()
	for _, a := range c.AllPods() {
		for _, b := range c.AllPods() {
			if a != b {
				must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
			}
		}
	}
}

// Two Culvert nodes and one of the kernel's, whose VTEP gets another MAC.
func TestKubeNative(t *testing.T) {
	s := serve(t)
	c := up(t, lab.Options{NodeKinds: []lab.Kind{lab.Culvert, lab.Culvert, lab.Flannel}, Source: s.source})
	reach(t, c)
	n, kernel := c.Nodes[0], c.Nodes[2]

	const other = "66:00:00:00:00:77"
	s.annotate(kernel.Name, fmt.Sprintf(`{"culvert.dev/vtep-mac":%q}`, other))
	dev := fmt.Sprint("flannel.", c.VNI)
	must(t, kernel.Netns, "ip", "link", "set", "dev", dev, "address", other)
	for _, peer := range c.Nodes[:2] { // the kernel forgets a device's neighbours with its address
		must(t, kernel.Netns, "ip", "neigh", "replace", peer.PodCIDR.Addr().String(), "lladdr", peer.VTEPMAC, "nud", "permanent", "dev", dev)
	}
	eventually(t, "the new MAC is in the FDB", func() error {
		if out := culvert(t, n, "fdb"); !strings.Contains(out, other+" dst "+kernel.Addr.String()) {
			return errors.New(out)
		}
		return nil
	})
	must(t, n.Pods[0].Netns, "ping", "-n", "-c", "1", "-W", "2", kernel.Pods[0].Addr.String())
}

// The Calico cluster of the write-up.
func TestKubeCalicoCluster(t *testing.T) {
	s := serve(t)
	s.InstallCalico(t, kubetest.CalicoV1)
	cluster := calicoCluster(t, "auto")
	cluster.Nodes[1].Pods = cluster.Nodes[1].Pods[1:] // the block says that the first one's address is another container's
	c := up(t, lab.Options{Cluster: cluster, Source: s.source})
	n := c.Nodes[1]
	wants(t, n, "fdb", macMaster+" dst 192.168.0.40 self permanent", macWorker2+" dst 192.168.0.42 self permanent")
	wants(t, n, "route", "10.244.50.128/26 via 192.168.0.42 dev eth0 encap vxlan id 4096 lladdr "+macWorker2+" proto culvert mtu 1450")
	if st := culvertJSON[api.Status](t, n, "status"); st.Mode != "calico" || st.Peers != 2 || len(st.Degraded) != 0 {
		t.Errorf("status %+v", st)
	}
	reach(t, c)
	got := s.annotations("worker1", "projectcalico.org")
	if got["IPv4Address"] != "192.168.0.41/24" || got["IPv4VXLANTunnelAddr"] != "10.244.127.64" {
		t.Errorf("worker1 has the annotations %v", got)
	}
}

// The Flannel cluster of the write-up: what this node publishes is in flannel's form.
func TestKubeFlannelCluster(t *testing.T) {
	s := serve(t)
	c := up(t, lab.Options{Cluster: flannelCluster(manifestFiles(t, "flannel"), "4a:c6:29:d0:5e:11"), Source: s.source}) // what the Node says
	reach(t, c)
	for _, n := range c.Nodes {
		if n.Kind != lab.Culvert {
			continue
		}
		eventually(t, "the node publishes", func() error {
			got := s.annotations(n.Name, "flannel.alpha.coreos.com")
			want := fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, n.VTEPMAC)
			if got["kube-subnet-manager"] != "true" || got["backend-type"] != "vxlan" || got["backend-data"] != want || got["public-ip"] != n.Addr.String() {
				return fmt.Errorf("%v, want backend-data %s", got, want)
			}
			return nil
		})
	}
}
