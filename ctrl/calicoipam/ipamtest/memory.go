// Package ipamtest is a test kit for Calico's IPAM: an API server's objects in
// memory, with failures on demand, and the consistency check of calicoctl.
package ipamtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/source"
)

// ErrAway is what a call gets that is made to fail.
var ErrAway = errors.New("connection refused")

// Memory is a Store. The zero value is empty; it is safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	objects map[source.Ref]*unstructured.Unstructured
	version int
	calls   int
	bad     []string // deletes that are not as Calico's: see Delete
	// Fail is asked before every call, with its number from 0: what it returns is the
	// call's error. applied: the call is carried out all the same.
	Fail func(call int, what string) (err error, applied bool)
}

var _ calicoipam.Store = (*Memory)(nil)

// Calls is the number of calls so far.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Put writes an object as it is, as an administrator would.
func (m *Memory) Put(obj *unstructured.Unstructured) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.store(refOf(obj), obj.DeepCopy())
}

// Drop deletes an object, as an administrator would.
func (m *Memory) Drop(ref source.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, ref)
}

// All are the objects of a kind, in the order of their names.
func (m *Memory) All(kind string) (all []*unstructured.Unstructured) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ref, obj := range m.objects {
		if ref.Kind == kind {
			all = append(all, obj.DeepCopy())
		}
	}
	slices.SortFunc(all, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

func refOf(obj *unstructured.Unstructured) source.Ref {
	return source.Ref{Kind: obj.GetKind(), Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// store keeps an object under a new version. The caller holds the lock.
func (m *Memory) store(ref source.Ref, obj *unstructured.Unstructured) *unstructured.Unstructured {
	if m.objects == nil {
		m.objects = map[source.Ref]*unstructured.Unstructured{}
	}
	m.version++
	if old := m.objects[ref]; old != nil {
		obj.SetUID(old.GetUID())
	} else {
		obj.SetUID(types.UID(fmt.Sprint("uid-", m.version)))
	}
	obj.SetResourceVersion(fmt.Sprint(m.version))
	m.objects[ref] = obj
	return obj.DeepCopy()
}

// call runs one call, or lets it fail.
func (m *Memory) call(ctx context.Context, what string, ref source.Ref, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.calls
	m.calls++
	if m.Fail != nil {
		if err, applied := m.Fail(n, what+" "+ref.String()); err != nil {
			if applied {
				_ = do()
			}
			return err
		}
	}
	return do()
}

// Get implements calicoipam.Store.
func (m *Memory) Get(ctx context.Context, ref source.Ref) (out *unstructured.Unstructured, err error) {
	err = m.call(ctx, "get", ref, func() error {
		if out = m.objects[ref].DeepCopy(); out == nil {
			return fmt.Errorf("%s: %w", ref, calicoipam.ErrNotFound)
		}
		return nil
	})
	return out, err
}

// List implements calicoipam.Store.
func (m *Memory) List(ctx context.Context, kind string, labels map[string]string) (all []*unstructured.Unstructured, err error) {
	err = m.call(ctx, "list", source.Ref{Kind: kind}, func() error {
		for ref, obj := range m.objects {
			if ref.Kind == kind && has(obj.GetLabels(), labels) {
				all = append(all, obj.DeepCopy())
			}
		}
		return nil
	})
	return all, err
}

func has(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// Create implements calicoipam.Store.
func (m *Memory) Create(ctx context.Context, obj *unstructured.Unstructured) (out *unstructured.Unstructured, err error) {
	ref := refOf(obj)
	err = m.call(ctx, "create", ref, func() error {
		if m.objects[ref] != nil {
			return fmt.Errorf("%s: %w", ref, calicoipam.ErrExists)
		}
		out = m.store(ref, obj.DeepCopy())
		return nil
	})
	return out, err
}

// same says what keeps obj from being the version that is stored.
func (m *Memory) same(ref source.Ref, obj *unstructured.Unstructured) error {
	old := m.objects[ref]
	switch {
	case old == nil:
		return fmt.Errorf("%s: %w", ref, calicoipam.ErrNotFound)
	case old.GetUID() != obj.GetUID() || old.GetResourceVersion() != obj.GetResourceVersion():
		return fmt.Errorf("%s: %w", ref, calicoipam.ErrConflict)
	}
	return nil
}

// Update implements calicoipam.Store.
func (m *Memory) Update(ctx context.Context, obj *unstructured.Unstructured) (out *unstructured.Unstructured, err error) {
	ref := refOf(obj)
	err = m.call(ctx, "update", ref, func() error {
		if err := m.same(ref, obj); err != nil {
			return err
		}
		out = m.store(ref, obj.DeepCopy())
		return nil
	})
	return out, err
}

// Delete implements calicoipam.Store. An object that was not marked as deleted before
// is one of Check's problems.
func (m *Memory) Delete(ctx context.Context, obj *unstructured.Unstructured) error {
	ref := refOf(obj)
	return m.call(ctx, "delete", ref, func() error {
		if err := m.same(ref, obj); err != nil {
			return err
		}
		if spec, _ := m.objects[ref].Object["spec"].(map[string]any); fmt.Sprint(spec["deleted"]) != "true" {
			m.bad = append(m.bad, fmt.Sprintf("%s was deleted without being marked", ref))
		}
		delete(m.objects, ref)
		return nil
	})
}
