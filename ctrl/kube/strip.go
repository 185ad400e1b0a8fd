package kube

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/source"
)

// annotationsKept begin the annotations of Nodes that some flavour reads.
var annotationsKept = []string{"culvert.dev/", "flannel.alpha.coreos.com/", "projectcalico.org/"}

// stripNode keeps of a Node what says where its pods are and how to get there. Labels
// choose which pools this node takes addresses of, so only its own are of use. Without
// the rest a heartbeat changes nothing.
func stripNode(n *corev1.Node, node string) *corev1.Node {
	out := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, CreationTimestamp: n.CreationTimestamp},
		Spec:       corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses},
	}
	if n.Name == node {
		out.Labels = n.Labels
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeNetworkUnavailable { // which is published
				out.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message}}
			}
		}
	}
	for key, value := range n.Annotations {
		for _, prefix := range annotationsKept {
			if strings.HasPrefix(key, prefix) {
				metav1.SetMetaDataAnnotation(&out.ObjectMeta, key, value)
			}
		}
	}
	return out
}

func stripConfigMap(m *corev1.ConfigMap, _ string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID}, Data: m.Data}
}

// stripService keeps what a Service is reached at.
func stripService(s *corev1.Service, _ string) *corev1.Service {
	out := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, UID: s.UID},
		Spec:       corev1.ServiceSpec{Type: s.Spec.Type, ClusterIP: s.Spec.ClusterIP, ClusterIPs: s.Spec.ClusterIPs, ExternalIPs: s.Spec.ExternalIPs},
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		out.Status.LoadBalancer.Ingress = append(out.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: in.IP, IPMode: in.IPMode})
	}
	return out
}

// stripBlock keeps of another node's block the addresses that are not that node's:
// the others go where the block goes. So the pods that come and go on other nodes
// change nothing here, and ten thousand blocks are small. What it says of itself
// besides is for those who write it, and they read it anew.
func stripBlock(b *source.IPAMBlock, node string) {
	s := &b.Spec
	s.AffinityClaimTime, s.Unallocated, s.SequenceNumber, s.SequenceNumberForAllocation = nil, nil, 0, nil
	owner := ""
	if s.Affinity != nil {
		owner, _ = strings.CutPrefix(*s.Affinity, "host:")
	}
	if owner == node {
		for i := range s.Attributes {
			stripAttribute(&s.Attributes[i])
		}
		return
	}
	kept, index := foreign{}, make([]*int, len(s.Allocations))
	last := 0
	for i, at := range s.Allocations {
		if at == nil {
			continue
		}
		a := &s.Attributes[*at] // which Check has seen
		if to := a.Secondary["node"]; to == "" || to == owner {
			continue
		}
		index[i] = kept.add(a, node)
		last = i + 1
	}
	if len(index) <= sizeOf(s.CIDR) { // more are a mistake that the flavour tells of
		index = index[:last:last]
	}
	s.Allocations, s.Attributes = index, kept.attributes
}

// foreign are the attributes of addresses in another node's block, each once.
type foreign struct {
	attributes []source.IPAMBlockAttribute
	index      map[string]*int
}

// add keeps what is of use of an address's attributes. For whom it is on this node
// matters: it may be the node's tunnel's.
func (f *foreign) add(a *source.IPAMBlockAttribute, node string) *int {
	to := a.Secondary["node"]
	key := to
	if to == node {
		key += " " + a.Secondary["type"]
	}
	if at, ok := f.index[key]; ok {
		return at
	}
	if f.index == nil {
		f.index = map[string]*int{}
	}
	at := len(f.attributes)
	f.index[key] = &at
	kept := map[string]string{"node": to}
	if t := a.Secondary["type"]; to == node && t != "" {
		kept["type"] = t
	}
	f.attributes = append(f.attributes, source.IPAMBlockAttribute{Secondary: kept})
	return &at
}

// stripAttribute keeps whose an address of an own block is.
func stripAttribute(a *source.IPAMBlockAttribute) {
	a.ReleasedAt = nil
	kept := map[string]string{}
	for _, key := range []string{"node", "pod", "namespace", "type"} {
		if v, ok := a.Secondary[key]; ok {
			kept[key] = v
		}
	}
	a.Secondary = kept
}

// sizeOf is the number of addresses that a block can have, as the flavour counts.
func sizeOf(cidr string) int {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return 0
	}
	return 1 << min(p.Addr().BitLen()-p.Bits(), 16)
}
