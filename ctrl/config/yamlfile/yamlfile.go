// Package yamlfile reads YAML into a tree that remembers where everything was
// written, for decoders that owe their user one line per mistake: file, line,
// key, what is wrong, what to do.
//
// It is stricter than YAML: duplicate keys, anchors, aliases, tags, keys that
// are no plain text and control characters are mistakes. JSON is YAML here.
package yamlfile

import (
	"fmt"
	"strings"
)

// Kind is what a Node holds.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	List
	Map
)

// String names the kind as a person would, for "is KIND, want …".
func (k Kind) String() string {
	return [...]string{"empty", "a truth value", "a number", "a number with a fraction", "text", "a list", "a mapping"}[k]
}

// Node is a value in a file. Nodes are immutable once parsed.
type Node struct {
	Kind Kind
	Line int
	// Text is a scalar: that of a string, or a number or truth value as it
	// was written.
	Text string
	// Items are the elements of a list.
	Items []*Node
	// Fields are the entries of a mapping, in the order of the file, no key twice.
	Fields []Field
}

// Field is an entry of a mapping.
type Field struct {
	Key   string
	Line  int
	Value *Node
}

// Field is the value of a key of a mapping, nil when there is none.
func (n *Node) Field(key string) *Node {
	if n == nil {
		return nil
	}
	for i := range n.Fields {
		if n.Fields[i].Key == key {
			return n.Fields[i].Value
		}
	}
	return nil
}

// Error is one mistake in a file.
type Error struct {
	File string
	Line int // 0: the whole file
	// Key is where in the document, such as spec.podCIDRs[0]; may be empty.
	Key string
	// What is wrong, and what to do about it, on one line.
	What string
}

// Error is FILE:LINE: key: what is wrong; what to do.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.What)
	return b.String()
}

// Join puts a key behind a path: metadata, name → metadata.name. Keys with dots
// or slashes are put in brackets and quotes, so that the path reads one way.
func Join(path, key string) string {
	if strings.ContainsAny(key, "./[] ") {
		return fmt.Sprintf("%s[%q]", path, key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// Index puts a list index behind a path.
func Index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
