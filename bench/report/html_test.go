package report

import (
	"bytes"
	"strings"
	"testing"

	"culvert/bench/result"
)

// A run that found nothing, or whose devices all failed, is shown, too, and every
// number in a chart is one.
func TestReportsWithHoles(t *testing.T) {
	failed := result.Run{Device: "culvert", Round: 1, Failed: "no frame arrived"}
	zero := result.Run{Device: "culvert", Round: 1, Values: map[string]float64{result.Mpps: 0, result.NanosPacket: 0}}
	peer := result.Run{Device: "kernel", Round: 1, Values: map[string]float64{result.Mpps: 0.5}}
	for name, e := range map[string]result.Experiment{
		"no cases":    {Missing: []result.Missing{{Device: "ovs-native", Why: "not installed"}}},
		"all failed":  {Axis: "bytes", Log: true, Cases: []result.Case{{Name: "64 B", X: 64, Runs: []result.Run{failed}}}},
		"one failed":  {Axis: "bytes", Log: true, Cases: []result.Case{{Name: "64 B", X: 64, Runs: []result.Run{failed, peer}}}},
		"zero":        {Axis: "flows", Log: true, Cases: []result.Case{{Name: "none", X: 0, Runs: []result.Run{zero, peer}}}},
		"zero, bars":  {Cases: []result.Case{{Name: "a", Runs: []result.Run{zero, peer}}}},
		"only zero":   {Cases: []result.Case{{Name: "a", Runs: []result.Run{zero}}}},
		"peer failed": {Cases: []result.Case{{Name: "a", Runs: []result.Run{peer, failed}}}},
	} {
		t.Run(name, func(t *testing.T) {
			e.Name, e.Title, e.Metric = "hole", "A hole", result.Mpps
			r := &result.Report{Format: result.Format, Experiments: []result.Experiment{e}}
			var b bytes.Buffer
			if err := HTML(&b, r); err != nil {
				t.Fatal(err)
			}
			got := b.String()
			for _, bad := range []string{"NaN", "Inf", "%!"} {
				if strings.Contains(got, bad) {
					t.Errorf("the page has %s:\n%s", bad, got[strings.Index(got, "<main>"):])
				}
			}
			b.Reset()
			if err := Table(&b, r, 80); err != nil || !strings.Contains(b.String(), "A hole") {
				t.Errorf("%v:\n%s", err, b.String())
			}
			said := ""
			if len(e.Missing) > 0 {
				said = e.Missing[0].Why
			} else if strings.Contains(name, "failed") {
				said = failed.Failed
			}
			if !strings.Contains(got, said) || !strings.Contains(b.String(), said) {
				t.Errorf("nothing says %q", said)
			}
		})
	}
	if err := HTML(&bytes.Buffer{}, &result.Report{}); err != nil {
		t.Errorf("an empty report: %v", err)
	}
}
