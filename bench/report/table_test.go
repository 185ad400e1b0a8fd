package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is different (go test -update writes it anew):\n%s", path, got)
	}
}

// The example fits where its names do, and numbers stand below each other.
func TestTableFits(t *testing.T) {
	for name, width := range map[string]int{"table-80.txt": 80, "table-120.txt": 120} {
		var b bytes.Buffer
		if err := Table(&b, example(), width); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > width || strings.TrimRight(line, " ") != line {
				t.Errorf("%d columns: %q", width, line)
			}
		}
	}
}

// Where the width does not matter, nothing is left out.
func TestTableWithoutWidth(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, example(), 0); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.Contains(got, "no room") || !strings.Contains(got, "cores busy") {
		t.Errorf("something is missing:\n%s", got)
	}
}

// Text of a file does not reach the terminal as commands, and a busy machine is
// said.
func TestTableOfForeignText(t *testing.T) {
	r := example()
	r.Experiments[0].Title, r.Experiments[0].Cases[0].Name = "title\x1b[2J", "a\x1b]0;b\a\n"
	r.Experiments[0].Cases[0].Runs[0].Failed = "x\x1b[31m"
	r.Machine.Kernel = "6\x1b[A"
	for n := range r.Experiments {
		for _, c := range r.Experiments[n].Cases {
			for k := range c.Runs {
				c.Runs[k].Background = 0.7
			}
		}
	}
	var b bytes.Buffer
	if err := Table(&b, r, 100); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\a") || !strings.Contains(b.String(), "title [2J") {
		t.Errorf("commands reach the terminal: %q", b.String())
	}
	if !strings.Contains(b.String(), "was not quiet: 0.70 cores") {
		t.Error("a busy machine is not said")
	}
}
