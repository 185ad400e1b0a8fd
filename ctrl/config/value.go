package config

import (
	"fmt"
	"strconv"
	"strings"

	"culvert/ctrl/config/yamlfile"
)

// value is what a key was set to: a node of the file, or an environment
// variable's text.
type value struct {
	node *yamlfile.Node // nil for the environment
	text string
	sub  string // [0] for a list's first element
}

// mistake is a value that cannot be taken.
type mistake struct {
	line int    // in the file; 0 for the environment
	sub  string // behind the key's name
	what string
}

func (v value) wrong(what string) *mistake {
	m := &mistake{sub: v.sub, what: what}
	if v.node != nil {
		m.line = v.node.Line
	}
	return m
}

// kind refuses a node of another kind.
func (v value) kind(want yamlfile.Kind, hint string) *mistake {
	if v.node == nil || v.node.Kind == want {
		return nil
	}
	return v.wrong(fmt.Sprintf("is %s, want %s; %s", v.node.Kind, want, hint))
}

func (v value) str() (string, *mistake) {
	if v.node == nil {
		return v.text, nil
	}
	hint := "put it in quotes"
	if v.node.Kind == yamlfile.List || v.node.Kind == yamlfile.Map {
		hint = "write one value"
	}
	return v.node.Text, v.kind(yamlfile.String, hint)
}

func (v value) integer(low, high int, hint string) (int, *mistake) {
	s := v.text
	if v.node != nil {
		if m := v.kind(yamlfile.Int, fmt.Sprintf("write a whole number from %d to %d", low, high)); m != nil {
			return 0, m
		}
		s = v.node.Text
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil && !tooLarge(err):
		return 0, v.wrong(fmt.Sprintf("%q is no number; write a whole number from %d to %d", s, low, high))
	case err != nil || n < low || n > high:
		return 0, v.wrong(fmt.Sprintf("%s is out of range; write a number from %d to %d, %s", s, low, high, hint))
	}
	return n, nil
}

func tooLarge(err error) bool { return strings.HasSuffix(err.Error(), strconv.ErrRange.Error()) }

func (v value) boolean() (bool, *mistake) {
	if v.node != nil {
		m := v.kind(yamlfile.Bool, "write true or false")
		return v.node.Text == "true", m
	}
	switch v.text {
	case "true", "false":
		return v.text == "true", nil
	}
	return false, v.wrong(fmt.Sprintf("%q is no truth value; write true or false", v.text))
}

// list is the elements of a list; in the environment commas separate them.
func (v value) list(hint string) ([]value, *mistake) {
	var out []value
	if v.node == nil {
		for i, s := range strings.Split(v.text, ",") {
			out = append(out, value{text: strings.TrimSpace(s), sub: fmt.Sprintf("[%d]", i)})
		}
		return out, nil
	}
	if m := v.kind(yamlfile.List, hint); m != nil {
		return nil, m
	}
	for i, n := range v.node.Items {
		out = append(out, value{node: n, sub: fmt.Sprintf("[%d]", i)})
	}
	return out, nil
}
