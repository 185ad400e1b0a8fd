package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/source"
)

// BenchmarkList reads the lists of a cluster of 5,000 nodes, 10,000 blocks and 150,000
// pods, as they are on the wire, and prints the memory that is left of them.
func BenchmarkList(b *testing.B) {
	for _, c := range []struct {
		name string
		kind kind
		body []byte
	}{
		{"nodes=5000", nodes(), manyNodes(5000)},
		{"blocks=10000", calicoKinds()[2], manyBlocks(b, 10000, 15)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			before := heap()
			var s *store
			for b.Loop() {
				s = newStore(c.kind, "n1")
				var all []change
				if _, err := readList(bytes.NewReader(c.body), &c.kind, func(o metav1.Object, err error) { all = append(all, s.take(o, err)) }); err != nil {
					b.Fatal(err)
				}
				s.replace(all)
			}
			b.ReportMetric(float64(heap()-before)/(1<<20), "kept-MB")
			b.ReportMetric(float64(len(c.body))/(1<<20), "wire-MB")
			if len(s.bad) > 0 || len(s.sorted) == 0 {
				b.Fatal(s.bad)
			}
		})
	}
}

// BenchmarkHeartbeat is the cost of an update that changes nothing that is kept.
func BenchmarkHeartbeat(b *testing.B) {
	k := nodes()
	s := newStore(k, "n1")
	raw, err := bigNode(1).Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.put(s.take(k.decode(protoReader(raw), true)))
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// bigNode is a Node as a kubelet and Calico write it.
func bigNode(i int) *corev1.Node {
	n := node(fmt.Sprintf("node-%d", i), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), fmt.Sprintf("172.16.%d.%d", i/250, 1+i%250))
	n.Annotations["projectcalico.org/IPv4Address"] = "172.16.0.1/16"
	n.Annotations["projectcalico.org/IPv4VXLANTunnelAddr"] = "10.0.0.1"
	for j := range 40 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{SizeBytes: 1 << 20, Names: []string{
			fmt.Sprintf("a-long-name-of/team/image-%d@sha256:%064d", j, j), fmt.Sprintf("a-long-name-of/team/image-%d:v1", j)}})
	}
	for _, t := range []corev1.NodeConditionType{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready", "NetworkUnavailable"} {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: "False", Reason: "KubeletHasIt", Message: "kubelet has what it takes"})
	}
	n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{Raw: bytes.Repeat([]byte(" "), 2000)}}}
	return n
}

func manyNodes(n int) []byte {
	list := &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for i := range n {
		list.Items = append(list.Items, *bigNode(i))
	}
	return inProto(list)
}

func manyBlocks(b *testing.B, n, pods int) []byte {
	var items []any
	for i := range n {
		owner, cidr := fmt.Sprintf("node-%d", i/2), fmt.Sprintf("10.%d.%d.%d/26", i/1024, i/4%256, i%4*64)
		s := source.IPAMBlockSpec{CIDR: cidr, Affinity: new("host:" + owner), Allocations: make([]*int, 64), SequenceNumberForAllocation: map[string]uint64{}}
		for j := range 64 {
			if j >= pods {
				s.Unallocated = append(s.Unallocated, j)
				continue
			}
			s.Allocations[j] = new(j)
			s.SequenceNumberForAllocation[fmt.Sprint(j)] = 1700000000000000000
			s.Attributes = append(s.Attributes, source.IPAMBlockAttribute{HandleID: new(fmt.Sprintf("k8s-pod-network.%064d", j)), Secondary: map[string]string{
				"node": owner, "pod": fmt.Sprintf("deployment-%d-%d", i, j), "namespace": "default", "timestamp": "2026-01-02 03:04:05.678 +0000 UTC"}})
		}
		items = append(items, map[string]any{"metadata": map[string]any{"name": fmt.Sprintf("b-%d", i), "resourceVersion": "1"}, "spec": s})
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": "1"}, "items": items})
	if err != nil {
		b.Fatal(err)
	}
	return text
}
