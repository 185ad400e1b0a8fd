package kube

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"culvert/ctrl/source"
)

// coreKinds are the kinds without a group; the others that there are conflicts about
// are Calico's.
var coreKinds = []string{"Node", "Pod", "Namespace", "Service", "ConfigMap"}

// referenceTo is how an Event names an object: as far as the source knows it.
func referenceTo(objects *source.Objects, r source.Ref) corev1.ObjectReference {
	ref := corev1.ObjectReference{APIVersion: "crd.projectcalico.org/v1", Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
	if slices.Contains(coreKinds, r.Kind) {
		ref.APIVersion = "v1"
	}
	if objects == nil {
		return ref
	}
	switch r.Kind {
	case "Node":
		refine(&ref, objects.Nodes)
	case "ConfigMap":
		refine(&ref, objects.ConfigMaps)
	case "IPPool":
		refine(&ref, objects.IPPools)
	case "IPAMBlock":
		refine(&ref, objects.IPAMBlocks)
	case "BlockAffinity":
		refine(&ref, objects.BlockAffinities)
	case "FelixConfiguration":
		refine(&ref, objects.FelixConfigurations)
	}
	return ref
}

// object is one of Kubernetes, behind a pointer.
type object interface {
	comparable
	metav1.Object
}

// refine takes the UID from the object, and the apiVersion where it says one: there
// are two of Calico's.
func refine[T object](ref *corev1.ObjectReference, list []T) {
	o := findObject(list, ref.Namespace, ref.Name)
	if o == *new(T) {
		return
	}
	ref.UID = o.GetUID()
	if typed, ok := any(o).(interface{ GetObjectKind() schema.ObjectKind }); ok {
		ref.APIVersion = cmp.Or(typed.GetObjectKind().GroupVersionKind().GroupVersion().String(), ref.APIVersion)
	}
}

// findObject finds one in a list in the order of namespace and name; nil without it.
func findObject[T object](list []T, namespace, name string) (none T) {
	i, ok := slices.BinarySearchFunc(list, name, func(o T, name string) int {
		return cmp.Or(strings.Compare(o.GetNamespace(), namespace), strings.Compare(o.GetName(), name))
	})
	if !ok {
		return none
	}
	return list[i]
}
