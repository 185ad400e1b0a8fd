package drop

import (
	"regexp"
	"testing"
)

func TestEveryReasonIsNamedOnce(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
	seen := map[string]Reason{}
	for r := None; r < Count; r++ {
		if !snake.MatchString(r.String()) {
			t.Errorf("reason %d: name %q is not snake_case", r, r)
		}
		if other, dup := seen[r.String()]; dup {
			t.Errorf("reasons %d and %d share the name %q", other, r, r)
		}
		seen[r.String()] = r
		if r.What() == "" || r.Advice() == "" {
			t.Errorf("reason %s lacks its sentence or its advice", r)
		}
		if got, ok := ByName(r.String()); !ok || got != r {
			t.Errorf("ByName(%q) = %v, %v", r, got, ok)
		}
	}
	if _, ok := ByName("no such reason"); ok {
		t.Error("ByName found a reason that does not exist")
	}
	if len(All()) != int(Count)-1 {
		t.Errorf("All() has %d reasons, want %d", len(All()), Count-1)
	}
}
