package diskfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A write replaces all or nothing, and leaves no file besides.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	broken := errors.New("broken")
	for _, c := range []struct {
		text string
		fail error
		want string
	}{{"one", nil, "one"}, {"two", broken, "one"}, {"three", nil, "three"}, {"", nil, ""}} {
		for _, sync := range []bool{false, true} {
			err := WriteFrom(path, sync, func(w io.Writer) error {
				_, err := io.WriteString(w, c.text)
				return errors.Join(err, c.fail)
			})
			if !errors.Is(err, c.fail) {
				t.Errorf("%q: %v, want %v", c.text, err, c.fail)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != c.want {
				t.Errorf("%q: the file has %q, %v, want %q", c.text, got, err, c.want)
			}
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left besides: %v, %v", files, err)
	}
	if err := Write(filepath.Join(dir, "no", "b"), nil, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}
