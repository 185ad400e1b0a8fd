//go:build cluster

package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// flannelConfig is what flannel's manifests have of the cluster.
const flannelConfig = `
apiVersion: v1
kind: Namespace
metadata: {name: kube-flannel}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-flannel-cfg, namespace: kube-flannel}
data:
  net-conf.json: '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'
`

// TestClusterMixed is a cluster of flannel's with one Culvert node and one whose network
// the kernel is, as flanneld and its CNI plugin set it up.
func TestClusterMixed(t *testing.T) {
	c := newCluster(t)
	defer func() { // while the machines run
		if t.Failed() {
			c.explain()
		}
	}()
	c.startControl()
	c.apply(flannelConfig)
	c.addNode("worker-1", "10.99.0.1")
	kernel := c.addNode("worker-2", "10.99.0.2")
	c.annotateKernelNode(kernel)
	text, err := os.ReadFile("../../deploy/culvert.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.apply(strings.Replace(string(text), "kubernetes.io/os: linux", "kubernetes.io/hostname: worker-1", 1))
	c.setUpKernelNode(kernel)
	c.ready(2 * time.Minute)
	if out, err := c.culvert("worker-1", "status"); err != nil || !strings.Contains(out, "flannel") {
		t.Errorf("culvert status: %v\n%s", err, out)
	}
	c.apply(deployment("web", 4, `serve, "8080"`) + "---" + fmt.Sprintf(service, "web", 30080))
	c.running("web", 4, time.Minute)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{{"pods", testPods}, {"services", testServices}, {"nodes", testNodes}} {
		c.step(step.name, step.run)
	}
}

// annotateKernelNode publishes what flanneld would of a node (pkg/subnet/kube/kube.go).
func (c *cluster) annotateKernelNode(m *machine) {
	c.t.Helper()
	eventually(c.t, time.Minute, "the node's pod CIDR", func() error {
		if c.podCIDR(m.host) == "" {
			return fmt.Errorf("there is none yet")
		}
		return nil
	})
	c.mustKubectl("annotate", "node", m.host, "flannel.alpha.coreos.com/kube-subnet-manager=true", "flannel.alpha.coreos.com/backend-type=vxlan",
		"flannel.alpha.coreos.com/public-ip="+m.addr, `flannel.alpha.coreos.com/backend-data={"VNI":1,"VtepMAC":"0a:00:00:00:00:02"}`)
}

func (c *cluster) podCIDR(node string) string {
	c.t.Helper()
	out, _ := c.kubectl("get", "node", node, "-o", "jsonpath={.spec.podCIDR}")
	return out
}

// flannelScript is what flanneld does for itself and one peer (pkg/backend/vxlan,
// pkg/trafficmngr).
const flannelScript = `set -e
cidr=$1 base=${1%%/*} peer=$2 peerbase=${2%%/*} peerip=$3 peermac=$4
sysctl -qw net.ipv4.ip_forward=1
ip link add flannel.1 address 0a:00:00:00:00:02 mtu 1450 type vxlan id 1 dev eth0 dstport 8472 nolearning
ip addr add "$base/32" dev flannel.1
ip link set flannel.1 up
ip neigh replace "$peerbase" lladdr "$peermac" nud permanent dev flannel.1
bridge fdb append "$peermac" dev flannel.1 dst "$peerip" self permanent
ip route replace "$peer" via "$peerbase" dev flannel.1 onlink
nft -f - <<'N'
table ip flannel {
  chain postrouting {
    type nat hook postrouting priority srcnat
    meta mark & 0x4000 == 0x4000 return
    ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 return
    ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade
    ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade
  }
}
N
`

// setUpKernelNode makes the node's network what flanneld and its plugin make of it, once
// Culvert has published where its own node is.
func (c *cluster) setUpKernelNode(m *machine) {
	c.t.Helper()
	var data struct{ VtepMAC string }
	eventually(c.t, time.Minute, "the Culvert node's annotations", func() error {
		out, err := c.kubectl("get", "node", "worker-1", "-o", `jsonpath={.metadata.annotations.flannel\.alpha\.coreos\.com/backend-data}`)
		if err == nil {
			err = json.Unmarshal([]byte(out), &data)
		}
		return err
	})
	cidr := c.podCIDR(m.host)
	m.must("bash", "-c", flannelScript, "bash", cidr, c.podCIDR("worker-1"), c.nodes[0].addr, data.VtepMAC)
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		m.must("cp", filepath.Join(debDir, "usr/lib/cni", plugin), "/opt/cni/bin/")
	}
	conf := m.write("conflist", fmt.Sprintf(`{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"bridge","bridge":"cni0","mtu":1450,"isGateway":true,
"isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","ranges":[[{"subnet":%q}]],"routes":[{"dst":"10.244.0.0/16"}]}}]}`, cidr))
	m.must("cp", conf, "/etc/cni/net.d/10-flannel.conflist")
}
