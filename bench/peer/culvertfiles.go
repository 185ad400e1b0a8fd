package peer

import (
	"fmt"
	"os"

	"culvert/bench/testbed"
)

// culvertConfig is culvertd's configuration: native mode with Flannel's VNI
// and port, so that every device under test sends the same frames.
const culvertConfig = `node: %s
source: dir:%s
mode: native
uplinks: [%s]
native: {encap: %s, crossSubnet: false, clusterCIDRs: [%s]}
vxlan: {vni: %d, port: %d}
workers: 1
poll: %s
xdp: {mode: %s, zeroCopy: auto, frameSize: 4096, ringSize: 2048}
flows: {capacity: %d}
socket: %s
stateDir: %s
listen: 127.0.0.1:9476
`

// usualFlows is how many connections culvertd can track in most experiments. A pod may
// have an eighth of them without an answer (docs/flows.md).
const usualFlows = 2 << 20

// nodeManifest is one node as an API server holds it.
const nodeManifest = `apiVersion: v1
kind: Node
metadata: {name: %s}
spec: {podCIDR: %[2]s, podCIDRs: [%[2]s]}
status: {addresses: [{type: InternalIP, address: %[3]s}]}
---
`

// writeFiles writes the configuration and the manifests of all nodes.
func (r *culvertRun) writeFiles() error {
	manifests, state := r.path("manifests"), r.path("state")
	for _, dir := range []string{manifests, state} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	nodes := fmt.Appendf(nil, nodeManifest, testbed.NodeName, testbed.PodCIDR, testbed.NodeAddr)
	for _, p := range r.i.Bed.Peers {
		nodes = fmt.Appendf(nodes, nodeManifest, p.Name, p.CIDR, p.Addr)
	}
	if err := os.WriteFile(manifests+"/nodes.yaml", nodes, 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(culvertConfig, testbed.NodeName, manifests, testbed.Uplink, r.i.Options.Encap, testbed.ClusterCIDR,
		testbed.VNI, testbed.Port, r.Poll, r.Mode, max(usualFlows, 8*r.i.Options.Flows), r.path("culvert.sock"), state)
	return os.WriteFile(r.path("culvertd.yaml"), []byte(config), 0o644)
}
