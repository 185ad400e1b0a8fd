// Package source delivers the Kubernetes objects that Culvert acts on, whether
// from a directory of manifests or, with the same types, from an API server,
// whose objects ctrl/kube reads and Check checks.
//
// A source yields whole sets: each *Objects is complete, consistent and
// immutable. What is wrong at the source never reaches the set; it is reported
// beside it, and the last good version stays in force.
package source

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Source delivers sets of objects until ctx ends; Run then returns ctx's error.
type Source interface {
	// Name is the source as the configuration writes it, such as dir:/etc/culvert/manifests.
	Name() string
	// Run calls apply with the first complete set as soon as there is one, and
	// again after every change. It calls report with everything that is wrong
	// whenever that changes; an empty list means that all is well again. Both
	// are called from Run's goroutine, never at the same time.
	Run(ctx context.Context, apply func(*Objects), report func([]error)) error
}

// Objects is one consistent set of the kinds that Culvert knows, each list in
// the order of namespace and name. It is immutable: whoever gets it may keep
// it and must not change it.
type Objects struct {
	Nodes           []*corev1.Node
	Pods            []*corev1.Pod
	Namespaces      []*corev1.Namespace
	Services        []*corev1.Service
	ConfigMaps      []*corev1.ConfigMap
	EndpointSlices  []*discoveryv1.EndpointSlice
	NetworkPolicies []*networkingv1.NetworkPolicy
	IPPools         []*IPPool
	BlockAffinities []*BlockAffinity
	IPAMBlocks      []*IPAMBlock

	FelixConfigurations []*FelixConfiguration

	origin map[Ref]Place
}

// Ref names an object.
type Ref struct {
	Kind      string
	Namespace string // empty for objects of the cluster
	Name      string
}

// String is Node worker-1, or Pod default/web.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Place is where an object is written.
type Place struct {
	File string
	Line int
}

// Origin says where an object is written. An API server's objects are nowhere.
func (o *Objects) Origin(r Ref) (Place, bool) {
	p, ok := o.origin[r]
	return p, ok
}
