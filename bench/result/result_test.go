package result

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func example() *Report {
	run := func(device string, round int, mpps float64) Run {
		return Run{Device: device, Round: round, Values: map[string]float64{Mpps: mpps, P50: 10}}
	}
	return &Report{
		Format: Format, Started: time.Unix(1e9, 0).UTC(), Settings: Settings{Set: "quick", Rounds: 2},
		Experiments: []Experiment{{
			Name: "encap-size", Metric: Mpps, Axis: "frame length, bytes",
			Cases: []Case{{Name: "64 B", X: 64, Runs: []Run{
				run("culvert", 1, 2), run("kernel", 1, 1), run("culvert", 2, 3), run("kernel", 2, 2),
				{Device: "ovs-native", Round: 1, Failed: "no frame arrived"},
			}}},
		}},
	}
}

func TestStatistics(t *testing.T) {
	c := &example().Experiments[0].Cases[0]
	if got, want := c.Devices(), []string{"culvert", "kernel", "ovs-native"}; !reflect.DeepEqual(got, want) {
		t.Errorf("devices are %v, want %v", got, want)
	}
	if got, want := c.Spread("culvert", Mpps), (Spread{2.5, 2, 3, 2}); got != want {
		t.Errorf("spread is %v, want %v", got, want)
	}
	if got, want := c.Ratio("culvert", "kernel", Mpps), (Spread{1.75, 1.5, 2, 2}); got != want {
		t.Errorf("ratio is %v, want %v", got, want)
	}
	if got := c.Ratio("culvert", "ovs-native", Mpps); got.N != 0 {
		t.Errorf("a ratio to what failed: %v", got)
	}
	if got := c.Metrics(); len(got) != 2 || got[0].Name != Mpps || got[1].Name != P50 {
		t.Errorf("metrics are %v", got)
	}
	if got := (Spread{2, 1, 3, 3}).Relative(); got != 1 {
		t.Errorf("relative spread is %g, want 1", got)
	}
}

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "results.json")
	want := example()
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"form 99":            func(r *Report) { r.Format = 99 },
		"unknown metric":     func(r *Report) { r.Experiments[0].Metric = "fun" },
		`metric "joy"`:       func(r *Report) { r.Experiments[0].Cases[0].Runs[0].Values["joy"] = 1 },
		"a device and":       func(r *Report) { r.Experiments[0].Cases[0].Runs[0].Device = "" },
		"without a name":     func(r *Report) { r.Experiments[0].Cases[0].Name = "" },
		`experiment "encap-`: func(r *Report) { r.Experiments = append(r.Experiments, r.Experiments[0]) },
	} {
		r := example()
		change(r)
		path := filepath.Join(t.TempDir(), "results.json")
		if err := r.Write(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("half a file: got error %v", err)
	}
}
