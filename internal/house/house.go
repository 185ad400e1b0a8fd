// Package house holds tests of the whole tree: what every package owes its
// reader, what the lower floors may not do, and that generated pages are
// current. It has no code of its own but what those tests share.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
)

// File is one parsed Go file of the tree.
type File struct {
	// Path is relative to the root, with slashes.
	Path   string
	Syntax *ast.File
}

// Dir is the folder of the file, relative to the root.
func (f *File) Dir() string { return filepath.ToSlash(filepath.Dir(f.Path)) }

// Test reports whether the file is one of tests.
func (f *File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Imports reports whether the file imports path.
func (f *File) Imports(path string) bool {
	for _, i := range f.Syntax.Imports {
		if i.Path.Value == `"`+path+`"` {
			return true
		}
	}
	return false
}

// skipped are folders whose Go files are no part of the module.
var skipped = map[string]bool{".git": true, "bin": true, "testdata": true, "tools": true}

// Files parses every Go file under root.
func Files(root string, set *token.FileSet) ([]*File, error) {
	var all []*File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped[d.Name()]:
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		syntax, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		all = append(all, &File{Path: filepath.ToSlash(relative), Syntax: syntax})
		return err
	})
	return all, err
}
