package kubetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

// Objects is what Admin sees and changes.
func (s *Server) Objects(t testing.TB) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(s.Config(Admin))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// ApplyFiles is Apply with the objects of manifests, in their order.
func (s *Server) ApplyFiles(t testing.TB, paths ...string) {
	t.Helper()
	for _, path := range paths {
		s.Apply(t, string(readFile(t, path)))
	}
}

// Apply creates objects, or replaces those that are there, with their status. Their
// namespaces are made where they are missing.
func (s *Server) Apply(t testing.TB, manifest string) {
	t.Helper()
	client := s.Objects(t)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(manifest)), 4096)
	for {
		var u unstructured.Unstructured
		switch err := decoder.Decode(&u.Object); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			t.Fatalf("%v in:\n%s", err, manifest)
		case len(u.Object) > 0:
			s.apply(t, client, &u)
		}
	}
}

func (s *Server) apply(t testing.TB, client dynamic.Interface, u *unstructured.Unstructured) {
	t.Helper()
	ctx := t.Context()
	var r dynamic.ResourceInterface = client.Resource(Resource(u))
	if ns := u.GetNamespace(); ns != "" {
		s.namespace(t, client, ns)
		r = client.Resource(Resource(u)).Namespace(ns)
	}
	made, err := r.Create(ctx, u, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		if made, err = r.Get(ctx, u.GetName(), metav1.GetOptions{}); err == nil {
			u.SetResourceVersion(made.GetResourceVersion())
			made, err = r.Update(ctx, u, metav1.UpdateOptions{})
		}
	}
	if err == nil && u.Object["status"] != nil {
		u.SetResourceVersion(made.GetResourceVersion())
		if _, err = r.UpdateStatus(ctx, u, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
			err = nil // its status is no resource of its own
		}
	}
	if err != nil {
		t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
	}
}

func (s *Server) namespace(t testing.TB, client dynamic.Interface, name string) {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
	}}
	_, err := client.Resource(Resource(u)).Create(t.Context(), u, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// Resource is the resource that holds an object: its kind in the plural.
func Resource(u *unstructured.Unstructured) schema.GroupVersionResource {
	gvk := u.GroupVersionKind()
	return gvk.GroupVersion().WithResource(plural(gvk.Kind))
}

func plural(kind string) string {
	name := strings.ToLower(kind)
	if stem, ok := strings.CutSuffix(name, "y"); ok {
		return stem + "ies"
	}
	return name + "s"
}

// waitServed waits until a resource can be listed.
func waitServed(t testing.TB, client dynamic.Interface, gvr schema.GroupVersionResource) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, err := client.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is not served: %v", gvr, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
