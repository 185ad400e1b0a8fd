package tcp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Options say what a run measures.
type Options struct {
	Scenarios   []Scenario
	Connections []int // at the same time, a measurement for each number
	Rounds      int
	Seconds     int // measured, of each turn
	WarmUp      int // seconds before them, which iperf3 leaves out
	// Echoes is the number of pings that each turn begins with, one after the
	// other; 0 for none.
	Echoes int
	// Congestion is the senders' congestion control; empty for the machine's.
	Congestion string
	// Bin is the directory of culvertd and culvert-cni.
	Bin string
	// Patience is how long each turn waits at most for the machine to become
	// quiet. It is measured in any case; the report says how it was.
	Patience time.Duration
	// Progress is told what happens; nil for silence.
	Progress func(format string, args ...any)
}

func (o *Options) check() error {
	switch {
	case len(o.Scenarios) == 0 || len(o.Connections) == 0:
		return errors.New("no scenario or no number of connections")
	case slices.Min(o.Connections) < 1 || slices.Max(o.Connections) > 128:
		return fmt.Errorf("%v connections: 1 to 128 are possible", o.Connections)
	case o.Rounds < 1 || o.Seconds < 1 || o.WarmUp < 0 || o.Echoes < 0:
		return fmt.Errorf("%d rounds of %d s after %d s and %d pings: must be positive", o.Rounds, o.Seconds, o.WarmUp, o.Echoes)
	case o.Seconds > 60 || o.WarmUp > 60:
		return fmt.Errorf("rounds of %d s after %d s: must be a minute at most", o.Seconds, o.WarmUp)
	}
	for _, name := range []string{"iperf3", "ping", "ethtool"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: make deps", err)
		}
	}
	for _, s := range o.Scenarios {
		if err := o.checkScenario(s); err != nil {
			return fmt.Errorf("scenario %s: %w", s.Name, err)
		}
	}
	return nil
}

func (o *Options) checkScenario(s Scenario) error {
	if s.Wire.cut() && o.WarmUp == 0 {
		return errors.New("needs a warm-up: long frames are looked for in it")
	}
	for _, p := range s.Pairs {
		if s.Wire == NoWire && p.From.agent() != p.To.agent() {
			return fmt.Errorf("pair %s: one node has either culvertd or the kernel", p)
		}
		if !p.From.agent() && !p.To.agent() {
			continue
		}
		for _, name := range []string{"culvertd", "culvert-cni"} {
			if _, err := os.Stat(filepath.Join(o.Bin, name)); err != nil {
				return fmt.Errorf("pair %s: %w: make build", p, err)
			}
		}
	}
	return nil
}

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(format, args...)
	}
}
