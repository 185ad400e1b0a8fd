package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sampleReport has three rounds of two devices, b twice as fast as a in each.
func sampleReport() *Report {
	r := newReport(Default())
	for i, mpps := range []float64{0.5, 0.2, 0.4} {
		r.Rounds = append(r.Rounds,
			Measurement{Device: "a", Round: i + 1, Mpps: mpps, CoresBusy: 2, Note: "the first"},
			Measurement{Device: "b", Round: i + 1, Mpps: 2 * mpps, CoresBusy: 1})
	}
	r.summarise()
	return r
}

func TestSummary(t *testing.T) {
	r := sampleReport()
	a, ok := r.Of("a")
	if !ok || a.Mpps != 0.4 || a.MinMpps != 0.2 || a.MaxMpps != 0.5 || a.CoresBusy != 2 {
		t.Errorf("a is %+v", a)
	}
	if want := (0.5 - 0.2) / 0.4; a.Spread < want-1e-9 || a.Spread > want+1e-9 {
		t.Errorf("spread of a is %g, want %g", a.Spread, want)
	}
	if len(r.Ratios) != 1 || r.Ratios[0] != (Ratio{Device: "a", To: "b", Median: 0.5, Min: 0.5, Max: 0.5}) {
		t.Errorf("ratios are %+v", r.Ratios)
	}
	if _, ok := r.Of("c"); ok {
		t.Error("there is no c")
	}
}

func TestWriteReport(t *testing.T) {
	r := sampleReport()
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0.400", "75%", "a / b", "0.50", "a: the first"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	path := filepath.Join(t.TempDir(), "new", "report.json")
	if err := r.WriteJSON(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || len(back.Rounds) != 6 || len(back.Devices) != 2 {
		t.Errorf("%d rounds and %d devices came back: %v", len(back.Rounds), len(back.Devices), err)
	}
}
