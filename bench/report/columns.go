package report

import (
	"fmt"
	"slices"

	"culvert/bench/result"
)

// column is one of an experiment's table, with a cell for each case and device.
type column struct {
	head   string
	metric string // whose medians it has, if it has
	left   bool   // names; numbers are at the right
	cells  []string
}

// lessNeeded are metrics in the order in which their columns make room.
var lessNeeded = []string{
	result.CoresBusy, result.Offered, result.DeviceCores, result.Gbits, result.Retransmits, result.P999,
	result.Transactions, result.Loss, result.Memory,
}

// rangeHead is above least and most.
const rangeHead = "min–max"

// tabulate has the columns of an experiment: its own metric with its range, the
// ratio of the first device to each other, and the medians of all other metrics.
func tabulate(e *result.Experiment) []column {
	own, _ := result.MetricOf(e.Metric)
	all := []column{
		{head: "", left: true, cells: caseCells(e)},
		{head: "", left: true, cells: cells(e, func(_ *result.Case, device string) string { return printable(device) })},
		{head: own.Title, cells: cells(e, func(c *result.Case, device string) string {
			if s := c.Spread(device, own.Name); s.N > 0 {
				return value(own, s.Median)
			}
			return "failed"
		})},
		{head: rangeHead, cells: cells(e, func(c *result.Case, device string) string {
			if s := c.Spread(device, own.Name); s.N > 0 {
				return value(own, s.Min) + "–" + value(own, s.Max)
			}
			return ""
		})},
	}
	if devices := e.Devices(); len(devices) > 1 {
		all = append(all, column{head: printable(shorten(devices[0], 16)) + " / it", cells: cells(e, func(c *result.Case, device string) string {
			return ratio(c.Ratio(devices[0], device, own.Name), device == devices[0])
		})})
	}
	for _, m := range othersOf(e, own) {
		all = append(all, column{head: m.Title, metric: m.Name, cells: cells(e, func(c *result.Case, device string) string {
			if s := c.Spread(device, m.Name); s.N > 0 {
				return value(m, s.Median)
			}
			return ""
		})})
	}
	return all
}

// dispensable is the place of the column that makes room first, -1 when all are
// needed.
func dispensable(columns []column) int {
	for _, name := range lessNeeded {
		if n := slices.IndexFunc(columns, func(c column) bool { return c.metric == name }); n >= 0 {
			return n
		}
	}
	return slices.IndexFunc(columns, func(c column) bool { return c.metric != "" || c.head == rangeHead })
}

// cells asks for the text of every case and device.
func cells(e *result.Experiment, of func(c *result.Case, device string) string) (all []string) {
	for n := range e.Cases {
		for _, device := range e.Cases[n].Devices() {
			all = append(all, of(&e.Cases[n], device))
		}
	}
	return all
}

// caseCells are the cases' names, in the rows of their first devices.
func caseCells(e *result.Experiment) (all []string) {
	for n := range e.Cases {
		c := &e.Cases[n]
		for k := range c.Devices() {
			name := ""
			if k == 0 {
				name = printable(c.Name)
			}
			all = append(all, name)
		}
	}
	return all
}

// othersOf are the experiment's metrics besides its own.
func othersOf(e *result.Experiment, own result.Metric) (all []result.Metric) {
	for _, m := range result.Metrics {
		if m != own && has(e, m) {
			all = append(all, m)
		}
	}
	return all
}

func has(e *result.Experiment, m result.Metric) bool {
	return slices.ContainsFunc(e.Cases, func(c result.Case) bool { return slices.Contains(c.Metrics(), m) })
}

// ratio is the median over the rounds, with the least and the most.
func ratio(s result.Spread, itself bool) string {
	if itself || s.N == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}
