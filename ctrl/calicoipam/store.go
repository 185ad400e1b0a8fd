// Package calicoipam takes blocks and addresses of Calico's IPAM for one node, by
// the protocol of libcalico-go/lib/ipam, so that kernel Calico nodes and Culvert
// nodes share pools: BlockAffinity pending, IPAMBlock created, affinity confirmed;
// for an address the IPAMHandle counted first and the block written by
// compare-and-swap then.
//
//	store.go     what is asked of the API server; names.go: how objects are called
//	block.go     an IPAMBlock and what is done to it; handle.go: an IPAMHandle
//	settings.go  pools, configuration and reservations as this node may use them
//	claim.go     blocks: claimed, given back; assign.go: addresses; settle.go: put right
//	tunnel.go    the node's own addresses
//	keeper.go    the node's pods: what survives a restart and an API server that is away
//
// No connection lives here: ctrl/kube has the Store. Which objects mean what for
// routing is ctrl/flavour's affair.
package calicoipam

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/source"
)

// What a Store's errors wrap. Any other one says that the API server could not be
// asked, and then nobody knows whether a write has happened.
var (
	// ErrNotFound: there is no such object.
	ErrNotFound = errors.New("there is no such object")
	// ErrExists: there is one of that name already.
	ErrExists = errors.New("the object exists already")
	// ErrConflict: it was changed since it was read.
	ErrConflict = errors.New("the object was changed by somebody else")
	// ErrRefused: the API server does not do it, however often it is asked: a
	// permission is missing, or the object is not valid.
	ErrRefused = errors.New("the API server refuses")
)

// Kinds that a Store knows: those of Calico by their names in
// crd.projectcalico.org/v1, and Node, Namespace and Pod.
const (
	KindBlock       = "IPAMBlock"
	KindHandle      = "IPAMHandle"
	KindAffinity    = "BlockAffinity"
	KindPool        = "IPPool"
	KindConfig      = "IPAMConfig"
	KindReservation = "IPReservation"
	KindNode        = "Node"
	KindNamespace   = "Namespace"
	KindPod         = "Pod"
)

// Store is the API server's objects, in the form of crd.projectcalico.org/v1 whatever
// layout the cluster has. It is safe for concurrent use. What it returns is the
// caller's.
type Store interface {
	Get(ctx context.Context, ref source.Ref) (*unstructured.Unstructured, error)
	// List is all objects of a kind that have the labels.
	List(ctx context.Context, kind string, labels map[string]string) ([]*unstructured.Unstructured, error)
	Create(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// Update replaces the object if its resourceVersion is still obj's.
	Update(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// Delete removes the object if UID and resourceVersion are still obj's.
	Delete(ctx context.Context, obj *unstructured.Unstructured) error
}

// Away reports whether an error says that the API server could not be asked.
func Away(err error) bool {
	for _, answer := range []error{ErrNotFound, ErrExists, ErrConflict, ErrRefused, errNoRoom, errBusy} {
		if errors.Is(err, answer) {
			return false
		}
	}
	var taken *TakenError
	return err != nil && !isRefusal(err) && !errors.As(err, &taken)
}
