package kube

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

// kind is a kind of object that the source reads.
type kind struct {
	name     string // Node
	resource string // nodes
	// core: in Kubernetes' own v1, in protobuf. Others are custom resources.
	core bool
	// field, if not empty, selects the objects to read.
	field string
	// metadata: nothing else of the objects is asked for.
	metadata bool
	// decode reads an object with a function such as json.Unmarshal, or, of the core
	// kinds, from protobuf. With an error it may return the object as far as it is known.
	decode func(read func(any) error, proto bool) (metav1.Object, error)
	// strip keeps what is read by somebody; nil: nothing.
	strip func(o metav1.Object, node string) metav1.Object
	// blank is an empty object.
	blank func() metav1.Object
	// fill puts the list of the kind in place; nil for what is none of Objects' kinds.
	fill func(*source.Objects, []metav1.Object)
	// each calls f for every object of the kind in a set.
	each func(objs *source.Objects, f func(metav1.Object) error) error
}

// wire is a custom resource as it is sent, without the large part of its metadata.
type wire[S any] struct {
	APIVersion string `json:"apiVersion"`
	Metadata   meta   `json:"metadata"`
	Spec       S      `json:"spec"`
}

// meta is what is read of an object's metadata.
type meta struct {
	Name            string            `json:"name"`
	UID             types.UID         `json:"uid"`
	ResourceVersion string            `json:"resourceVersion"`
	Annotations     map[string]string `json:"annotations"` // of bookmarks
}

// object is the part of the metadata that is of use.
func (m *meta) object() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// pointer is a pointer to an object of type T.
type pointer[T any] interface {
	*T
	metav1.Object
}

func filler[T any, P pointer[T]](list func(*source.Objects) *[]P) func(*source.Objects, []metav1.Object) {
	return func(objs *source.Objects, all []metav1.Object) {
		out := make([]P, len(all))
		for i, o := range all {
			out[i] = o.(P)
		}
		*list(objs) = out
	}
}

func lister[T any, P pointer[T]](list func(*source.Objects) *[]P) func(*source.Objects, func(metav1.Object) error) error {
	return func(objs *source.Objects, f func(metav1.Object) error) error {
		for _, o := range *list(objs) {
			if err := f(o); err != nil {
				return err
			}
		}
		return nil
	}
}

// coreKind is a kind of Kubernetes' own.
func coreKind[T any, P pointer[T]](name, resource string, strip func(o P, node string) P, list func(*source.Objects) *[]P) kind {
	return kind{
		name: name, resource: resource, core: true,
		decode: func(read func(any) error, proto bool) (metav1.Object, error) {
			o := P(new(T))
			return o, read(o)
		},
		strip: func(o metav1.Object, node string) metav1.Object { return strip(o.(P), node) },
		blank: func() metav1.Object { return P(new(T)) },
		fill:  filler(list),
		each:  lister(list),
	}
}

// calicoKind is a custom resource of Calico's, whose spec is sent as S.
func calicoKind[S, T any, P pointer[T]](name, resource string, made func(metav1.TypeMeta, metav1.ObjectMeta, *S) P, strip func(o P, node string), list func(*source.Objects) *[]P) kind {
	return kind{
		name: name, resource: resource,
		decode: func(read func(any) error, proto bool) (metav1.Object, error) {
			var w wire[S]
			err := read(&w)
			t := metav1.TypeMeta{APIVersion: classic.apiVersion, Kind: name}
			if w.APIVersion == native.apiVersion {
				t.APIVersion = native.apiVersion // the text of the wire is not kept
			}
			return made(t, w.Metadata.object(), &w.Spec), err
		},
		strip: func(o metav1.Object, node string) metav1.Object {
			strip(o.(P), node)
			o.SetResourceVersion("")
			return o
		},
		blank: func() metav1.Object { return P(new(T)) },
		fill:  filler(list),
		each:  lister(list),
	}
}

// flannelConfigMap is the name of the one ConfigMap that is read.
const flannelConfigMap = "kube-flannel-cfg"

func nodes() kind {
	return coreKind("Node", "nodes", stripNode, func(o *source.Objects) *[]*corev1.Node { return &o.Nodes })
}

func configMaps() kind {
	k := coreKind("ConfigMap", "configmaps", stripConfigMap, func(o *source.Objects) *[]*corev1.ConfigMap { return &o.ConfigMaps })
	k.field = "metadata.name=" + flannelConfigMap
	return k
}

func services() kind {
	return coreKind("Service", "services", stripService, func(o *source.Objects) *[]*corev1.Service { return &o.Services })
}

func keepAll[P metav1.Object](P, string) {}

func calicoKinds() []kind {
	return []kind{
		calicoKind("IPPool", "ippools", func(t metav1.TypeMeta, m metav1.ObjectMeta, s *source.IPPoolSpec) *source.IPPool {
			return &source.IPPool{TypeMeta: t, ObjectMeta: m, Spec: *s}
		}, keepAll, func(o *source.Objects) *[]*source.IPPool { return &o.IPPools }),
		calicoKind("BlockAffinity", "blockaffinities", func(t metav1.TypeMeta, m metav1.ObjectMeta, s *affinitySpec) *source.BlockAffinity {
			s.BlockAffinitySpec.Deleted = string(s.Deleted)
			return &source.BlockAffinity{TypeMeta: t, ObjectMeta: m, Spec: s.BlockAffinitySpec}
		}, keepAll, func(o *source.Objects) *[]*source.BlockAffinity { return &o.BlockAffinities }),
		calicoKind("IPAMBlock", "ipamblocks", func(t metav1.TypeMeta, m metav1.ObjectMeta, s *source.IPAMBlockSpec) *source.IPAMBlock {
			return &source.IPAMBlock{TypeMeta: t, ObjectMeta: m, Spec: *s}
		}, stripBlock, func(o *source.Objects) *[]*source.IPAMBlock { return &o.IPAMBlocks }),
		calicoKind("FelixConfiguration", "felixconfigurations", func(t metav1.TypeMeta, m metav1.ObjectMeta, s *source.FelixConfigurationSpec) *source.FelixConfiguration {
			return &source.FelixConfiguration{TypeMeta: t, ObjectMeta: m, Spec: *s}
		}, keepAll, func(o *source.Objects) *[]*source.FelixConfiguration { return &o.FelixConfigurations }),
	}
}

// affinitySpec is a BlockAffinity's spec of either layout.
type affinitySpec struct {
	source.BlockAffinitySpec
	Deleted truth `json:"deleted"`
}

// truth is a truth value, which crd.projectcalico.org/v1 writes as text and
// projectcalico.org/v3 as such.
type truth string

// UnmarshalJSON reads either.
func (t *truth) UnmarshalJSON(text []byte) error {
	switch s := strings.Trim(string(text), `"`); s {
	case "true", "false":
		*t = truth(s)
	case "", "null":
		*t = ""
	default:
		return fmt.Errorf("%s is no truth value", text)
	}
	return nil
}

// crds are the CustomResourceDefinitions, of which only those of Calico are kept.
func crds() kind {
	return kind{
		name: "CustomResourceDefinition", resource: "customresourcedefinitions", metadata: true,
		decode: func(read func(any) error, proto bool) (metav1.Object, error) {
			var w struct {
				Metadata meta `json:"metadata"`
			}
			err := read(&w)
			return &metav1.PartialObjectMetadata{ObjectMeta: w.Metadata.object()}, err
		},
		strip: func(o metav1.Object, _ string) metav1.Object {
			if !strings.HasSuffix(o.GetName(), "projectcalico.org") {
				return nil
			}
			o.SetResourceVersion("")
			return o
		},
	}
}

// kindsOf are the kinds that a mode reads from the start, and those that it reads if
// their CustomResourceDefinitions are there.
func kindsOf(mode string) (always, defined []kind) {
	always = []kind{nodes(), services()}
	switch mode {
	case flavour.ModeNative:
	case flavour.ModeFlannel:
		always = append(always, configMaps())
	case flavour.ModeCalico:
		always, defined = append(always, crds()), calicoKinds()
	default:
		always, defined = append(always, configMaps(), crds()), calicoKinds()
	}
	return always, defined
}
