package flavour

import (
	"fmt"
	"strings"
)

// Selects reports whether a Calico selector takes something with these labels; the
// empty one takes all.
func Selects(expr string, labels map[string]string) (bool, error) { return selects(expr, labels) }

// selects reports whether a Calico selector (libcalico-go/lib/selector) takes
// something with these labels. The empty selector takes all.
//
//	or    = and {"||" and}        and = unary {"&&" unary}
//	unary = "!" unary | "(" or ")" | "all()" | "global()" | "has(" label ")" | label test
//	test  = "==" text | "!=" text | "in" set | "not in" set
//	      | "contains" text | "starts with" text | "ends with" text
func selects(expr string, labels map[string]string) (bool, error) {
	if strings.TrimSpace(expr) == "" {
		return true, nil
	}
	s := &selector{rest: expr, labels: labels}
	ok := s.or()
	if s.err == nil && s.space() != "" {
		s.fail("the end")
	}
	if s.err != nil {
		return false, fmt.Errorf("%q is no selector: %w", expr, s.err)
	}
	return ok, nil
}

// selector reads an expression from left to right and evaluates it at once.
// After a mistake it stays where it was.
type selector struct {
	rest   string
	labels map[string]string
	depth  int
	err    error
}

// maxDepth bounds parentheses and negations.
const maxDepth = 100

func (s *selector) fail(want string) bool {
	if s.err == nil {
		at := s.rest
		if len(at) > 20 {
			at = at[:20]
		}
		s.err = fmt.Errorf("%s was expected at %q", want, at)
	}
	s.rest = ""
	return false
}

// space skips blanks and returns what is left.
func (s *selector) space() string {
	s.rest = strings.TrimLeft(s.rest, " \t\r\n")
	return s.rest
}

// take reads a token if it is the next one.
func (s *selector) take(token string) bool {
	rest, ok := strings.CutPrefix(s.space(), token)
	if ok {
		s.rest = rest
	}
	return ok
}

func (s *selector) or() bool {
	ok := s.and()
	for s.take("||") {
		right := s.and() // read whatever the left side is
		ok = ok || right
	}
	return ok
}

func (s *selector) and() bool {
	ok := s.unary()
	for s.take("&&") {
		right := s.unary()
		ok = ok && right
	}
	return ok
}

func (s *selector) unary() bool {
	if s.depth++; s.depth > maxDepth {
		return s.fail("a simpler expression")
	}
	defer func() { s.depth-- }()
	switch {
	case s.take("!"):
		return !s.unary()
	case s.take("("):
		ok := s.or()
		if !s.take(")") {
			return s.fail(")")
		}
		return ok
	case s.take("all()"), s.take("global()"):
		return true
	case s.take("has("):
		_, has := s.labels[s.label()]
		if !s.take(")") {
			return s.fail(")")
		}
		return has
	}
	return s.test()
}

// test compares a label. One that is not there is like no text at all.
func (s *selector) test() bool {
	value, has := s.labels[s.label()]
	switch {
	case s.take("=="):
		return s.text() == value && has
	case s.take("!="):
		return s.text() != value || !has
	case s.words("not", "in"):
		return !s.in(value) || !has
	case s.words("in"):
		return s.in(value) && has
	case s.words("contains"):
		return strings.Contains(value, s.text()) && has
	case s.words("starts", "with"):
		return strings.HasPrefix(value, s.text()) && has
	case s.words("ends", "with"):
		return strings.HasSuffix(value, s.text()) && has
	}
	return s.fail("a comparison")
}

// words takes words with blanks between them, or nothing.
func (s *selector) words(words ...string) bool {
	before := s.rest
	for _, w := range words {
		if !s.take(w) || s.rest != "" && isLabel(s.rest[0]) {
			s.rest = before
			return false
		}
	}
	return true
}

func isLabel(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("_./-", b) >= 0
}

func (s *selector) label() string {
	text := s.space()
	end := 0
	for end < len(text) && isLabel(text[end]) {
		end++
	}
	if end == 0 {
		s.fail("a label")
		return ""
	}
	s.rest = text[end:]
	return text[:end]
}

// text reads one in quotes of either kind.
func (s *selector) text() string {
	rest := s.space()
	if rest == "" || rest[0] != '\'' && rest[0] != '"' {
		s.fail("a text in quotes")
		return ""
	}
	value, after, ok := strings.Cut(rest[1:], rest[:1])
	if !ok {
		s.fail("the closing quote")
		return ""
	}
	s.rest = after
	return value
}

// in reads {"a", "b"} and reports whether value is in it.
func (s *selector) in(value string) (found bool) {
	if !s.take("{") {
		return s.fail("{")
	}
	for !s.take("}") {
		found = s.text() == value || found
		if s.err != nil {
			return false
		}
		if !s.take(",") && s.space() != "" && s.rest[0] != '}' {
			return s.fail(", or }")
		}
		if s.rest == "" {
			return s.fail("}")
		}
	}
	return found
}
