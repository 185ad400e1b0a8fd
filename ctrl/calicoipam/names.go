package calicoipam

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/source"
)

// cidrName is a prefix in an object's name (libcalico-go/lib/names/cidr.go).
func cidrName(p netip.Prefix) string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(p.String())
}

// longestName is what Kubernetes lets an object be called.
const longestName = 253

// affinityName is a BlockAffinity's name (libcalico-go/lib/backend/k8s/resources/ipam_affinity.go).
func affinityName(node string, p netip.Prefix) string {
	cidr := cidrName(p)
	name := node + "-" + cidr
	if len(name) < longestName {
		return name
	}
	sum := sha256.Sum256([]byte(node + "+" + cidr))
	return fmt.Sprintf("%s-%s-%s", node[:longestName-1-len(cidr)-13], cidr, hex.EncodeToString(sum[:])[:11])
}

// Labels of a BlockAffinity (libcalico-go/lib/backend/model/block_affinity.go).
const (
	labelHost    = "projectcalico.org/hostname-hash"
	labelType    = "projectcalico.org/affinity-type"
	labelVersion = "projectcalico.org/ip-version"
)

// hostHash is a node's name as a label's value, which may be shorter than names are.
func hostHash(node string) string {
	sum := sha3.Sum256([]byte(node))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
}

func hostLabels(node string) map[string]string {
	return map[string]string{labelHost: hostHash(node), labelType: "host"}
}

func affinityLabels(node string, p netip.Prefix) map[string]string {
	l := hostLabels(node)
	l[labelVersion] = "4"
	if p.Addr().Is6() {
		l[labelVersion] = "6"
	}
	return l
}

// handleName is the name of a handle's object.
func handleName(id string) string { return strings.ToLower(id) }

// PodHandle is the handle of a container's addresses.
func PodHandle(network, containerID string) string { return network + "." + containerID }

func blockRef(p netip.Prefix) source.Ref { return source.Ref{Kind: KindBlock, Name: cidrName(p)} }

func handleRef(id string) source.Ref { return source.Ref{Kind: KindHandle, Name: handleName(id)} }

func affinityRef(node string, p netip.Prefix) source.Ref {
	return source.Ref{Kind: KindAffinity, Name: affinityName(node, p)}
}

// newObject is an object that is to be created. The Store says which version it is of.
func newObject(ref source.Ref, spec map[string]any) *unstructured.Unstructured {
	obj := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	obj.SetAPIVersion("crd.projectcalico.org/v1")
	obj.SetKind(ref.Kind)
	obj.SetName(ref.Name)
	return obj
}
