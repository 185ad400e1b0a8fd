package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Cluster is a cluster as it is somewhere: its nodes with names, addresses, prefixes
// and VTEPs of their own, and the manifests that tell culvertd of it, which a lab
// otherwise writes itself.
type Cluster struct {
	Mode      string   // culvertd's: auto, native, calico or flannel
	Manifests []string // files
	Underlay  netip.Prefix
	Pods      netip.Prefix // the network of all pods
	VNI       uint32       // of kernel nodes, as is Port
	Port      uint16
	Nodes     []ClusterNode
}

// ClusterNode is a node of it. The first address of its PodCIDR is its tunnel address.
type ClusterNode struct {
	Name    string
	Kind    Kind
	Addr    netip.Addr
	PodCIDR netip.Prefix
	VTEPMAC string
	Pods    []ClusterPod
}

// ClusterPod is a pod of it. On a Culvert node the address is asked for; an invalid
// one leaves it to the node.
type ClusterPod struct {
	Name string
	Addr netip.Addr
}

// planCluster lays out a lab after a cluster.
func (l *Lab) planCluster(c *Cluster, o Options) {
	l.VNI, l.Port, l.cluster, l.Clusters = c.VNI, c.Port, c, []netip.Prefix{c.Pods}
	if len(c.Nodes) > 2 {
		l.Bridge = l.Name + "-net"
	}
	for _, cn := range c.Nodes {
		n := &Node{
			Name: cn.Name, Kind: cn.Kind, Netns: l.Name + "-" + cn.Name, Addr: cn.Addr, VTEPMAC: cn.VTEPMAC,
			PodCIDR: cn.PodCIDR, PodCIDRs: []netip.Prefix{cn.PodCIDR},
		}
		for i, cp := range cn.Pods {
			pod := &Pod{
				Name: cp.Name, Node: cn.Name, Netns: l.Name + "-" + cp.Name, ContainerID: fmt.Sprint(l.Name, "-", cp.Name, "-", randomHex(8)),
				Addr: cp.Addr, Addrs: []netip.Addr{cp.Addr}, asked: cp.Addr,
			}
			if cn.Kind == Culvert {
				pod.Interface = o.Interfaces[i%len(o.Interfaces)]
			}
			n.Pods = append(n.Pods, pod)
		}
		l.Nodes = append(l.Nodes, n)
	}
}

// copyManifests puts the cluster's manifests where every culvertd looks.
func (l *Lab) copyManifests() error {
	for _, from := range l.cluster.Manifests {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(l.ManifestDir(), filepath.Base(from)), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
	}
	return nil
}

// modeConfig is the part of culvertd's configuration that says what the cluster is.
func (l *Lab) modeConfig() string {
	if l.cluster != nil {
		return fmt.Sprintf("mode: %s\n", l.cluster.Mode)
	}
	return fmt.Sprintf("mode: native\nnative: {encap: %s, crossSubnet: %t, clusterCIDRs: [%s]}\nvxlan: {vni: %d, port: %d}\n",
		l.Encap, l.CrossSubnet, list(l.Clusters), l.VNI, l.Port)
}
