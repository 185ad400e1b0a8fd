package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/source"
)

// IPAM is the objects of Calico's IPAM at the API server: calicoipam's Store, of either
// layout. It is safe for concurrent use.
type IPAM struct {
	client *Client

	mu    sync.Mutex
	group schema.GroupVersion // where Calico's kinds are; empty: not looked up yet
}

var _ calicoipam.Store = (*IPAM)(nil)

// NewIPAM makes a store; nothing is asked yet.
func NewIPAM(c *Client) *IPAM { return &IPAM{client: c} }

// Calico's kinds have been in the one group, and are in the other since its
// CustomResourceDefinitions are those of its API (libcalico-go/lib/backend/k8s/discovery.go).
var (
	ipamV1 = schema.GroupVersion{Group: "crd.projectcalico.org", Version: "v1"}
	ipamV3 = schema.GroupVersion{Group: "projectcalico.org", Version: "v3"}
)

// ipamResources are the kinds' names in URLs.
var ipamResources = map[string]string{
	calicoipam.KindBlock: "ipamblocks", calicoipam.KindHandle: "ipamhandles", calicoipam.KindAffinity: "blockaffinities",
	calicoipam.KindPool: "ippools", calicoipam.KindConfig: "ipamconfigs", calicoipam.KindReservation: "ipreservations",
}

// In projectcalico.org/v3 this kind is called otherwise.
const configKindV3, configResourceV3 = "IPAMConfiguration", "ipamconfigurations"

// version is the group and version of Calico's kinds: the new group counts only where
// the old one is not.
func (s *IPAM) version(ctx context.Context) (schema.GroupVersion, error) {
	s.mu.Lock()
	gv := s.group
	s.mu.Unlock()
	if gv.Group != "" {
		return gv, nil
	}
	d, err := discovery.NewDiscoveryClientForConfig(s.client.config)
	if err != nil {
		return gv, err
	}
	var groups metav1.APIGroupList
	if err := d.RESTClient().Get().AbsPath("/apis").Do(ctx).Into(&groups); err != nil {
		return gv, ipamError("the list of API groups", err)
	}
	found := map[string]bool{}
	for _, g := range groups.Groups {
		found[g.Name] = true
	}
	switch {
	case found[ipamV1.Group]:
		gv = ipamV1
	case found[ipamV3.Group]:
		gv = ipamV3
	default:
		return gv, fmt.Errorf("API server %s has neither group %s nor %s: install Calico's CustomResourceDefinitions: %w",
			s.client.Host(), ipamV1.Group, ipamV3.Group, calicoipam.ErrRefused)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.group = gv
	return gv, nil
}

// resource is where the objects of one of Calico's kinds are, and whether that is in
// the new layout.
func (s *IPAM) resource(ctx context.Context, kind string) (dynamic.ResourceInterface, bool, error) {
	gv, err := s.version(ctx)
	if err != nil {
		return nil, false, err
	}
	name := ipamResources[kind]
	if gv == ipamV3 && kind == calicoipam.KindConfig {
		name = configResourceV3
	}
	return s.client.dynamic.Resource(gv.WithResource(name)), gv == ipamV3, nil
}

// toV3 makes an object one of projectcalico.org/v3.
func toV3(obj *unstructured.Unstructured) *unstructured.Unstructured {
	obj = obj.DeepCopy()
	obj.SetAPIVersion(ipamV3.String())
	if obj.GetKind() == calicoipam.KindAffinity {
		if spec, ok := obj.Object["spec"].(map[string]any); ok {
			spec["deleted"] = spec["deleted"] == "true"
		}
	}
	return obj
}

// fromV3 is the reverse.
func fromV3(obj *unstructured.Unstructured) {
	obj.SetAPIVersion(ipamV1.String())
	switch obj.GetKind() {
	case configKindV3:
		obj.SetKind(calicoipam.KindConfig)
	case calicoipam.KindAffinity:
		if spec, ok := obj.Object["spec"].(map[string]any); ok {
			deleted, _ := spec["deleted"].(bool)
			spec["deleted"] = fmt.Sprint(deleted)
		}
	}
}

// ipamError says with calicoipam's errors what an answer means. Whatever is no answer
// stays what it is.
func ipamError(what string, err error) error {
	if err == nil {
		return nil
	}
	meaning := error(nil)
	switch {
	case noSuchKind(err):
		return fmt.Errorf("%s: the API server does not serve that kind: install Calico's CustomResourceDefinitions: %w", what, calicoipam.ErrRefused)
	case apierrors.IsNotFound(err):
		meaning = calicoipam.ErrNotFound
	case apierrors.IsAlreadyExists(err):
		meaning = calicoipam.ErrExists
	case apierrors.IsConflict(err):
		meaning = calicoipam.ErrConflict
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err),
		apierrors.IsMethodNotSupported(err), apierrors.IsRequestEntityTooLargeError(err):
		meaning = calicoipam.ErrRefused
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, meaning, err)
}

// noSuchKind tells a kind that is not there from an object that is not there.
func noSuchKind(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	if d == nil {
		return true
	}
	for _, c := range d.Causes {
		if c.Type == metav1.CauseTypeUnexpectedServerResponse {
			return true
		}
	}
	return false
}

// Get implements calicoipam.Store. Of Nodes and Namespaces it reads the metadata only.
func (s *IPAM) Get(ctx context.Context, ref source.Ref) (*unstructured.Unstructured, error) {
	core := schema.GroupVersion{Version: "v1"}
	switch ref.Kind {
	case calicoipam.KindNode, calicoipam.KindNamespace:
		name := map[string]string{calicoipam.KindNode: "nodes", calicoipam.KindNamespace: "namespaces"}[ref.Kind]
		meta, err := s.client.meta.Resource(core.WithResource(name)).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return nil, ipamError(ref.String(), err)
		}
		obj := &unstructured.Unstructured{Object: map[string]any{}}
		obj.SetKind(ref.Kind)
		obj.SetName(ref.Name)
		obj.SetLabels(meta.Labels)
		return obj, nil
	case calicoipam.KindPod:
		obj, err := s.client.dynamic.Resource(core.WithResource("pods")).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		return obj, ipamError(ref.String(), err)
	}
	to, v3, err := s.resource(ctx, ref.Kind)
	if err != nil {
		return nil, err
	}
	obj, err := to.Get(ctx, ref.Name, metav1.GetOptions{})
	return s.answer(ref.String(), obj, v3, err)
}

// answer is an object in the old layout's form.
func (s *IPAM) answer(what string, obj *unstructured.Unstructured, v3 bool, err error) (*unstructured.Unstructured, error) {
	if err != nil {
		return nil, ipamError(what, err)
	}
	if v3 {
		fromV3(obj)
	}
	return obj, nil
}

// listPage is how many objects are asked for at once.
const listPage = 500

// List implements calicoipam.Store.
func (s *IPAM) List(ctx context.Context, kind string, labels map[string]string) (all []*unstructured.Unstructured, err error) {
	to, v3, err := s.resource(ctx, kind)
	if err != nil {
		return nil, err
	}
	opt := metav1.ListOptions{Limit: listPage, LabelSelector: metav1.FormatLabelSelector(metav1.SetAsLabelSelector(labels))}
	if len(labels) == 0 {
		opt.LabelSelector = ""
	}
	for {
		page, err := to.List(ctx, opt)
		if apierrors.IsNotFound(err) { // of a list it is the kind that is not there
			return nil, fmt.Errorf("the API server does not serve the kind %s: %w", kind, calicoipam.ErrNotFound)
		}
		if apierrors.IsResourceExpired(err) && opt.Continue != "" { // the list took too long
			all, opt.Continue = nil, ""
			continue
		}
		if err != nil {
			return nil, ipamError("the list of kind "+kind, err)
		}
		for i := range page.Items {
			obj := &page.Items[i]
			if v3 {
				fromV3(obj)
			}
			all = append(all, obj)
		}
		if opt.Continue = page.GetContinue(); opt.Continue == "" {
			return all, nil
		}
	}
}

// Create implements calicoipam.Store.
func (s *IPAM) Create(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return s.write(ctx, obj, func(to dynamic.ResourceInterface, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		return to.Create(ctx, obj, metav1.CreateOptions{})
	})
}

// Update implements calicoipam.Store.
func (s *IPAM) Update(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return s.write(ctx, obj, func(to dynamic.ResourceInterface, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		return to.Update(ctx, obj, metav1.UpdateOptions{})
	})
}

func (s *IPAM) write(ctx context.Context, obj *unstructured.Unstructured, do func(dynamic.ResourceInterface, *unstructured.Unstructured) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	to, v3, err := s.resource(ctx, obj.GetKind())
	if err != nil {
		return nil, err
	}
	out := obj
	if v3 {
		out = toV3(obj)
	}
	out, err = do(to, out)
	return s.answer(obj.GetKind()+" "+obj.GetName(), out, v3, err)
}

// Delete implements calicoipam.Store.
func (s *IPAM) Delete(ctx context.Context, obj *unstructured.Unstructured) error {
	to, _, err := s.resource(ctx, obj.GetKind())
	if err != nil {
		return err
	}
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	err = to.Delete(ctx, obj.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
	return ipamError(obj.GetKind()+" "+obj.GetName(), err)
}
