package kube

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

// maxMessage is the longest message of an Event, in bytes (pkg/apis/core/validation/events.go).
const maxMessage = 1024

// eventOf is the Event that tells of a conflict. All nodes that see the conflict make
// an Event of the same name: there is one in the cluster.
func eventOf(c *flavour.Conflict, ref corev1.ObjectReference, node string) *corev1.Event {
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: cmp.Or(ref.Namespace, metav1.NamespaceDefault)},
		InvolvedObject: ref,
		Type:           corev1.EventTypeWarning,
		Reason:         cmp.Or(string(c.Reason), string(flavour.NotFollowed)),
		Message:        shortened(c.Key+": "+c.What, maxMessage),
		Source:         corev1.EventSource{Component: fieldManager, Host: node},

		ReportingController: controller,
		ReportingInstance:   shortened(node, 128),
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{ref.APIVersion, ref.Kind, ref.Namespace, ref.Name, string(ref.UID), c.Key, e.Reason, c.What}, "\x00")))
	e.Name = strings.TrimRight(shortened(ref.Name, 253-17), ".-") + "." + hex.EncodeToString(sum[:8])
	return e
}

// shortened cuts a text to a number of bytes, not within a character.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// concerns reports whether a conflict is about a node's own Node object.
func concerns(c *flavour.Conflict, node string) bool {
	return c.Object == source.Ref{Kind: "Node", Name: node}
}

const (
	// refreshAfter is how old an Event may get while what it tells of lasts. The API
	// server forgets it after an hour (kube-apiserver --event-ttl).
	refreshAfter = 30 * time.Minute
	// lookWindow is within how long after that some node refreshes it.
	lookWindow = 20 * time.Minute
	// lookGap is the time between two nodes that look whether an Event is there.
	lookGap = 300 * time.Millisecond
)

// turn is how long this node leaves it to others to write an Event: less than a
// second if it is about the node itself, else what the names decide, in such a way that the nodes of
// a cluster come one after the other. The first writes it and the others see that it is there.
func turn(event, node string, nodes int, own bool) time.Duration {
	window := min(time.Duration(nodes)*lookGap, lookWindow)
	if own {
		window = min(window, time.Second)
	}
	sum := sha256.Sum256([]byte(event + "\x00" + node))
	return time.Duration(float64(binary.BigEndian.Uint32(sum[:4])) / (1 << 32) * float64(window))
}

// lastOf is when an Event was last written, as far as it says.
func lastOf(e *corev1.Event) time.Time {
	switch {
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}
