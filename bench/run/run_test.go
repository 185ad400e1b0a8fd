package run

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/bench/result"
)

// fake is an experiment of two cases, whose turns are noted in log.
func fake(log *[]string, devices ...string) Experiment {
	e := Experiment{Head: result.Experiment{
		Name: "fake-speed", Metric: result.Mpps, Cases: []result.Case{{Name: "small", X: 1}, {Name: "big", X: 2}},
	}}
	for _, d := range devices {
		e.Subjects = append(e.Subjects, Subject{Device: d, Takes: time.Second, Turn: func(_ context.Context, found func(int, Finding)) error {
			*log = append(*log, d)
			for n := range 2 {
				found(n, Finding{Values: map[string]float64{result.Mpps: float64(n + 1)}})
			}
			return nil
		}})
	}
	return e
}

func options(rounds int) Options {
	return Options{Settings: result.Settings{Rounds: rounds}, Version: "v1"}
}

func TestDevicesTakeTurns(t *testing.T) {
	var log []string
	e := fake(&log, "a", "b")
	e.Subjects = append(e.Subjects, Subject{Device: "c", Check: func() error { return errors.New("no c here") }})
	var events []string
	o := options(2)
	o.Progress = func(e Event) {
		events = append(events, fmt.Sprintf("%s %d/%d %s %.0f/%.0f", e.Device, e.Round, e.Rounds, e.Case, e.Done.Seconds(), e.All.Seconds()))
	}
	r, err := Run(context.Background(), o, []Experiment{e})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "a", "b"}; !reflect.DeepEqual(log, want) {
		t.Errorf("turns were %v, want %v", log, want)
	}
	got := r.Experiments[0]
	if want := []result.Missing{{Device: "c", Why: "no c here"}}; !reflect.DeepEqual(got.Missing, want) {
		t.Errorf("missing are %v, want %v", got.Missing, want)
	}
	if v := got.Cases[1].Values("b", result.Mpps); !reflect.DeepEqual(v, []float64{2, 2}) {
		t.Errorf("b's values are %v", v)
	}
	want := []string{
		"a 1/2  0/4", "a 1/2 small 0/4", "a 1/2 big 0/4", "b 1/2  1/4", "b 1/2 small 1/4", "b 1/2 big 1/4",
		"a 2/2  2/4", "a 2/2 small 2/4", "a 2/2 big 2/4", "b 2/2  3/4", "b 2/2 small 3/4", "b 2/2 big 3/4",
	}
	if !reflect.DeepEqual(events, want) {
		t.Errorf("progress was %q, want %q", events, want)
	}
	if e.Head.Cases[0].Runs != nil {
		t.Error("the caller's experiment was changed")
	}
}

// A device that fails costs its own values only.
func TestFailuresAreFindings(t *testing.T) {
	var log []string
	e := fake(&log, "good", "bad", "silent")
	e.Subjects[1].Turn = func(_ context.Context, found func(int, Finding)) error {
		found(0, Finding{Values: map[string]float64{result.Mpps: 1}})
		return errors.New("it broke")
	}
	e.Subjects[2].Turn = func(context.Context, func(int, Finding)) error { return nil }
	r, err := Run(context.Background(), options(1), []Experiment{e})
	if err != nil {
		t.Fatal(err)
	}
	runs := r.Experiments[0].Cases[1].Runs
	if len(runs) != 3 || runs[0].Failed != "" || runs[1].Failed != "it broke" || runs[2].Failed != "not measured" {
		t.Errorf("the second case has %+v", runs)
	}
}

// What goes wrong after the last case is noted.
func TestFailureAfterwards(t *testing.T) {
	var log []string
	e := fake(&log, "a")
	turn := e.Subjects[0].Turn
	e.Subjects[0].Turn = func(ctx context.Context, found func(int, Finding)) error {
		return errors.Join(turn(ctx, found), errors.New("it did not end"))
	}
	r, err := Run(context.Background(), options(1), []Experiment{e})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Experiments[0].Cases[1].Runs[0]; got.Failed != "" || got.Note != "afterwards: it did not end" {
		t.Errorf("the run is %+v", got)
	}
}

// A run that finds nothing fails.
func TestNothingFound(t *testing.T) {
	var log []string
	e := fake(&log, "a")
	e.Subjects[0].Check = func() error { return errors.New("not here") }
	if r, err := Run(context.Background(), options(1), []Experiment{e}); !errors.Is(err, ErrNothing) || r == nil {
		t.Errorf("the run ended with %v", err)
	}
}

// An interrupted run has what was found before, and says why it ended.
func TestInterrupt(t *testing.T) {
	var log []string
	ctx, cancel := context.WithCancelCause(context.Background())
	e := fake(&log, "a", "b")
	stop := errors.New("enough")
	e.Subjects[1].Turn = func(ctx context.Context, _ func(int, Finding)) error {
		cancel(stop)
		return ctx.Err()
	}
	r, err := Run(ctx, options(3), []Experiment{e})
	if !errors.Is(err, stop) || !strings.Contains(err.Error(), "fake-speed") {
		t.Errorf("the run ended with %v", err)
	}
	if got := r.Experiments[0].Cases[0].Runs; len(got) != 1 || got[0].Device != "a" {
		t.Errorf("the report has %+v", got)
	}
}

func TestRoundsOfWhatTakesLong(t *testing.T) {
	var log []string
	e := fake(&log, "a")
	e.Rounds = 2
	if _, err := Run(context.Background(), options(5), []Experiment{e}); err != nil || len(log) != 2 {
		t.Errorf("%d turns, %v", len(log), err)
	}
}

func TestRefusals(t *testing.T) {
	var log []string
	for want, change := range map[string]func(*Options, *Experiment){
		"0 rounds":        func(o *Options, _ *Experiment) { o.Settings.Rounds = 0 },
		"small letters":   func(_ *Options, e *Experiment) { e.Head.Name = "Fake Speed" },
		"unknown metric":  func(_ *Options, e *Experiment) { e.Head.Metric = "fun" },
		"no device or":    func(_ *Options, e *Experiment) { e.Subjects = nil },
		`case "small"`:    func(_ *Options, e *Experiment) { e.Head.Cases[1].Name = "small" },
		`device "a" has`:  func(_ *Options, e *Experiment) { e.Subjects[1].Device = "a" },
		"no name of its ": func(_ *Options, e *Experiment) { e.Subjects[1].Device = "" },
	} {
		o, e := options(1), fake(&log, "a", "b")
		change(&o, &e)
		if _, err := Run(context.Background(), o, []Experiment{e}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v", want, err)
		}
	}
	if _, err := Run(context.Background(), options(1), nil); err == nil {
		t.Error("no experiment: accepted")
	}
	e := fake(&log, "a")
	if _, err := Run(context.Background(), options(1), []Experiment{e, e}); err == nil {
		t.Error("an experiment twice: accepted")
	}
	if len(log) > 0 {
		t.Errorf("turns were taken: %v", log)
	}
}
