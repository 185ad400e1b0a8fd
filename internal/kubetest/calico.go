package kubetest

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Groups of Calico's resources: either holds all of them.
const (
	CalicoV1 = "crd.projectcalico.org/v1"
	CalicoV3 = "projectcalico.org/v3"
)

// crd is one of Calico's definitions, with what of its schema refuses an object.
type crd struct {
	kind     string
	required []any
	fields   map[string]any
}

var (
	text    = map[string]any{"type": "string"}
	boolean = map[string]any{"type": "boolean"}
	integer = map[string]any{"type": "integer", "format": "int64"}
	free    = map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
)

func listOf(item map[string]any) map[string]any {
	return map[string]any{"type": "array", "items": item}
}

func nullable(item map[string]any) map[string]any {
	out := map[string]any{"nullable": true}
	for k, v := range item {
		out[k] = v
	}
	return out
}

// calicoKinds are Calico's, as its own manifests define them (libcalico-go/config/crd): the
// fields that are required and their types.
func calicoKinds(group string) []crd {
	deleted, config := text, "IPAMConfig"
	if group == CalicoV3 {
		deleted, config = boolean, "IPAMConfiguration"
	}
	attribute := map[string]any{"type": "object", "properties": map[string]any{
		"handle_id": text, "secondary": map[string]any{"type": "object", "additionalProperties": text},
		"alternateOwnerAttrs": map[string]any{"type": "object", "additionalProperties": text},
		"releasedAt":          map[string]any{"type": "string", "format": "date-time"},
	}}
	return []crd{
		{"IPPool", []any{"cidr"}, map[string]any{"cidr": text, "vxlanMode": text, "ipipMode": text, "blockSize": integer, "disabled": boolean,
			"natOutgoing": boolean, "nodeSelector": text, "namespaceSelector": text, "allowedUses": listOf(text), "assignmentMode": text, "disableBGPExport": boolean}},
		{"BlockAffinity", []any{"cidr", "deleted", "node", "state"}, map[string]any{"cidr": text, "deleted": deleted, "node": text, "state": text, "type": text}},
		{"IPAMBlock", []any{"allocations", "attributes", "cidr", "strictAffinity", "unallocated"}, map[string]any{
			"affinity": text, "affinityClaimTime": map[string]any{"type": "string", "format": "date-time"}, "allocations": listOf(nullable(integer)), "attributes": listOf(attribute), "cidr": text, "deleted": boolean,
			"sequenceNumber": integer, "sequenceNumberForAllocation": map[string]any{"type": "object", "additionalProperties": integer},
			"strictAffinity": boolean, "unallocated": listOf(integer)}},
		{"IPAMHandle", []any{"block", "handleID"}, map[string]any{
			"block": map[string]any{"type": "object", "additionalProperties": integer}, "deleted": boolean, "handleID": text}},
		{config, nil, map[string]any{"autoAllocateBlocks": boolean, "maxBlocksPerHost": integer, "strictAffinity": boolean}},
		{"IPReservation", nil, map[string]any{"reservedCIDRs": listOf(text)}},
		{"FelixConfiguration", nil, nil},
	}
}

// InstallCalico makes the API server serve Calico's resources, in one of the two
// groups, and waits until it does.
func (s *Server) InstallCalico(t testing.TB, group string) {
	t.Helper()
	gv, err := schema.ParseGroupVersion(group)
	if err != nil {
		t.Fatal(err)
	}
	client := s.Objects(t)
	for _, k := range calicoKinds(group) {
		s.apply(t, client, k.definition(gv))
	}
	for _, k := range calicoKinds(group) {
		waitServed(t, client, gv.WithResource(plural(k.kind)))
	}
}

func (k *crd) definition(gv schema.GroupVersion) *unstructured.Unstructured {
	spec := map[string]any{"type": "object", "properties": k.fields}
	if k.fields == nil {
		spec = free
	}
	if k.required != nil {
		spec["required"] = k.required
	}
	name := plural(k.kind)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": name + "." + gv.Group},
		"spec": map[string]any{
			"group": gv.Group, "scope": "Cluster",
			"names": map[string]any{"kind": k.kind, "listKind": k.kind + "List", "plural": name, "singular": name[:len(name)-1]},
			"versions": []any{map[string]any{"name": gv.Version, "served": true, "storage": true, "schema": map[string]any{
				"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{"spec": spec, "status": free}},
			}}},
		},
	}}
}
