package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One process at a time; the next one may when it has closed.
func TestOneAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	if err := Held(dir); err != nil {
		t.Errorf("a directory that is not there: %v", err)
	}
	d, err := Open(dir, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Held": Held(dir), "Open": second(dir)} {
		var held *HeldError
		if !errors.As(err, &held) || held.PID != os.Getpid() || held.Path != dir || !strings.Contains(err.Error(), "stop it, or set another") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := Held(dir); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
	if err := second(dir); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
}

func second(dir string) error {
	d, err := Open(dir, "v2")
	if err != nil {
		return err
	}
	return d.Close()
}

// A directory without a form, of this one, and of another version are taken; one of a
// newer form, or that says nothing, stays as it is.
func TestForm(t *testing.T) {
	for _, c := range []struct{ there, after, refused string }{
		{there: "", after: `{"format":1,"culvertd":"v2"}`},
		{there: `{"format":1,"culvertd":"v2"}`, after: `{"format":1,"culvertd":"v2"}`},
		{there: `{"format":1,"culvertd":"v9","more":true}`, after: `{"format":1,"culvertd":"v2"}`},
		{there: `{"format":2,"culvertd":"v9"}`, refused: "culvertd v9 has left it in form 2 and this one, v2, knows forms up to 1"},
		{there: `{"form`, refused: "state.json: unexpected end of JSON input"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, formatName)
		if c.there != "" {
			if err := os.WriteFile(path, []byte(c.there), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := second(dir)
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%q: %v", c.there, err)
		}
		want := c.after
		if c.refused != "" {
			want = c.there
		}
		if text, _ := os.ReadFile(path); strings.TrimSpace(string(text)) != want {
			t.Errorf("%q became %q, want %q", c.there, text, want)
		}
		if err := Held(dir); err != nil {
			t.Errorf("%q: it is held after: %v", c.there, err)
		}
	}
}
