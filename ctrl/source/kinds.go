package source

import (
	"cmp"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	calicoGroup   = "crd.projectcalico.org"
	calicoVersion = calicoGroup + "/v1"
)

// kind is a kind of object that Culvert reads.
type kind struct {
	apiVersion, name string
	cluster          bool // not in a namespace
	make             func() metav1.Object
	// check finds values of the right type that cannot be meant.
	check func(metav1.Object) *finding
	add   func(*Objects, metav1.Object)
	count func(*Objects) int
}

// kindOf describes a kind by its type T, whose objects belong in list.
func kindOf[T any, P interface {
	*T
	metav1.Object
}](apiVersion string, cluster bool, check func(P) *finding, list func(*Objects) *[]P) kind {
	return kind{
		apiVersion: apiVersion,
		name:       reflect.TypeFor[T]().Name(),
		cluster:    cluster,
		make:       func() metav1.Object { return P(new(T)) },
		check:      func(o metav1.Object) *finding { return check(o.(P)) },
		add:        func(all *Objects, o metav1.Object) { l := list(all); *l = append(*l, o.(P)) },
		count:      func(all *Objects) int { return len(*list(all)) },
	}
}

func fine[P metav1.Object](P) *finding { return nil }

var kinds = []kind{
	kindOf("v1", true, checkNode, func(o *Objects) *[]*corev1.Node { return &o.Nodes }),
	kindOf("v1", false, checkPod, func(o *Objects) *[]*corev1.Pod { return &o.Pods }),
	kindOf("v1", true, fine, func(o *Objects) *[]*corev1.Namespace { return &o.Namespaces }),
	kindOf("v1", false, checkService, func(o *Objects) *[]*corev1.Service { return &o.Services }),
	kindOf("v1", false, fine, func(o *Objects) *[]*corev1.ConfigMap { return &o.ConfigMaps }),
	kindOf("discovery.k8s.io/v1", false, checkEndpointSlice, func(o *Objects) *[]*discoveryv1.EndpointSlice { return &o.EndpointSlices }),
	kindOf("networking.k8s.io/v1", false, checkNetworkPolicy, func(o *Objects) *[]*networkingv1.NetworkPolicy { return &o.NetworkPolicies }),
	kindOf(calicoVersion, true, checkIPPool, func(o *Objects) *[]*IPPool { return &o.IPPools }),
	kindOf(calicoVersion, true, checkBlockAffinity, func(o *Objects) *[]*BlockAffinity { return &o.BlockAffinities }),
	kindOf(calicoVersion, true, checkIPAMBlock, func(o *Objects) *[]*IPAMBlock { return &o.IPAMBlocks }),
	kindOf(calicoVersion, true, checkFelixConfiguration, func(o *Objects) *[]*FelixConfiguration { return &o.FelixConfigurations }),
}

// findKind finds a kind that Culvert reads.
func findKind(apiVersion, name string) *kind {
	for i := range kinds {
		if kinds[i].apiVersion == apiVersion && kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

// Count is how many objects of a kind there are.
type Count struct {
	Kind    string
	Objects int
}

// Counts are those of the kinds of which there are some, in the order of their names.
func (o *Objects) Counts() (counts []Count) {
	for _, k := range kinds {
		if n := k.count(o); n > 0 {
			counts = append(counts, Count{k.name, n})
		}
	}
	slices.SortFunc(counts, func(a, b Count) int { return cmp.Compare(a.Kind, b.Kind) })
	return counts
}

// Check finds what cannot be meant in an object of one of the kinds of Objects: its
// key, such as spec.podCIDRs[0], and what is wrong with it and what to do. Both are
// empty for an object that is fine, and of a kind that Culvert does not know.
func Check(o metav1.Object) (key, what string) {
	name := reflect.TypeOf(o).Elem().Name()
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return "", ""
	}
	f := checkMeta(&kinds[i], o)
	if f == nil {
		f = kinds[i].check(o)
	}
	if f == nil {
		return "", ""
	}
	return keyOf("", f.at), f.what
}

// scheme knows every kind of the groups that Kubernetes itself defines and
// Culvert reads from: a kind of theirs that it does not know is misspelled.
var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // a programming mistake, found by every test
		}
	}
	return s
}()

// exists reports whether there can be such a kind: true for groups that are
// none of our business.
func exists(apiVersion, name string) bool {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return false
	}
	if !scheme.IsGroupRegistered(gv.Group) {
		return true
	}
	return scheme.Recognizes(gv.WithKind(name))
}

// ours is the apiVersion under which Culvert reads a kind of the same group,
// empty if it does not.
func ours(apiVersion, name string) string {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return ""
	}
	for _, k := range kinds {
		if known, _ := schema.ParseGroupVersion(k.apiVersion); k.name == name && known.Group == gv.Group {
			return k.apiVersion
		}
	}
	return ""
}

// sortAll puts every list into the order of namespace and name.
func (o *Objects) sortAll() {
	sorted(o.Nodes)
	sorted(o.Pods)
	sorted(o.Namespaces)
	sorted(o.Services)
	sorted(o.ConfigMaps)
	sorted(o.EndpointSlices)
	sorted(o.NetworkPolicies)
	sorted(o.IPPools)
	sorted(o.BlockAffinities)
	sorted(o.IPAMBlocks)
	sorted(o.FelixConfigurations)
}

func sorted[P metav1.Object](l []P) {
	slices.SortFunc(l, func(a, b P) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}
