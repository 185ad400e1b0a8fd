package vm

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// What the archive holds is what a reader of the format finds.
func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := newArchive(&b)
	a.file("/a/b/one", 0o644, []byte("1"))
	a.file("/a/four", 0o755, []byte("four"))
	a.file("/a/four", 0o755, []byte("the second of a name"))
	a.link("/a/link", "four")
	a.dir("/a")
	a.file("/empty", 0o600, nil)
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	want := `a 40755 ""
a/b 40755 ""
a/b/one 100644 "1"
a/four 100755 "four"
a/link 120777 "four"
empty 100600 ""
TRAILER!!! 0 ""
`
	if got := list(t, b.Bytes()); got != want {
		t.Errorf("the archive is\n%s\nwant\n%s", got, want)
	}
}

// A writer that fails is told of, and nothing follows.
func TestArchiveFails(t *testing.T) {
	w := &limited{left: 200}
	a := newArchive(w)
	for i := range 10 {
		a.file(fmt.Sprint("/", i), 0o644, make([]byte, 100))
	}
	if err := a.close(); err == nil || w.after {
		t.Errorf("err %v, wrote after it: %t", err, w.after)
	}
}

type limited struct {
	left          int
	failed, after bool
}

func (l *limited) Write(b []byte) (int, error) {
	l.after = l.failed
	if l.left -= len(b); l.left < 0 {
		l.failed = true
		return 0, fmt.Errorf("full")
	}
	return len(b), nil
}

// list reads an archive: name, mode and content of each member.
func list(t *testing.T, b []byte) string {
	t.Helper()
	var out strings.Builder
	for len(b) > 0 {
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil || string(b[:6]) != "070701" {
				t.Fatalf("header %q: %v", b[:110], err)
			}
			return int(n)
		}
		pad := func(n int) int { return (n + 3) &^ 3 }
		mode, size, nameLen := field(1), field(6), field(11)
		name := strings.TrimSuffix(string(b[110:110+nameLen]), "\x00")
		content := b[pad(110+nameLen):][:size]
		fmt.Fprintf(&out, "%s %o %q\n", name, mode, content)
		b = b[pad(110+nameLen)+pad(size):]
	}
	return out.String()
}
