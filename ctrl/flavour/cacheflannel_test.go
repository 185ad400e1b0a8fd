package flavour

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// Flannel's state with a cache is that without, whatever nodes write, nonsense and
// duplicates included.
func TestFlannelCacheChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 62))
	cache := &Cache{}
	objs := &source.Objects{ConfigMaps: []*corev1.ConfigMap{configMap("kube-flannel", `{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}`)}}
	conflicts := 0
	for range 500 {
		next := *objs
		next.Nodes = nil
		for i := range 8 {
			if r.IntN(6) > 0 {
				next.Nodes = append(next.Nodes, someFlanneld(r, i))
			}
		}
		plain := Flannel(&next, Options{Node: "n1"})
		if got := Flannel(&next, Options{Node: "n1", Cache: cache}); !reflect.DeepEqual(got, plain) {
			t.Fatalf("with a cache:\n%v\nwithout:\n%v", brief(got), brief(plain))
		}
		conflicts += len(plain.Conflicts)
	}
	if conflicts < 500 || len(cache.backends) < 20 {
		t.Errorf("%d conflicts, %d texts: too few to say much", conflicts, len(cache.backends))
	}
}

func someFlanneld(r *rand.Rand, i int) *corev1.Node {
	n := flanneld(fmt.Sprintf("n%d", i), fmt.Sprintf("192.168.0.%d", 1+r.IntN(9)), fmt.Sprintf("10.42.%d.0/24", r.IntN(9)), fmt.Sprintf("0a:00:00:00:00:%02x", r.IntN(9)))
	switch key := flannelKey("backend-data"); r.IntN(6) {
	case 0:
		n.Annotations[key] = fmt.Sprintf(`{"VNI":%d,"VtepMAC":"0a:00:00:00:00:%02x"}`, r.IntN(3), r.IntN(9))
	case 1:
		n.Annotations[key] = []string{"", "{", `{"VNI":1}`, `{"VNI":1,"VtepMAC":"x"}`}[r.IntN(4)]
	}
	return n
}

// What is remembered is bounded.
func TestBackendsAreForgotten(t *testing.T) {
	k := &Cache{}
	for i := range mostBackends + 10 {
		k.backend(fmt.Sprintf("nonsense %d", i))
	}
	if n := len(k.backends); n != 10 {
		t.Errorf("%d texts are remembered", n)
	}
}
