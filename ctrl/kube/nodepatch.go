package kube

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodePatch is a strategic merge patch of nodes/status, which is also where flanneld
// writes its annotations (flannel pkg/subnet/kube/kube.go) and calico-node its own
// (libcalico-go/lib/backend/k8s/resources/node.go).
type nodePatch struct {
	Metadata *patchMeta   `json:"metadata,omitempty"`
	Status   *patchStatus `json:"status,omitempty"`
}

type patchMeta struct {
	Annotations map[string]*string `json:"annotations"` // null removes
}

type patchStatus struct {
	Conditions []corev1.NodeCondition `json:"conditions"` // merged by their type
}

// patchOf is what is to be written so that a Node says what is wanted; false if it does.
func patchOf(n *corev1.Node, want map[string]string, ready *NetworkReady, now metav1.Time) (p nodePatch, needed bool) {
	annotations := map[string]*string{}
	for _, key := range overwritten(n, want) {
		annotations[key] = new(want[key])
	}
	for _, key := range unwanted(n, want) {
		annotations[key] = nil
	}
	if len(annotations) > 0 {
		p.Metadata = &patchMeta{annotations}
	}
	if ready != nil && !saysReady(n, ready) {
		c := corev1.NodeCondition{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: ready.Reason, Message: ready.Message,
			LastHeartbeatTime: now, LastTransitionTime: now,
		}
		if was := conditionOf(n, c.Type); was != nil && was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
		p.Status = &patchStatus{[]corev1.NodeCondition{c}}
	}
	return p, p.Metadata != nil || p.Status != nil
}

// overwritten are the annotations that are not as wanted, in order.
func overwritten(n *corev1.Node, want map[string]string) (keys []string) {
	for key, value := range want {
		if have, ok := n.Annotations[key]; !ok || have != value {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// saysReady reports whether a Node has the condition.
func saysReady(n *corev1.Node, ready *NetworkReady) bool {
	c := conditionOf(n, corev1.NodeNetworkUnavailable)
	return c != nil && c.Status == corev1.ConditionFalse && c.Reason == ready.Reason
}

// unwanted are the annotations that nobody but culvertd wrote and that it does not
// want any more. The API server knows whose they are: what somebody else has changed since is his.
func unwanted(n *corev1.Node, want map[string]string) (keys []string) {
	domains := map[string]bool{}
	for key := range want {
		domains[domainOf(key)] = true
	}
	for key := range n.Annotations {
		if _, wanted := want[key]; wanted || !domains[domainOf(key)] {
			continue
		}
		owners := ownersOf(n, "f:metadata", "f:annotations", "f:"+key)
		if len(owners) == 1 && owners[0] == fieldManager {
			keys = append(keys, key)
		}
	}
	return keys
}

func domainOf(key string) string {
	domain, _, _ := strings.Cut(key, "/")
	return domain
}

// ownersOf are the managers of a field, by metadata.managedFields.
func ownersOf(n *corev1.Node, path ...string) (names []string) {
	for _, m := range n.ManagedFields {
		if m.FieldsV1 == nil {
			continue
		}
		var fields map[string]json.RawMessage
		data, found := m.FieldsV1.Raw, true
		for _, key := range path {
			fields = nil // Unmarshal adds to a map
			if json.Unmarshal(data, &fields) != nil {
				found = false
				break
			}
			if data, found = fields[key]; !found {
				break
			}
		}
		if found && !slices.Contains(names, m.Manager) {
			names = append(names, m.Manager)
		}
	}
	slices.Sort(names)
	return names
}

// conditionPath is where managedFields have a condition.
func conditionPath(t corev1.NodeConditionType) []string {
	return []string{"f:status", "f:conditions", `k:{"type":"` + string(t) + `"}`}
}
