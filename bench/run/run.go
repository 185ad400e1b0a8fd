package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"culvert/bench/result"
	"culvert/bench/sample"
)

// Options say how experiments are carried out.
type Options struct {
	// Settings become part of the report. Rounds of them is how often every device
	// takes its turn.
	Settings result.Settings
	// Version of Culvert.
	Version string
	// Patience is how long each turn waits at most for the machine to become quiet.
	// It is taken in any case; the report says how it was.
	Patience time.Duration
	// Progress is told what happens; nil for silence. It is called from the
	// goroutine of Run.
	Progress func(Event)
}

// Event is a turn that begins, or what it found in one case.
type Event struct {
	Experiment, Device, Case string // Case is empty when the turn begins
	Metric                   result.Metric
	Round, Rounds            int
	Finding                  Finding
	// Done of All is about how much of the run is over; Left about how long it
	// still takes, 0 while nobody knows.
	Done, All, Left time.Duration
}

// Run carries out experiments one after the other. It goes on when a device fails,
// which the report tells, and stops when ctx ends: then the report has what was
// found so far, and the error says why. Nothing is left behind in any case.
func Run(ctx context.Context, o Options, experiments []Experiment) (*result.Report, error) {
	r := &runner{Options: o, began: time.Now(), report: &result.Report{
		Format: result.Format, Started: time.Now().UTC().Truncate(time.Second),
		Version: o.Version, Machine: sample.ThisMachine(), Settings: o.Settings,
	}}
	if err := r.prepare(experiments); err != nil {
		return nil, err
	}
	defer func() { r.report.Seconds = time.Since(r.began).Seconds() }()
	for n := range r.left {
		e := &r.left[n]
		r.report.Experiments = append(r.report.Experiments, e.Head)
		if err := r.experiment(ctx, e, &r.report.Experiments[n]); err != nil {
			return r.report, fmt.Errorf("%s: %w", e.Head.Name, err)
		}
	}
	if !r.found {
		return r.report, ErrNothing
	}
	return r.report, nil
}

// ErrNothing says that no device did its work in any case.
var ErrNothing = errors.New("nothing could be measured: the report says why")

// runner is a run under way.
type runner struct {
	Options
	began  time.Time
	report *result.Report
	left   []Experiment // with the devices that can run here
	done   time.Duration
	all    time.Duration
	found  bool // something was measured
}

// prepare checks everything before anything runs.
func (r *runner) prepare(experiments []Experiment) error {
	if r.Settings.Rounds < 1 {
		return fmt.Errorf("%d rounds: must be 1 or more", r.Settings.Rounds)
	}
	if len(experiments) == 0 {
		return errors.New("no experiment to carry out")
	}
	seen := make(map[string]bool)
	for _, e := range experiments {
		if err := e.check(); err != nil {
			return err
		}
		if seen[e.Head.Name] {
			return fmt.Errorf("experiment %s is there twice", e.Head.Name)
		}
		seen[e.Head.Name] = true
		e.Head.Cases = slices.Clone(e.Head.Cases) // runs are added to them
		var able []Subject
		for _, s := range e.Subjects {
			if err := checkSubject(s); err != nil {
				e.Head.Missing = append(e.Head.Missing, result.Missing{Device: s.Device, Why: err.Error()})
				continue
			}
			able = append(able, s)
			r.all += s.Takes * time.Duration(e.rounds(r.Settings.Rounds))
		}
		e.Subjects = able
		r.left = append(r.left, e)
	}
	return nil
}

func checkSubject(s Subject) error {
	if s.Check == nil {
		return nil
	}
	return s.Check()
}

// experiment takes all devices through all rounds.
func (r *runner) experiment(ctx context.Context, e *Experiment, into *result.Experiment) error {
	for round := 1; round <= e.rounds(r.Settings.Rounds); round++ {
		for _, s := range e.Subjects {
			if err := r.turn(ctx, e, s, round, into); err != nil {
				return err
			}
			r.done += s.Takes
		}
	}
	return nil
}

// turn is one device's part of a round. Its error is that of ctx.
func (r *runner) turn(ctx context.Context, e *Experiment, s Subject, round int, into *result.Experiment) error {
	event := Event{Experiment: e.Head.Name, Device: s.Device, Round: round, Rounds: e.rounds(r.Settings.Rounds)}
	event.Metric, _ = result.MetricOf(e.Head.Metric) // checked before
	r.tell(event)
	busy, err := sample.AwaitQuiet(ctx, r.Patience)
	if err != nil {
		return err
	}
	missing := make(map[int]bool)
	for n := range into.Cases {
		missing[n] = true
	}
	add := func(n int, f Finding) {
		delete(missing, n)
		r.found = r.found || f.Failed == ""
		into.Cases[n].Runs = append(into.Cases[n].Runs, result.Run{
			Device: s.Device, Round: round, Background: busy,
			Note: f.Note, Values: f.Values, Latency: f.Latency, Failed: f.Failed,
		})
		event.Case, event.Finding = into.Cases[n].Name, f
		r.tell(event)
	}
	err = s.Turn(ctx, add)
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), onlyOthers(ctx, err))
	}
	if err != nil && len(missing) == 0 {
		r.spoil(into, s.Device, round, err)
	}
	for n := range into.Cases {
		switch {
		case !missing[n]:
		case err != nil:
			add(n, Finding{Failed: err.Error()})
		default:
			add(n, Finding{Failed: "not measured"})
		}
	}
	return nil
}

// onlyOthers is err, unless it says no more than that ctx has ended.
func onlyOthers(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// spoil notes that a turn failed after its last case, as when a device ended by itself or
// could not be taken down: in the notes, since the values were measured before.
func (r *runner) spoil(into *result.Experiment, device string, round int, err error) {
	for n := range into.Cases {
		for k := range into.Cases[n].Runs {
			if run := &into.Cases[n].Runs[k]; run.Device == device && run.Round == round {
				run.Note = strings.TrimPrefix(run.Note+", afterwards: "+err.Error(), ", ")
			}
		}
	}
}

// tell fills in how far the run is.
func (r *runner) tell(e Event) {
	if r.Progress == nil {
		return
	}
	e.Done, e.All = r.done, r.all
	if r.done > 0 {
		// What it took so far, against what it was thought to take, tells of the rest.
		e.Left = time.Duration(float64(time.Since(r.began)) / float64(r.done) * float64(r.all-r.done))
	}
	r.Progress(e)
}
