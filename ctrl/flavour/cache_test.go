package flavour

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/source"
)

// What comes out with a cache is what comes out without, whatever changes.
func TestCacheChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	cache := &Cache{}
	objs := &source.Objects{}
	hits := 0
	for range 500 {
		next := *objs
		for _, change := range []func(){
			func() { next.Nodes = someNodes(r) },
			func() {
				if len(next.Nodes) > 0 { // one node's annotations
					next.Nodes = slices.Clone(next.Nodes)
					i := r.IntN(len(next.Nodes))
					next.Nodes[i] = someNode(r, next.Nodes[i].Name)
				}
			},
			func() { next.IPAMBlocks = someBlocks(r) },
			func() { next.BlockAffinities = someAffinities(r) },
			func() { next.IPPools = somePools(r) },
		} {
			if r.IntN(4) == 0 {
				change()
			}
		}
		objs = &next
		opt := Options{Node: "n1"}
		plain := Calico(objs, opt)
		opt.Cache = cache
		if cache.ground(newCollector(ModeCalico, objs, opt)) != nil {
			hits++
		}
		if got := Calico(objs, opt); !reflect.DeepEqual(brief(got), brief(plain)) || !reflect.DeepEqual(got.Annotations, plain.Annotations) ||
			!reflect.DeepEqual(got.Conflicts, plain.Conflicts) || !reflect.DeepEqual(got.Pools, plain.Pools) || !reflect.DeepEqual(got.Local, plain.Local) {
			t.Fatalf("with a cache:\n%v\nwithout:\n%v", brief(got), brief(plain))
		}
	}
	if hits < 50 || hits > 450 {
		t.Errorf("the cache was of use %d times of 500", hits)
	}
}

func someNode(r *rand.Rand, name string) *corev1.Node {
	n := calicoNode(name, fmt.Sprintf("172.16.0.%d/24", 1+r.IntN(9)), fmt.Sprintf("10.0.%d.0", r.IntN(6)))
	if r.IntN(5) == 0 {
		n.Labels = map[string]string{"rack": fmt.Sprint(r.IntN(2))}
	}
	return n
}

func someNodes(r *rand.Rand) (all []*corev1.Node) {
	for i := range 6 {
		if r.IntN(6) > 0 {
			n := someNode(r, fmt.Sprintf("n%d", i))
			n.CreationTimestamp = metav1.NewTime(time.Unix(int64(r.IntN(3)), 0))
			all = append(all, n)
		}
	}
	return all
}

func someBlocks(r *rand.Rand) (all []*source.IPAMBlock) {
	for i := range 6 {
		if r.IntN(4) > 0 {
			all = append(all, ipamBlock(fmt.Sprintf("10.0.%d.0/26 n%d 0=n%d#vxlanTunnelAddress 5=n%d/x", i, r.IntN(6), i, r.IntN(6))))
		}
	}
	return all
}

func someAffinities(r *rand.Rand) (all []*source.BlockAffinity) {
	for i := range 6 {
		if r.IntN(3) == 0 {
			all = append(all, affinity(fmt.Sprintf("10.0.%d.0/26 n%d confirmed", i, r.IntN(6))))
		}
	}
	return all
}

func somePools(r *rand.Rand) (all []*source.IPPool) {
	if r.IntN(5) > 0 {
		all = append(all, pool("p", "10.0.0.0/"+[]string{"8", "16", "22"}[r.IntN(3)]+" vxlan="+[]string{"Always", "CrossSubnet"}[r.IntN(2)]))
	}
	return all
}
