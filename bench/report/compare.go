package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"culvert/bench/result"

	"golang.org/x/perf/benchmath"
)

// Change is one value in two runs.
type Change struct {
	Experiment string `json:"experiment"`
	Case       string `json:"case"`
	Device     string `json:"device"`
	// To is the device that Device's values are divided by, round by round; empty
	// for the values themselves.
	To     string  `json:"to,omitempty"`
	Metric string  `json:"metric"`
	Old    float64 `json:"old"` // medians
	New    float64 `json:"new"`
	// P is how probable such a difference is if nothing has changed (Mann-Whitney U
	// test); Moved says that it is less than 0.05.
	P      float64 `json:"p"`
	Moved  bool    `json:"moved"`
	Better bool    `json:"better"` // it moved to the better
	Rounds [2]int  `json:"rounds"` // of the old and the new run
}

// Percent is the change of the median.
func (c *Change) Percent() float64 {
	if c.Old == 0 {
		return 0
	}
	return 100 * (c.New - c.Old) / c.Old
}

// fewestRounds is with how many rounds in both runs a difference can be beyond
// chance at all: of three by three, the least probable order has p = 0.1.
const fewestRounds = 4

// compared are the metrics that say how good a device is, besides an experiment's
// own.
var compared = []string{result.NanosPacket, result.Memory, result.P50, result.P99}

// Changes compares all that both runs have.
func Changes(before, after *result.Report) (all []Change) {
	for n := range before.Experiments {
		e := &before.Experiments[n]
		k := slices.IndexFunc(after.Experiments, func(x result.Experiment) bool { return x.Name == e.Name })
		if k < 0 {
			continue
		}
		for n := range e.Cases {
			c := &e.Cases[n]
			later := after.Experiments[k].Cases
			at := slices.IndexFunc(later, func(x result.Case) bool { return x.Name == c.Name })
			if at >= 0 {
				all = append(all, caseChanges(e, c, &later[at])...)
			}
		}
	}
	return all
}

func caseChanges(e *result.Experiment, before, after *result.Case) (all []Change) {
	metrics := append([]string{e.Metric}, slices.DeleteFunc(slices.Clone(compared), func(m string) bool { return m == e.Metric })...)
	devices := before.Devices()
	for n, d := range devices {
		for _, m := range metrics {
			c := Change{Experiment: e.Name, Case: before.Name, Device: d, Metric: m}
			if c.fill(before.Values(d, m), after.Values(d, m)) {
				all = append(all, c)
			}
		}
		if n == 0 {
			continue
		}
		c := Change{Experiment: e.Name, Case: before.Name, Device: devices[0], To: d, Metric: e.Metric}
		if c.fill(before.Ratios(devices[0], d, e.Metric), after.Ratios(devices[0], d, e.Metric)) {
			all = append(all, c)
		}
	}
	return all
}

// fill compares the values of the rounds. It reports false when one of the runs
// has none.
func (c *Change) fill(before, after []float64) bool {
	if len(before) == 0 || len(after) == 0 {
		return false
	}
	c.Old, c.New = result.SpreadOf(before).Median, result.SpreadOf(after).Median
	c.Rounds = [2]int{len(before), len(after)}
	t := benchmath.DefaultThresholds
	test := benchmath.AssumeNothing.Compare(benchmath.NewSample(slices.Clone(before), &t), benchmath.NewSample(slices.Clone(after), &t))
	c.P = test.P
	c.Moved = test.P < test.Alpha && c.Old != c.New && min(len(before), len(after)) >= fewestRounds
	m, _ := result.MetricOf(c.Metric)
	c.Better = c.Moved && (c.New > c.Old) != m.Lower
	return true
}

// Warnings say what makes two runs hard to compare.
func Warnings(before, after *result.Report) (all []string) {
	differ := func(what string, a, b any) {
		if a != b {
			all = append(all, fmt.Sprintf("%s: %v before, %v now", what, a, b))
		}
	}
	differ("kernel", before.Machine.Kernel, after.Machine.Kernel)
	differ("processor", before.Machine.Processor, after.Machine.Processor)
	differ("cores", before.Machine.Cores, after.Machine.Cores)
	differ("seconds of a load", before.Settings.Seconds, after.Settings.Seconds)
	differ("generator", before.Settings.Generator, after.Settings.Generator)
	differ("warm-up", before.Settings.WarmUp, after.Settings.WarmUp)
	if n := min(before.Settings.Rounds, after.Settings.Rounds); n < fewestRounds {
		all = append(all, fmt.Sprintf("%d rounds are too few for a difference to be beyond chance: it takes %d in both runs", n, fewestRounds))
	}
	for _, e := range before.Experiments {
		k := slices.IndexFunc(after.Experiments, func(x result.Experiment) bool { return x.Name == e.Name })
		if k >= 0 && after.Experiments[k].Definition != e.Definition {
			all = append(all, fmt.Sprintf("%s is another experiment than before: its load has changed", e.Name))
		}
	}
	all = append(all, missing("before", before, after)...)
	return append(all, missing("now", after, before)...)
}

// missing says what only one of two runs has; of what is missing whole, not its
// parts.
func missing(when string, has, lacks *result.Report) (all []string) {
	for n := range has.Experiments {
		e := &has.Experiments[n]
		k := slices.IndexFunc(lacks.Experiments, func(x result.Experiment) bool { return x.Name == e.Name })
		if k < 0 {
			all = append(all, fmt.Sprintf("only %s: %s", when, e.Name))
			continue
		}
		for n := range e.Cases {
			c := &e.Cases[n]
			cases := lacks.Experiments[k].Cases
			at := slices.IndexFunc(cases, func(x result.Case) bool { return x.Name == c.Name })
			if at < 0 {
				all = append(all, fmt.Sprintf("only %s: %s, %s", when, e.Name, c.Name))
				continue
			}
			for _, d := range c.Devices() {
				if len(c.Values(d, e.Metric)) > 0 && len(cases[at].Values(d, e.Metric)) == 0 {
					all = append(all, fmt.Sprintf("only %s: %s, %s, %s", when, e.Name, c.Name, d))
				}
			}
		}
	}
	return all
}

// Compare writes what moved between two runs, and every experiment's own metric
// in any case. It reports whether something moved.
func Compare(w io.Writer, before, after *result.Report) (moved bool, err error) {
	for _, text := range Warnings(before, after) {
		if _, err := fmt.Fprintf(w, "note: %s\n", printable(text)); err != nil {
			return false, err
		}
	}
	changes := Changes(before, after)
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\t\t\t%s\t%s\t\t\t\n", printable(before.Version), printable(after.Version))
	count, last := 0, ""
	for _, c := range changes {
		if c.Moved {
			count++
		}
		if !c.Moved && (c.To == "" && c.Metric != ownMetric(before, c.Experiment)) {
			continue
		}
		if c.Experiment != last {
			fmt.Fprintf(t, "%s\t\t\t\t\t\t\t\n", printable(c.Experiment))
			last = c.Experiment
		}
		fmt.Fprint(t, changeRow(&c))
	}
	_ = t.Flush() // into memory
	for line := range strings.Lines(table.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return false, err
		}
	}
	_, err = fmt.Fprintf(w, "\n%d of %d values moved beyond chance (p < 0.05); by chance alone it would be about %.0f\n",
		count, len(changes), 0.05*float64(len(changes)))
	return count > 0, err
}

func ownMetric(r *result.Report, experiment string) string {
	n := slices.IndexFunc(r.Experiments, func(e result.Experiment) bool { return e.Name == experiment })
	return r.Experiments[n].Metric
}

// changeRow is a line of the table.
func changeRow(c *Change) string {
	m, _ := result.MetricOf(c.Metric)
	what, digits := m.Title, m.Digits
	device := c.Device
	if c.To != "" {
		what, digits = m.Title+", ratio", 2
		device += " / " + c.To
	}
	verdict := "~"
	if c.Moved {
		verdict = fmt.Sprintf("%+.1f%% worse", c.Percent())
		if c.Better {
			verdict = fmt.Sprintf("%+.1f%% better", c.Percent())
		}
	}
	return fmt.Sprintf("  %s\t%s\t%s\t%.*f\t%.*f\t%s\tp=%.3f n=%d+%d\t\n", printable(c.Case), printable(device), what,
		digits, c.Old, digits, c.New, verdict, c.P, c.Rounds[0], c.Rounds[1])
}

// CompareJSON writes everything that both runs have.
func CompareJSON(w io.Writer, before, after *result.Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(struct {
		Warnings []string `json:"warnings"`
		Changes  []Change `json:"changes"`
	}{Warnings(before, after), Changes(before, after)})
}
