package kube

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/source"
)

// store holds the objects of a kind: the last good version of each. An object that
// stays the same stays the same pointer. The Source's lock guards it.
type store struct {
	kind kind
	node string
	// sorted is in the order of namespace and name.
	sorted []metav1.Object
	// bad is what is wrong with the objects whose present version is not in force.
	bad map[source.Ref]string
	// changed: since it was last looked at.
	changed bool
}

func newStore(k kind, node string) *store {
	return &store{kind: k, node: node, bad: map[source.Ref]string{}}
}

// change is what a version of an object comes to: checked, and with only what counts.
type change struct {
	ref  source.Ref
	kept metav1.Object // nil: nothing of it is in force
	what string        // what is wrong with it
}

// take makes a change of an object. It needs no lock.
func (s *store) take(o metav1.Object, err error) change {
	c := change{ref: source.Ref{Kind: s.kind.name, Namespace: o.GetNamespace(), Name: o.GetName()}}
	if err != nil {
		c.what = fmt.Sprintf("cannot be read: %v", err)
		return c
	}
	if s.kind.fill != nil {
		if key, what := source.Check(o); what != "" {
			c.what = key + ": " + what
			return c
		}
	}
	c.kept = s.kind.strip(o, s.node)
	return c
}

// put takes a new version of an object.
func (s *store) put(c change) {
	if c.what != "" {
		s.bad[c.ref] = c.what
		return
	}
	delete(s.bad, c.ref)
	i, found := s.find(c.ref)
	switch {
	case c.kept == nil:
	case !found:
		s.sorted, s.changed = slices.Insert(s.sorted, i, c.kept), true
	case !equality.Semantic.DeepEqual(s.sorted[i], c.kept):
		s.sorted[i], s.changed = c.kept, true
	}
}

// remove forgets an object.
func (s *store) remove(ref source.Ref) {
	delete(s.bad, ref)
	if i, found := s.find(ref); found {
		s.sorted, s.changed = slices.Delete(s.sorted, i, i+1), true
	}
}

// replace takes a whole list: what is not in it is gone.
func (s *store) replace(all []change) {
	slices.SortFunc(all, func(a, b change) int { return compare(a.ref, b.ref) })
	s.bad = map[source.Ref]string{}
	next := make([]metav1.Object, 0, len(all))
	for _, c := range all {
		have, found := s.get(c.ref)
		switch {
		case c.what != "":
			s.bad[c.ref] = c.what
			if found {
				next = append(next, have)
			}
		case c.kept == nil:
		case found && equality.Semantic.DeepEqual(have, c.kept):
			next = append(next, have)
		default:
			next, s.changed = append(next, c.kept), true
		}
	}
	if len(next) != len(s.sorted) {
		s.changed = true
	}
	s.sorted = next
}

// has reports whether there is an object of the cluster of that name.
func (s *store) has(name string) bool {
	_, found := s.find(source.Ref{Kind: s.kind.name, Name: name})
	return found
}

func (s *store) get(ref source.Ref) (metav1.Object, bool) {
	if i, found := s.find(ref); found {
		return s.sorted[i], true
	}
	return nil, false
}

func (s *store) find(ref source.Ref) (int, bool) {
	return slices.BinarySearchFunc(s.sorted, ref, func(o metav1.Object, ref source.Ref) int {
		return cmp.Or(cmp.Compare(o.GetNamespace(), ref.Namespace), cmp.Compare(o.GetName(), ref.Name))
	})
}

func compare(a, b source.Ref) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
