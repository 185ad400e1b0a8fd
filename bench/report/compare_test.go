package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"culvert/bench/result"
)

// runs is a report of two devices, with the values of each round times a factor.
func runs(version string, culvert, kernel float64, rounds int) *result.Report {
	noise := []float64{1, 1.01, 0.99, 1.005, 0.995, 1.002}
	c := result.Case{Name: "64 B"}
	for n := range rounds {
		c.Runs = append(c.Runs,
			result.Run{Device: "culvert", Round: n + 1, Values: map[string]float64{
				result.Mpps: culvert * noise[n], result.NanosPacket: 1000 / culvert * noise[n],
			}},
			result.Run{Device: "kernel", Round: n + 1, Values: map[string]float64{result.Mpps: kernel * noise[(n+2)%6]}})
	}
	return &result.Report{
		Format: result.Format, Version: version, Settings: result.Settings{Rounds: rounds},
		Experiments: []result.Experiment{{Name: "encap-size", Metric: result.Mpps, Cases: []result.Case{c}}},
	}
}

func text(t *testing.T, before, after *result.Report) (string, bool) {
	t.Helper()
	var b bytes.Buffer
	moved, err := Compare(&b, before, after)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), moved
}

func TestCompareFindsWhatMoved(t *testing.T) {
	got, moved := text(t, runs("v1", 0.6, 0.5, 6), runs("v2", 0.66, 0.5, 6))
	if !moved {
		t.Errorf("nothing moved:\n%s", got)
	}
	for _, want := range []string{
		"v1", "v2", "0.601", "0.661", "+10.0% better", "p=0.002 n=6+6", "ns/packet", "-9.1% better",
		"culvert / kernel", "3 of 4 values moved",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got, _ := text(t, runs("v1", 0.66, 0.5, 6), runs("v2", 0.6, 0.5, 6)); !strings.Contains(got, "worse") {
		t.Errorf("a slower run:\n%s", got)
	}
}

func TestCompareOfTheSame(t *testing.T) {
	got, moved := text(t, runs("v1", 0.6, 0.5, 6), runs("v2", 0.6, 0.5, 6))
	if moved || !strings.Contains(got, "~") || strings.Contains(got, "better") {
		t.Errorf("something moved:\n%s", got)
	}
}

// Three rounds cannot show a difference, however large.
func TestCompareSaysWhenRoundsAreTooFew(t *testing.T) {
	got, moved := text(t, runs("v1", 0.3, 0.5, 3), runs("v2", 0.9, 0.5, 3))
	if moved || !strings.Contains(got, "3 rounds are too few") {
		t.Errorf("three rounds:\n%s", got)
	}
}

func TestCompareWarnsAndSkips(t *testing.T) {
	before, after := runs("v1", 0.6, 0.5, 4), runs("v2", 0.6, 0.5, 4)
	after.Machine.Kernel, after.Settings.Seconds = "6.99", 3
	after.Experiments[0].Cases[0].Name = "65 B"
	before.Experiments = append(before.Experiments, result.Experiment{Name: "gone", Metric: result.Mpps})
	got, moved := text(t, before, after)
	if moved || !strings.Contains(got, "kernel:  before, 6.99 now") || !strings.Contains(got, "seconds of a load") || !strings.Contains(got, "0 of 0") {
		t.Errorf("different runs:\n%s", got)
	}
	var b bytes.Buffer
	if err := CompareJSON(&b, before, after); err != nil {
		t.Fatal(err)
	}
	var back struct{ Warnings []string }
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatalf("%s: %v", b.String(), err)
	}
	want := []string{
		"kernel:  before, 6.99 now", "seconds of a load: 0 before, 3 now",
		"only before: encap-size, 64 B", "only before: gone", "only now: encap-size, 65 B",
	}
	if !slices.Equal(back.Warnings, want) {
		t.Errorf("warnings are %q, want %q", back.Warnings, want)
	}
}

// A device that failed in one of the runs is said; its peers are compared.
func TestCompareWithoutADevice(t *testing.T) {
	before, after := runs("v1", 0.6, 0.5, 4), runs("v2", 0.6, 0.5, 4)
	for n := range after.Experiments[0].Cases[0].Runs {
		if r := &after.Experiments[0].Cases[0].Runs[n]; r.Device == "kernel" {
			r.Values, r.Failed = nil, "no frame arrived"
		}
	}
	got, moved := text(t, before, after)
	if moved || !strings.Contains(got, "note: only before: encap-size, 64 B, kernel\n") || !strings.Contains(got, "0 of 2") {
		t.Errorf("without the kernel:\n%s", got)
	}
}

// What is printed, to the letter: the shift of a tenth is found in six rounds, with
// what it does to the ratio.
func TestCompareText(t *testing.T) {
	got, _ := text(t, runs("v1", 0.6, 0.5, 6), runs("v2", 0.66, 0.5, 6))
	golden(t, "compare.txt", []byte(got))
}
