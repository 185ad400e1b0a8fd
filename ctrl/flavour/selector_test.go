package flavour

import (
	"strings"
	"testing"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"zone": "east-1", "kubernetes.io/os": "linux", "in": "x"}
	for expr, want := range map[string]bool{
		"": true, " ": true, "all()": true, "global()": true, "!all()": false, "!!all()": true,
		"has(zone)": true, "has(rack)": false, "!has(rack)": true, " has( zone ) ": true,
		"zone == 'east-1'": true, `zone == "east-1"`: true, "zone=='west'": false, "rack == ''": false,
		"zone != 'west'": true, "zone != 'east-1'": false, "rack != 'x'": true,
		"kubernetes.io/os == 'linux'": true, "in == 'x'": true,
		"zone in {'a', 'east-1'}": true, "zone in {}": false, "zone in {'a'}": false, "zone not in {'a'}": true, "zone not  in {'east-1'}": false, "rack not in {'a'}": true, "rack in {''}": false,
		"zone contains 'st-'": true, "zone contains 'x'": false, "rack contains ''": false,
		"zone starts with 'east'": true, "zone ends with '-1'": true, "zone ends with '-2'": false,
		"has(rack) || has(zone)": true, "has(rack) && has(zone)": false,
		"has(zone) || has(rack) && has(rack)":       true, // && binds closer
		"(has(zone) || has(rack)) && has(rack)":     false,
		"!(zone == 'east-1') || !has(rack)":         true,
		"all() && zone in {'east-1'} && !has(rack)": true,
		"zone == 'it''":                   false,
		strings.Repeat("!", 50) + "all()": true,
		strings.Repeat("(", 40) + "all()" + strings.Repeat(")", 40): true,
	} {
		got, err := selects(expr, labels)
		if broken := expr == "zone == 'it''"; (err != nil) != broken || got != want {
			t.Errorf("%s: %t, %v", expr, got, err)
		}
	}
	for expr, want := range map[string]string{
		"zone":                `"zone" is no selector: a comparison was expected at ""`,
		"zone = 'x'":          `"zone = 'x'" is no selector: a comparison was expected at "= 'x'"`,
		"zone == x":           `"zone == x" is no selector: a text in quotes was expected at "x"`,
		"zone == 'x":          `"zone == 'x" is no selector: the closing quote was expected at "'x"`,
		"(all()":              `"(all()" is no selector: ) was expected at ""`,
		"all() all()":         `"all() all()" is no selector: the end was expected at "all()"`,
		"all() &&":            `"all() &&" is no selector: a label was expected at ""`,
		"has()":               `"has()" is no selector: a label was expected at ")"`,
		"has(a":               `"has(a" is no selector: ) was expected at ""`,
		"zone in 'x'":         `"zone in 'x'" is no selector: { was expected at "'x'"`,
		"zone in {'x' 'y'}":   `"zone in {'x' 'y'}" is no selector: , or } was expected at "'y'}"`,
		"zone in {'x'":        `"zone in {'x'" is no selector: } was expected at ""`,
		"zone startswith 'e'": `"zone startswith 'e'" is no selector: a comparison was expected at "startswith 'e'"`,
		"$":                   `"$" is no selector: a label was expected at "$"`,
	} {
		if _, err := selects(expr, labels); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", expr, err, want)
		}
	}
	if _, err := selects(strings.Repeat("(", 10_000), nil); err == nil {
		t.Error("ten thousand parentheses")
	}
}

// Whatever comes: an answer or an error, and a selector is the opposite of its negation.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{"all()", "zone == 'east' && !has(rack) || (a in {'x', \"y\"})", "a not in {'b'}", "a starts with 'b'", "!"} {
		f.Add(s)
	}
	labels := map[string]string{"zone": "east", "a": "x"}
	f.Fuzz(func(t *testing.T, expr string) {
		got, err := selects(expr, labels)
		if err != nil || strings.TrimSpace(expr) == "" {
			return
		}
		if not, err := selects("!("+expr+")", labels); err == nil && not == got {
			t.Errorf("%q and its negation are both %t", expr, got)
		}
	})
}
