package suite

import (
	"strings"
	"testing"
	"time"

	"culvert/bench/forward"
	"culvert/bench/result"
	"culvert/bench/run"
)

func options(s Set) *Options {
	return &Options{Set: s, Bin: "/nowhere", Timing: forward.Timing{WarmUp: 200 * time.Millisecond, Duration: 800 * time.Millisecond}}
}

// Every experiment has what a reader needs, begins with Culvert, and takes the time
// that the sets promise.
func TestSets(t *testing.T) {
	for set, limits := range map[Set]struct {
		rounds      int
		least, most time.Duration
	}{Standard: {4, 5 * time.Minute, 15 * time.Minute}, Quick: {2, 20 * time.Second, 2 * time.Minute}} {
		o := options(set)
		all, err := Experiments(o, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		takes := time.Duration(0)
		for _, e := range all {
			takes += promised(t, &e, limits.rounds)
		}
		t.Logf("%s: %d experiments, %s", set, len(all), takes)
		if takes < limits.least || takes > limits.most {
			t.Errorf("%s takes %s, want %s to %s", set, takes, limits.least, limits.most)
		}
	}
}

// promised checks an experiment and is how long it says that it takes.
func promised(t *testing.T, e *run.Experiment, rounds int) (takes time.Duration) {
	t.Helper()
	_, known := result.MetricOf(e.Head.Metric)
	if !known || e.Head.Title == "" || len(e.Head.About) < 30 || len(e.Head.Definition) != 16 {
		t.Errorf("%s: metric %q, title %q, definition %q, about %q", e.Head.Name, e.Head.Metric, e.Head.Title, e.Head.Definition, e.Head.About)
	}
	if !strings.HasPrefix(e.Subjects[0].Device, "culvert") {
		t.Errorf("%s begins with %s", e.Head.Name, e.Subjects[0].Device)
	}
	if e.Rounds > 0 {
		rounds = min(rounds, e.Rounds)
	}
	for _, s := range e.Subjects {
		takes += s.Takes * time.Duration(rounds)
	}
	return takes
}

// A definition changes with the load, and with nothing else.
func TestDefinitions(t *testing.T) {
	get := func(o *Options, name string) string {
		all, err := Experiments(o, []string{name}, nil)
		if err != nil || len(all) != 1 || all[0].Head.Name != name {
			t.Fatalf("%s: %d experiments, %v", name, len(all), err)
		}
		return all[0].Head.Definition
	}
	seen := make(map[string]string)
	for _, name := range Names() {
		d := get(options(Standard), name)
		if seen[d] != "" {
			t.Errorf("%s and %s are defined alike", name, seen[d])
		}
		seen[d] = name
	}
	longer := options(Standard)
	longer.Timing.Duration = 9 * time.Second
	if get(longer, "flows") != get(options(Standard), "flows") {
		t.Error("the duration is part of a definition")
	}
	if get(options(Quick), "encap-size") == get(options(Standard), "encap-size") {
		t.Error("two and five lengths are defined alike")
	}
}

func TestChoice(t *testing.T) {
	all, err := Experiments(options(Standard), []string{"flows", "encap-size", "tcp-local"}, []string{"kernel", "kernel-kernel"})
	if err != nil || len(all) != 3 {
		t.Fatalf("%d experiments, %v", len(all), err)
	}
	for _, e := range all {
		if len(e.Subjects) != 1 {
			t.Errorf("%s has %d devices", e.Head.Name, len(e.Subjects))
		}
	}
	if all[0].Head.Name != "encap-size" {
		t.Errorf("%s comes first", all[0].Head.Name)
	}
	o := options(Standard)
	o.Builds = map[string]string{"before": "/elsewhere"}
	all, err = Experiments(o, []string{"encap-size"}, []string{"culvert", "culvert@before"})
	if err != nil || len(all[0].Subjects) != 2 || all[0].Subjects[1].Device != "culvert@before" {
		t.Errorf("another build: %+v, %v", all, err)
	}
	if all[0].Subjects[1].Check() == nil {
		t.Error("programs that are not there can be measured")
	}
}
