package suite

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"culvert/bench/forward"
	"culvert/bench/run"

	"github.com/cespare/xxhash/v2"
)

// Set is how much is measured.
type Set string

// The sets.
const (
	Standard Set = "standard" // some minutes
	Quick    Set = "quick"    // the most important part of it
)

// Options say what the experiments are like.
type Options struct {
	Set Set
	// Bin is the directory of culvertd, culvert and culvert-cni.
	Bin string
	// Builds are directories of other builds of them, by a name for each: they are
	// measured like Culvert itself, as culvert@NAME.
	Builds map[string]string
	// Timing of one load.
	Timing forward.Timing

	costs    costs
	capacity capacities
}

// Check says what makes the options senseless.
func (o *Options) Check() error {
	switch {
	case o.Set != Standard && o.Set != Quick:
		return fmt.Errorf("set %q: must be %s or %s", o.Set, Standard, Quick)
	case o.Timing.Duration < 100*time.Millisecond || o.Timing.Duration > time.Minute:
		return fmt.Errorf("%s of each load: must be 100ms to 1m", o.Timing.Duration)
	case o.Timing.WarmUp < 0 || o.Timing.WarmUp > time.Minute:
		return fmt.Errorf("%s of warm-up: must be 0 to 1m", o.Timing.WarmUp)
	case o.Timing.GeneratorCPU < 0 || o.Timing.GeneratorCPU >= runtime.NumCPU():
		return fmt.Errorf("generator on processor %d: there are %d", o.Timing.GeneratorCPU, runtime.NumCPU())
	case runtime.NumCPU() < 2:
		return fmt.Errorf("this machine has %d processor: the load and what is loaded need one each", runtime.NumCPU())
	}
	return o.Timing.Generator.Check()
}

// quick says that only the most important part is measured.
func (o *Options) quick() bool { return o.Set == Quick }

// entry is an experiment that there is.
type entry struct {
	name  string
	make  func(*Options) run.Experiment
	quick bool // part of the quick set
	extra bool // part of no set: it runs when it is named
	// rounds, if not 0, is how many a set has at most, so that it does not take all day.
	rounds int
}

// Names are those of all experiments, in their order.
func Names() (names []string) {
	for _, e := range entries {
		names = append(names, e.name)
	}
	return names
}

// Experiments are those with the given names, or those of the set without any.
// devices, if there are some, are the devices under test that take part; an
// experiment that has none of them is left out.
func Experiments(o *Options, names, devices []string) (chosen []run.Experiment, err error) {
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("experiment %q is unknown: there are %s", name, strings.Join(Names(), ", "))
		}
	}
	known := make(map[string]bool)
	for _, entry := range entries {
		in := !entry.extra && (!o.quick() || entry.quick)
		if len(names) > 0 {
			in = slices.Contains(names, entry.name)
		}
		if !in {
			continue
		}
		e := entry.make(o)
		if e.Rounds == 0 && len(names) == 0 {
			e.Rounds = entry.rounds
		}
		e.Head.Definition = definition(e.Head.Definition, o.Timing.Generator)
		for _, s := range e.Subjects {
			known[s.Device] = true
		}
		if len(devices) > 0 {
			e.Subjects = slices.DeleteFunc(e.Subjects, func(s run.Subject) bool { return !slices.Contains(devices, s.Device) })
		}
		if len(e.Subjects) > 0 {
			chosen = append(chosen, e)
		}
	}
	for _, d := range devices {
		if !known[d] {
			return nil, fmt.Errorf("device %q is in none of these experiments", d)
		}
	}
	return chosen, nil
}

// definition is a hash of what an experiment's cases are and who makes the load. It
// stays the same from one build to the next.
func definition(cases string, g forward.Generator) string {
	return fmt.Sprintf("%016x", xxhash.Sum64String(cases+"|"+string(g)))
}
