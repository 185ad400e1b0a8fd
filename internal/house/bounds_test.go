package house

import (
	"bytes"
	"go/ast"
	"go/types"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// checks are the functions of the packet path and how many bounds checks the
// compiler may leave in them, those of what is inlined there excepted. It leaves the
// ones that guard against what arrives; one more is a regression, or to be written
// down here.
var checks = map[string]map[string]int{
	"encap": {
		"Template.pushVXLAN4": 0, "Template.pushVXLAN6": 0, "Template.pushIPIP": 0, "Template.Push": 4,
		"plainVXLAN4": 0, "popPlain4": 0, "outerECN": 0, "SourcePort": 0, "PopVXLAN": 1,
	},
	"internal/packet": {
		"Key.Hash": 0, "sameOptions": 0, "continuesTCP": 0, "parse4": 1, "checkHeader4": 1, "parse6": 5, "parseL4": 3, "DecrementTTL4": 3,
	},
	"dataplane/flow": {
		"Table.Lookup": 0, "half.is": 0, "Entry.Warm": 0, "Entry.Verdict": 0,
		"Table.BeginLookups": 3, "Table.FinishLookup": 1, "Table.probe": 1, "Table.search": 2,
	},
	"fib": {"Snapshot.FindFlow": 0, "matcher.find4": 2, "matcher.find6": 1},
	"dataplane": {
		"worker.forward": 0, "worker.verdict": 0, "worker.enqueue": 1, "worker.rewrite": 1, "worker.lookup": 1,
		"worker.stages": 3, "worker.ageHop": 9,
	},
}

// TestBoundsChecks asks the compiler (ssa/check_bce) where it checks an index.
func TestBoundsChecks(t *testing.T) {
	for pkg, most := range checks {
		t.Run(pkg, func(t *testing.T) {
			cmd := exec.Command("go", "build", "-gcflags=-d=ssa/check_bce", "./"+pkg)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("no Go compiler to ask: %v\n%s", err, out)
			}
			if !bytes.Contains(out, []byte("Found IsInBounds")) {
				t.Fatalf("the compiler said nothing:\n%s", out)
			}
			functions := functionsOf(t, pkg)
			found := map[string]int{}
			for _, list := range functions {
				for _, f := range list {
					found[f.name] = 0
				}
			}
			for _, m := range regexp.MustCompile(`(?m)^(\S+?\.go):(\d+):\d+: Found Is`).FindAllSubmatch(out, -1) {
				file := string(m[1])
				line, err := strconv.Atoi(string(m[2]))
				if err != nil || filepath.Dir(file) != pkg { // of what is inlined, from elsewhere
					continue
				}
				for _, f := range functions[filepath.Base(file)] {
					if f.from <= line && line <= f.to {
						found[f.name]++
					}
				}
			}
			for name, n := range most {
				if have, ok := found[name]; !ok {
					t.Errorf("there is no function %s any more", name)
				} else if have > n {
					t.Errorf("%s: %d bounds checks, %d before", name, have, n)
				}
			}
		})
	}
}

// function is where one is, in lines.
type function struct {
	name     string
	from, to int
}

// functionsOf are the functions of a package by file.
func functionsOf(t *testing.T, pkg string) map[string][]function {
	set, files := parse(t)
	all := map[string][]function{}
	for _, f := range files {
		if f.Dir() != pkg || f.Test() {
			continue
		}
		base := filepath.Base(f.Path)
		for _, d := range f.Syntax.Decls {
			if d, ok := d.(*ast.FuncDecl); ok {
				all[base] = append(all[base], function{nameOf(d), set.Position(d.Pos()).Line, set.Position(d.End()).Line})
			}
		}
	}
	return all
}

// nameOf is a function's name, or Type.Method.
func nameOf(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	return strings.TrimLeft(types.ExprString(d.Recv.List[0].Type), "*") + "." + d.Name.Name
}
