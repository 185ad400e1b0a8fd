package yamlfile

import (
	"errors"
	"strings"
	"testing"
)

// parseAll reads every document of a text.
func parseAll(text string) (nodes []*Node, err error) {
	for _, d := range Split([]byte(text)) {
		n, err := Parse("f.yaml", d)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func TestMistakesHaveFileAndLine(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"two colons", "a: 1\nb: c: d\n", "f.yaml:2: is no YAML: mapping value is not allowed in this context; check the quoting and the indentation"},
		{"indentation", "a:\n  - x\n b: 1\n", "f.yaml:3: is no YAML: value is not allowed in this context; check the quoting and the indentation"},
		{"open list", "a: [1, 2\nb: 3\n", "f.yaml:2: is no YAML: ',' or ']' must be specified; check the quoting and the indentation"},
		{"tab", "a: 1\n\tb: 2\n", "f.yaml:2: is no YAML: found character '\t' that cannot start any token; check the quoting and the indentation"},
		{"open quote", "a: 'x\nb: 1\n", "f.yaml:1: is no YAML: could not find end character of single-quoted text; check the quoting and the indentation"},
		{"duplicate", "a: 1\nb: 2\na: 2\n", "f.yaml:3: a: given twice, first in line 1; remove one"},
		{"nested duplicate", "a:\n  b: 1\n  b: 2\n", "f.yaml:3: b: given twice, first in line 2; remove one"},
		{"in a later document", "a: 1\n---\n# x\n---\nb: 1\nb: 2\n", "f.yaml:6: b: given twice, first in line 5; remove one"},
		{"anchor", "a: &x 1\n", "f.yaml:1: a: anchors and aliases are not read; write the value out"},
		{"alias", "b: 1\na: [*x]\n", "f.yaml:2: a[0]: anchors and aliases are not read; write the value out"},
		{"merge", "a:\n  <<: {b: 1}\n", "f.yaml:2: a: merge keys (<<) are not read; write the values out"},
		{"tag", "a: !!str 1\n", "f.yaml:1: a: tag !!str is not read; write the plain value"},
		{"NUL", "a: 1\nb: \x00\n", "f.yaml:2: control character U+0000; remove it"},
		{"no UTF-8", "a: \xff\n", "f.yaml:1: byte 0xff is no UTF-8; save the file as UTF-8 text"},
		{"carriage return", "a: 1\nb: 2\rc: 3\n", "f.yaml:2: a carriage return without a line feed; save the file with Unix line ends"},
		{"deep flow", strings.Repeat("[", 200) + strings.Repeat("]", 200), "f.yaml:1: nests deeper than 100 levels; make it flatter"},
		{"deeper flow", strings.Repeat("[", 200000), "f.yaml:1: nests deeper than 100 levels; make it flatter"},
		{"deep dashes", strings.Repeat("- ", 100000) + "a", "f.yaml:1: nests deeper than 100 levels; make it flatter"},
		{"brace at the end", "x: 1\ny: ]\n", "f.yaml:2: is no YAML: could not find '[' character corresponding to ']'; check the quoting and the indentation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseAll(c.in)
			if err == nil {
				t.Fatal("was accepted")
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			if e := new(Error); !errors.As(err, &e) {
				t.Errorf("error is a %T", err)
			}
		})
	}
}

func TestTreeAndLines(t *testing.T) {
	nodes, err := parseAll("# head\n---\na: 1\nb:\n  c: [x, \"2\", true, 1.5, ~]\n  d: |\n    two\n    lines\n---\n{\"e\": {\"f\": null}}\n")
	if err != nil || len(nodes) != 2 {
		t.Fatalf("got %d documents, %v; want 2", len(nodes), err)
	}
	c := nodes[0].Field("b").Field("c")
	for i, want := range []Kind{String, String, Bool, Float, Null} {
		if got := c.Items[i].Kind; got != want {
			t.Errorf("element %d is %v, want %v", i, got, want)
		}
	}
	if got := nodes[0].Field("a"); got.Kind != Int || got.Text != "1" || got.Line != 3 {
		t.Errorf("a is %+v, want the number 1 in line 3", got)
	}
	if c.Line != 5 {
		t.Errorf("b.c is in line %d, want 5", c.Line)
	}
	if d := nodes[0].Field("b").Field("d"); d.Text != "two\nlines\n" {
		t.Errorf("d is %q", d.Text)
	}
	if f := nodes[1].Field("e").Field("f"); f == nil || f.Kind != Null || f.Line != 10 {
		t.Errorf("e.f is %+v, want an empty value in line 10", f)
	}
	if nodes[0].Field("nowhere") != nil || (*Node)(nil).Field("x") != nil {
		t.Error("a key that is not there has a value")
	}
}

func TestSplitLeavesOutEmptyDocuments(t *testing.T) {
	for in, want := range map[string]int{
		"": 0, "---\n": 0, "# x\n\n---\n...\n": 0, "a: 1": 1, "a: 1\n---": 1, "--- {a: 1}\n---\nb: 1\n": 2, "a: |\n  ---\n": 1,
	} {
		if got := len(Split([]byte(in))); got != want {
			t.Errorf("%q has %d documents, want %d", in, got, want)
		}
	}
}

// FuzzParse: any bytes give nodes or errors on one line, in the file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: 1\n", "---\n- x\n- {y: [1]}\n", "a: |\n x\n", "{\"a\": null}", "? a\n: b\n", "a: &b *b\n", "\"\\u0000\": 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		lines := strings.Count(string(b), "\n") + 1
		for _, d := range Split(b) {
			_, err := Parse("f.yaml", d)
			e := new(Error)
			if err != nil && (!errors.As(err, &e) || strings.Contains(err.Error(), "\n") || e.Line < 1 || e.Line > lines) {
				t.Fatalf("%q: %v", b, err)
			}
		}
	})
}
