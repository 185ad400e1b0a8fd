package source

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkDecode is the cost of a file with many nodes: what an edit of one of
// them costs.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{10, 1000} {
		documents, list := strings.Builder{}, strings.Builder{}
		list.WriteString("apiVersion: v1\nkind: List\nitems:\n")
		for i := range n {
			text := strings.ReplaceAll(node1, "worker-1", fmt.Sprintf("worker-%d", i))
			documents.WriteString("---\n" + text)
			list.WriteString("- " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n")
		}
		for name, text := range map[string]string{"documents": documents.String(), "list": list.String()} {
			b.Run(fmt.Sprintf("nodes=%d/%s", n, name), func(b *testing.B) {
				for b.Loop() {
					if m, err := decodeManifest("m.yaml", []byte(text)); err != nil || len(m.objects) != n {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
