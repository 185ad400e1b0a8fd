package house

import (
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func parse(t *testing.T) (*token.FileSet, []*File) {
	t.Helper()
	set := token.NewFileSet()
	files, err := Files(root, set)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d Go files under %s: is that the tree?", len(files), root)
	}
	return set, files
}

// TestPackageComments: a package says what it is for and what it does not know.
func TestPackageComments(t *testing.T) {
	_, files := parse(t)
	comments := map[string][]string{}
	for _, f := range files {
		if f.Test() {
			continue
		}
		dir := f.Dir()
		if comments[dir] == nil {
			comments[dir] = []string{}
		}
		if f.Syntax.Doc != nil {
			comments[dir] = append(comments[dir], f.Syntax.Doc.Text())
		}
		want := "Package " + f.Syntax.Name.Name + " "
		if f.Syntax.Name.Name == "main" {
			want = "Command " + filepath.Base(dir) + " "
		}
		if text := f.Syntax.Doc.Text(); text != "" && !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment begins %.40q, want %q", f.Path, text, want)
		}
	}
	for dir, texts := range comments {
		if len(texts) != 1 {
			t.Errorf("%s: %d package comments, want 1", dir, len(texts))
		}
	}
}

// pure are the packages that know no goroutine.
var pure = []string{"internal/packet", "internal/drop", "encap", "fib", "dataplane/flow"}

// TestLowerFloorsStartNothing: encap, fib and the packet code are functions and
// data; who runs them decides about goroutines. (What they import is depguard's.)
func TestLowerFloorsStartNothing(t *testing.T) {
	set, files := parse(t)
	for _, f := range files {
		if f.Test() || !slices.Contains(pure, f.Dir()) {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%s: a goroutine, channel or select", set.Position(n.Pos()))
			}
			return true
		})
	}
}

// TestUnsafeHasItsFiles: all unsafe code outside tests lives in *_unsafe.go.
func TestUnsafeHasItsFiles(t *testing.T) {
	_, files := parse(t)
	for _, f := range files {
		if f.Imports("unsafe") && !strings.HasSuffix(f.Path, "_unsafe.go") && !f.Test() && !ast.IsGenerated(f.Syntax) {
			t.Errorf("%s imports unsafe", f.Path)
		}
	}
}

// TestNothingIsLeftUndone: no marks of unfinished work in what is delivered.
func TestNothingIsLeftUndone(t *testing.T) {
	set, files := parse(t)
	mark := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, f := range files {
		for _, group := range f.Syntax.Comments {
			for _, c := range group.List {
				if m := mark.FindString(c.Text); m != "" {
					t.Errorf("%s: a comment with %s", set.Position(c.Pos()), m)
				}
			}
		}
	}
}

// TestProgramsBuild: every folder under cmd is a program, as 'make build' takes it.
func TestProgramsBuild(t *testing.T) {
	dirs, err := os.ReadDir(filepath.Join(root, "cmd"))
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	cmd := exec.Command("go", "build", "-pgo=off", "-o", out+"/", "./cmd/...")
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(out, d.Name())); err != nil {
			t.Errorf("cmd/%s made no program: %v", d.Name(), err)
		}
	}
}

// TestDependenciesAreExplained: a direct dependency has its line in
// docs/dependencies.md.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	require := regexp.MustCompile(`^(?:require )?\s*(\S+\.\S+/\S+) v\S+$`)
	for line := range strings.Lines(string(mod)) {
		if m := require.FindStringSubmatch(strings.TrimSpace(line)); m != nil && !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("docs/dependencies.md does not say what %s is for", m[1])
		}
	}
}
