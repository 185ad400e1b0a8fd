//go:build kube

package kubetest

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"culvert/deploy"
)

// TestKubeManifest: a real API server takes every object of deploy/culvert.yaml and
// deploy/cleanup.yaml by server-side apply, without a field that it does not know, and pods of the DaemonSet too.
func TestKubeManifest(t *testing.T) {
	s := Start(t)
	client := s.Objects(t)
	options := metav1.PatchOptions{FieldManager: "kubectl", FieldValidation: "Strict", DryRun: []string{metav1.DryRunAll}}
	var kinds []string
	cleanup := strings.ReplaceAll(string(readFile(t, "../../deploy/cleanup.yaml")), "NODE", "worker-1")
	d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(string(deploy.Manifest)+"---\n"+cleanup), 4096)
	for {
		var u unstructured.Unstructured
		if err := d.Decode(&u.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, u.GetKind())
		body, err := json.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Resource(Resource(&u)).Namespace(u.GetNamespace()).Patch(t.Context(), u.GetName(), types.ApplyPatchType, body, options)
		if err != nil {
			t.Errorf("%s %s: %v", u.GetKind(), u.GetName(), err)
		}
		if u.GetKind() == "DaemonSet" {
			template, _, _ := unstructured.NestedMap(u.Object, "spec", "template")
			pod := &unstructured.Unstructured{Object: template}
			pod.SetAPIVersion("v1")
			pod.SetKind("Pod")
			pod.SetName("culvert-test")
			_, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(u.GetNamespace()).
				Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: "Strict"})
			if err != nil {
				t.Errorf("a pod of it: %v", err)
			}
		}
	}
	if want := []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "Job"}; !slices.Equal(kinds, want) {
		t.Errorf("%v, want %v", kinds, want)
	}
}
