package kube

import "strings"

// layout is where Calico's custom resources are (libcalico-go/lib/backend/k8s/discovery.go).
type layout struct{ group, apiVersion string }

var (
	classic = layout{"crd.projectcalico.org", "crd.projectcalico.org/v1"}
	native  = layout{"projectcalico.org", "projectcalico.org/v3"}
)

// layoutOf is the layout that the CustomResourceDefinitions make: the native one only where
// nothing of the classic one is there, beside which an aggregated API server may
// show projectcalico.org/v3 too.
func layoutOf(defined *store) layout {
	l := classic
	for _, d := range defined.sorted {
		if strings.HasSuffix(d.GetName(), "."+classic.group) {
			return classic
		}
		l = native
	}
	return l
}

// definition is the name of a kind's CustomResourceDefinition.
func (k *kind) definition(l layout) string { return k.resource + "." + l.group }
