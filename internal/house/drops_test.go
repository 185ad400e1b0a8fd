package house

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"culvert/internal/drop"
)

//go:generate go test -run TestDropsPage -update .

var update = flag.Bool("update", false, "rewrite the generated pages of docs")

// TestDropsPage: docs/drops.md says what internal/drop says.
func TestDropsPage(t *testing.T) {
	var b bytes.Buffer
	fmt.Fprint(&b, "# Drop reasons\n\n"+
		"Every frame that Culvert discards is counted under exactly one of these reasons: in `culvert drops`,\n"+
		"in `culvert_drops_total{reason,kind}`, and per port in `culvert port`. `culvert explain REASON` prints\n"+
		"one of them. This page is generated from `internal/drop` by `make generate`.\n\n"+
		"| reason | what happened | what to do |\n|---|---|---|\n")
	for _, r := range drop.All() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r, r.What(), r.Advice())
	}
	page := filepath.Join(root, "docs", "drops.md")
	if *update {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what internal/drop says; run 'make generate'", page)
	}
}
