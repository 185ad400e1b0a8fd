package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxDepth bounds the nesting of lists and mappings. Kubernetes objects nest
// about fifteen deep.
const maxDepth = 100

// Document is one document of a file.
type Document struct {
	// Line is the number of its first line.
	Line int
	Text []byte
}

// Split cuts a file into its documents, which "---" at the start of a line
// separates. Those without content are left out.
func Split(b []byte) []Document {
	var docs []Document
	start, startLine, line := 0, 1, 1
	flush := func(end int) {
		if text := b[start:end]; !blank(text) {
			docs = append(docs, Document{startLine, text})
		}
	}
	for at := 0; at < len(b); line++ {
		next := len(b)
		if nl := bytes.IndexByte(b[at:], '\n'); nl >= 0 {
			next = at + nl + 1
		}
		if separator(b[at:next]) {
			flush(at)
			start, startLine = at, line
		}
		at = next
	}
	flush(len(b))
	return docs
}

func separator(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

// blank reports whether text holds only white space, comments and markers.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("---")))
		if len(line) > 0 && line[0] != '#' && string(line) != "..." {
			return false
		}
	}
	return true
}

// Parse reads one document. Errors are *Error with the file's name and line.
// A document without content is a Null node.
func Parse(file string, doc Document) (n *Node, err error) {
	p := reader{file: file, line0: doc.Line - 1, lines: bytes.Count(doc.Text, []byte("\n")) + 1}
	defer func() {
		// The YAML library is not ours, and what it reads is anybody's.
		if r := recover(); r != nil {
			n, err = nil, p.fail(1, "", "is no YAML that can be read; check the quoting and the indentation")
		}
	}()
	if line, what := badText(doc.Text); what != "" {
		return nil, p.fail(line, "", what)
	}
	if tooDeep(doc.Text) {
		return nil, p.fail(1, "", fmt.Sprintf("nests deeper than %d levels; make it flatter", maxDepth))
	}
	tree, err := parser.ParseBytes(doc.Text, 0)
	if err != nil {
		return nil, p.syntax(err)
	}
	var body ast.Node
	for _, d := range tree.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			return nil, p.fail(p.lineOf(d.Body), "", "a second document begins; separate documents with a line of ---")
		}
		body = d.Body
	}
	return p.node(body, "", 0)
}

// badText finds bytes that no text file holds.
func badText(b []byte) (line int, what string) {
	line = 1
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && n == 1:
			return line, fmt.Sprintf("byte 0x%02x is no UTF-8; save the file as UTF-8 text", b[0])
		case r == '\r' && (len(b) == 1 || b[1] != '\n'):
			return line, "a carriage return without a line feed; save the file with Unix line ends"
		case unicode.IsControl(r) && r != '\t' && r != '\r':
			return line, fmt.Sprintf("control character U+%04X; remove it", r)
		}
		b = b[n:]
	}
	return 0, ""
}

// tooDeep guards the library's recursion: brackets, or a run of dashes at the
// start of a line, are the only ways to nest deeply in a small file. Brackets in
// quoted text count too, so the bound is far above maxDepth.
func tooDeep(b []byte) bool {
	const bound = 100 * maxDepth
	depth, run, leading := 0, 0, true
	for _, c := range b {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		case '\n':
			run, leading = 0, true
			continue
		case '-', '?', ':', ' ', '\t':
			if leading {
				run++
			}
		}
		leading = leading && strings.IndexByte("-?: \t", c) >= 0
		if depth > bound || run > bound {
			return true
		}
	}
	return false
}

// reader turns the library's tree into ours.
type reader struct {
	file  string
	line0 int // added to the library's line numbers
	lines int // of the document
}

func (p *reader) fail(line int, key, what string) error {
	return &Error{File: p.file, Line: p.line0 + min(line, p.lines), Key: key, What: what}
}

// syntax makes one line out of the library's picture of the mistake.
func (p *reader) syntax(err error) error {
	line, what := 1, err.Error()
	var ye yaml.Error
	if errors.As(err, &ye) {
		what = ye.GetMessage()
		if t := ye.GetToken(); t != nil && t.Position != nil {
			line = max(t.Position.Line, 1)
		}
	}
	what, _, _ = strings.Cut(what, "\n")
	if key, ok := strings.CutPrefix(what, "mapping key "); ok {
		if key, rest, ok := strings.Cut(key, " already defined at ["); ok {
			first, _, _ := strings.Cut(rest, ":")
			if n, err := strconv.Atoi(first); err == nil {
				return p.fail(line, strings.Trim(key, `"`), fmt.Sprintf("given twice, first in line %d; remove one", p.line0+n))
			}
		}
	}
	return p.fail(line, "", fmt.Sprintf("is no YAML: %s; check the quoting and the indentation", what))
}

func (p *reader) lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1
	}
	return max(n.GetToken().Position.Line, 1)
}

// node converts n, which is at the key path.
func (p *reader) node(n ast.Node, path string, depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, p.fail(p.lineOf(n), "", fmt.Sprintf("nests deeper than %d levels; make it flatter", maxDepth))
	}
	line := p.lineOf(n)
	out := &Node{Line: p.line0 + line}
	switch v := n.(type) {
	case nil, *ast.NullNode:
	case *ast.BoolNode:
		out.Kind, out.Text = Bool, fmt.Sprint(v.Value)
	case *ast.IntegerNode:
		out.Kind, out.Text = Int, fmt.Sprint(v.Value)
	case *ast.FloatNode:
		out.Kind, out.Text = Float, v.Token.Value
	case *ast.InfinityNode, *ast.NanNode:
		out.Kind, out.Text = Float, n.GetToken().Value
	case *ast.StringNode:
		out.Kind, out.Text = String, v.Value
	case *ast.LiteralNode:
		out.Kind, out.Text = String, v.Value.Value
	case *ast.SequenceNode:
		out.Kind = List
		for i, item := range v.Values {
			child, err := p.node(item, Index(path, i), depth+1)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, child)
		}
	case *ast.MappingNode:
		out.Kind = Map
		return out, p.fields(out, v.Values, path, depth)
	case *ast.MappingValueNode:
		out.Kind = Map
		return out, p.fields(out, []*ast.MappingValueNode{v}, path, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		return nil, p.fail(line, path, "anchors and aliases are not read; write the value out")
	case *ast.TagNode:
		return nil, p.fail(line, path, fmt.Sprintf("tag %s is not read; write the plain value", v.Start.Value))
	default:
		return nil, p.fail(line, path, "is no value; check the quoting and the indentation")
	}
	return out, nil
}

// fields converts the entries of a mapping into out.
func (p *reader) fields(out *Node, values []*ast.MappingValueNode, path string, depth int) error {
	seen := make(map[string]int, len(values))
	for _, v := range values {
		key, line, err := p.key(v.Key, path)
		if err != nil {
			return err
		}
		if len(out.Fields) == 0 {
			out.Line = p.line0 + line // the library's token of a mapping is its first colon
		}
		at := Join(path, key)
		if first, twice := seen[key]; twice {
			return p.fail(line, at, fmt.Sprintf("given twice, first in line %d; remove one", p.line0+first))
		}
		seen[key] = line
		child, err := p.node(v.Value, at, depth+1)
		if err != nil {
			return err
		}
		if child.Kind == Null {
			child.Line = p.line0 + line
		}
		out.Fields = append(out.Fields, Field{key, p.line0 + line, child})
	}
	return nil
}

// key is the text of a mapping's key. Numbers and truth values are taken as
// they are written: JSON objects know only text.
func (p *reader) key(k ast.MapKeyNode, path string) (string, int, error) {
	line := p.lineOf(k)
	switch v := k.(type) {
	case *ast.StringNode:
		return v.Value, line, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, line, nil
	case *ast.MergeKeyNode:
		return "", 0, p.fail(line, path, "merge keys (<<) are not read; write the values out")
	}
	return "", 0, p.fail(line, path, "a key that is no plain text; write it as key: value")
}
