package run

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"culvert/bench/result"
)

// Experiment is one question asked of several devices under test.
type Experiment struct {
	// Head has everything of the experiment's result but runs: its name and texts,
	// its metric, and its cases in their order.
	Head result.Experiment
	// Subjects in the order of their turns; all others are compared with the first.
	Subjects []Subject
	// Rounds, if not 0, is how many there are at most, for what takes long.
	Rounds int
}

// Subject is a device under test in an experiment.
type Subject struct {
	Device string
	// Check says what this machine lacks for it; nil checks nothing.
	Check func() error
	// Turn builds the device, measures it in every case in their order, gives what
	// it finds to found, and takes the device down, also when ctx ends. A case that
	// the device cannot serve is found with Failed; an error ends the turn, and the
	// cases that are left failed by it.
	Turn func(ctx context.Context, found func(caseIndex int, f Finding)) error
	// Takes is about how long a turn takes, for the progress display.
	Takes time.Duration
}

// Finding is what a turn found in one case: see result.Run.
type Finding struct {
	Note    string
	Values  map[string]float64
	Latency []result.Quantile
	Failed  string
}

// name is what names of experiments are made of.
var name = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func (e *Experiment) check() error {
	if !name.MatchString(e.Head.Name) {
		return fmt.Errorf("experiment %q: a name is of small letters, digits and hyphens", e.Head.Name)
	}
	if err := e.checkParts(); err != nil {
		return fmt.Errorf("experiment %s: %w", e.Head.Name, err)
	}
	return nil
}

func (e *Experiment) checkParts() error {
	if _, ok := result.MetricOf(e.Head.Metric); !ok {
		return fmt.Errorf("unknown metric %q", e.Head.Metric)
	}
	if len(e.Subjects) == 0 || len(e.Head.Cases) == 0 {
		return errors.New("no device or no case")
	}
	seen := make(map[string]bool)
	for _, c := range e.Head.Cases {
		if c.Name == "" || seen[c.Name] {
			return fmt.Errorf("case %q has no name of its own", c.Name)
		}
		seen[c.Name] = true
	}
	clear(seen)
	for _, s := range e.Subjects {
		if s.Device == "" || seen[s.Device] {
			return fmt.Errorf("device %q has no name of its own", s.Device)
		}
		seen[s.Device] = true
	}
	return nil
}

// rounds is how many of the run's rounds the experiment takes part in.
func (e *Experiment) rounds(all int) int {
	if e.Rounds > 0 {
		return min(e.Rounds, all)
	}
	return all
}
