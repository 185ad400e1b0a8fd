package result

import (
	"slices"

	"culvert/bench/sample"
)

// Spread is a value over all rounds.
type Spread struct {
	Median, Min, Max float64
	N                int // how many rounds it is of
}

// SpreadOf summarises values; of none it is the zero Spread.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	return Spread{sample.Median(values), slices.Min(values), slices.Max(values), len(values)}
}

// Relative is the width of the spread as a part of its median; 0 without one.
func (s Spread) Relative() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / s.Median
}

// Devices are the names of all that ran, in the order of their turns.
func (c *Case) Devices() (names []string) {
	for _, r := range c.Runs {
		if !slices.Contains(names, r.Device) {
			names = append(names, r.Device)
		}
	}
	return names
}

// Devices are the names of all that ran in some case, in the order of their
// turns.
func (e *Experiment) Devices() (names []string) {
	for _, c := range e.Cases {
		for _, name := range c.Devices() {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Values are a device's values of a metric, one for each round that has one, in
// the order of rounds.
func (c *Case) Values(device, metric string) (values []float64) {
	for _, r := range c.Runs {
		if v, ok := r.Values[metric]; ok && r.Device == device {
			values = append(values, v)
		}
	}
	return values
}

// Metrics are those that some run of the case has, in the order of columns.
func (c *Case) Metrics() (all []Metric) {
	for _, m := range Metrics {
		if slices.ContainsFunc(c.Runs, func(r Run) bool {
			_, ok := r.Values[m.Name]
			return ok
		}) {
			all = append(all, m)
		}
	}
	return all
}

// Spread summarises a device's values of a metric.
func (c *Case) Spread(device, metric string) Spread { return SpreadOf(c.Values(device, metric)) }

// Ratios are device's values divided by other's, over the rounds that both have.
func (c *Case) Ratios(device, other, metric string) (all []float64) {
	base := make(map[int]float64)
	for _, r := range c.Runs {
		if v, ok := r.Values[metric]; ok && r.Device == other && v > 0 {
			base[r.Round] = v
		}
	}
	for _, r := range c.Runs {
		if v, ok := r.Values[metric]; ok && r.Device == device && base[r.Round] > 0 {
			all = append(all, v/base[r.Round])
		}
	}
	return all
}

// Ratio summarises them.
func (c *Case) Ratio(device, other, metric string) Spread {
	return SpreadOf(c.Ratios(device, other, metric))
}
