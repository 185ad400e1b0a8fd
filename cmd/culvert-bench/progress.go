package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"culvert/bench/result"
	"culvert/bench/run"

	"golang.org/x/term"
)

// progress shows how far a run is: on a terminal in one line that changes, and a
// line for each finding elsewhere.
type progress struct {
	w     io.Writer
	width int // of the terminal; 0 is none
	last  int // how many characters the line has
}

func newProgress(w io.Writer) *progress { return &progress{w: w, width: columns(w)} }

// columns is the width of the terminal that w is, 0 if it is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}

// terminalWidth is how wide tables may be.
func terminalWidth(w io.Writer) int {
	if n := columns(w); n > 0 {
		return n
	}
	return 120
}

// show tells of an event. What cannot be written is not worth an end of the run.
func (p *progress) show(e run.Event) {
	line := describeEvent(e)
	if p.width == 0 {
		if e.Case != "" {
			_, _ = fmt.Fprintln(p.w, line)
		}
		return
	}
	r := []rune(line)
	r = r[:min(len(r), max(0, p.width-1))]
	_, _ = fmt.Fprint(p.w, "\r"+string(r)+strings.Repeat(" ", max(0, p.last-len(r))))
	p.last = len(r)
}

// clear removes the line.
func (p *progress) clear() {
	if p.width > 0 {
		_, _ = fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.last)+"\r")
	}
}

func describeEvent(e run.Event) string {
	part := 0
	if e.All > 0 {
		part = int(100 * e.Done / e.All)
	}
	line := fmt.Sprintf("%3d%%", part)
	if e.Left > 0 {
		line += fmt.Sprintf("  %s left", e.Left.Round(time.Second))
	}
	line += fmt.Sprintf("  %s %d/%d  %s", e.Experiment, e.Round, e.Rounds, e.Device)
	if e.Case == "" {
		return line
	}
	line += "  " + e.Case
	if e.Finding.Failed != "" {
		first, _, _ := strings.Cut(e.Finding.Failed, "\n")
		return line + "  failed: " + first
	}
	if v, ok := e.Finding.Values[e.Metric.Name]; ok {
		line += fmt.Sprintf("  %.*f %s", e.Metric.Digits, v, e.Metric.Unit)
	}
	if e.Metric.Name != result.NanosPacket {
		if v, ok := e.Finding.Values[result.NanosPacket]; ok {
			line += fmt.Sprintf(", %.0f ns a packet", v)
		}
	}
	return line
}
