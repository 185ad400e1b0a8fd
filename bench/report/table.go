package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"culvert/bench/result"
	"culvert/bench/sample"
)

// Table writes a report for a terminal of so many columns; 0 has room for all.
func Table(w io.Writer, r *result.Report, width int) error {
	var b bytes.Buffer
	heading(&b, r)
	for n := range r.Experiments {
		experimentTable(&b, &r.Experiments[n], width)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func heading(b *bytes.Buffer, r *result.Report) {
	fmt.Fprintf(b, "culvert %s, Linux %s, %d × %s\n", printable(r.Version), printable(r.Machine.Kernel), r.Machine.Cores,
		printable(r.Machine.Processor))
	s := r.Settings
	fmt.Fprintf(b, "%s set, %d rounds of %g s after %g s, %s, in %.0f s\n", printable(s.Set), s.Rounds, s.Seconds, s.WarmUp,
		r.Started.UTC().Format("2006-01-02 15:04 UTC"), r.Seconds)
	if busy := Background(r); busy > sample.QuietCores {
		fmt.Fprintf(b, "the machine was not quiet: %.2f cores were busy before the turns (median)\n", busy)
	}
}

// Background is how many cores were busy before the turns, by the median.
func Background(r *result.Report) float64 {
	var all []float64
	for _, e := range r.Experiments {
		for _, c := range e.Cases {
			for _, run := range c.Runs {
				all = append(all, run.Background)
			}
		}
	}
	return result.SpreadOf(all).Median
}

// experimentTable has a row for each case and device. Columns that a narrow
// terminal has no room for are named below it.
func experimentTable(b *bytes.Buffer, e *result.Experiment, width int) {
	fmt.Fprintf(b, "\n%s: %s\n", printable(e.Name), printable(e.Title))
	columns, gone := tabulate(e), []string(nil)
	lines := layout(columns)
	for width > 0 && longest(lines) > width {
		n := dispensable(columns)
		if n < 0 {
			break
		}
		gone = append(gone, columns[n].head)
		columns = slices.Delete(columns, n, n+1)
		lines = layout(columns)
	}
	for _, line := range lines {
		fmt.Fprintln(b, line)
	}
	if len(gone) > 0 {
		fmt.Fprintln(b, cut("  no room for: "+strings.Join(gone, ", "), width))
	}
	notes(b, e, width)
}

// layout puts columns side by side: names to the left, numbers to the right of
// theirs.
func layout(columns []column) []string {
	lines := make([]string, len(columns[0].cells)+1)
	for n, c := range columns {
		cells := append([]string{c.head}, c.cells...)
		wide := longest(cells)
		for k, cell := range cells {
			pad := strings.Repeat(" ", wide-utf8.RuneCountInString(cell))
			if n > 0 {
				lines[k] += "  "
			}
			if c.left {
				lines[k] += cell + pad
			} else {
				lines[k] += pad + cell
			}
		}
	}
	for n := range lines {
		lines[n] = strings.TrimRight(lines[n], " ")
	}
	return lines
}

func longest(lines []string) (n int) {
	for _, line := range lines {
		n = max(n, utf8.RuneCountInString(line))
	}
	return n
}

// notes writes what there is to say besides the figures, each line cut to the
// width.
func notes(b *bytes.Buffer, e *result.Experiment, width int) {
	for _, line := range noteLines(e) {
		fmt.Fprintln(b, cut("  "+line, width))
	}
}

// cut ends a line that has no room; a width of 0 has room for all.
func cut(line string, width int) string {
	if width <= 1 {
		return line
	}
	return shorten(line, width)
}

// printable is text from a file, without what would move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// noteLines are how devices were set up, which failed, and which are missing.
func noteLines(e *result.Experiment) (said []string) {
	say := func(format string, args ...any) {
		line := strings.Join(strings.Fields(printable(fmt.Sprintf(format, args...))), " ")
		if !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	for _, m := range e.Missing {
		say("%s is missing: %s", m.Device, m.Why)
	}
	for _, c := range e.Cases {
		for _, r := range c.Runs {
			if r.Failed != "" {
				say("%s, %s, round %d failed: %s", c.Name, r.Device, r.Round, r.Failed)
			} else if r.Note != "" {
				say("%s: %s", r.Device, r.Note)
			}
		}
	}
	return said
}
