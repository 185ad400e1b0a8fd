package rr

import (
	"fmt"
	"slices"
	"time"

	"culvert/bench/result"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a run found. Times are in microseconds.
type Result struct {
	Count     uint64  // requests answered, or connections used, that began in Options.Duration
	PerSecond float64 // of them
	// Lost is how many UDP requests, or their answers, did not arrive and were sent
	// again. The time of such a request begins with its first sending.
	Lost                      uint64
	Mean, P50, P99, P999, Max float64
	// Latency is the distribution, at some 60 points that are closer to each other
	// the closer they are to 1.
	Latency []result.Quantile
}

// Values are the result by the names of result.Metrics. The count's name is
// result.Transactions or result.Connections.
func (r *Result) Values(count string) map[string]float64 {
	return map[string]float64{count: r.PerSecond, result.P50: r.P50, result.P99: r.P99, result.P999: r.P999}
}

// Bounds of what is told apart: times of up to half a minute, to three digits.
// What takes longer was given up, or counts as the longest.
const (
	longest = 30 * time.Second
	digits  = 3
)

// recorder keeps the times of one connection. Only its client's thread uses it
// until that ends.
type recorder struct {
	times *hdrhistogram.Histogram
	lost  uint64
}

func newRecorder() *recorder {
	return &recorder{times: hdrhistogram.New(1, int64(longest), digits)}
}

// note keeps a time. It allocates nothing.
func (r *recorder) note(d time.Duration) {
	_ = r.times.RecordValue(int64(min(max(d, 0), longest))) // always in its range
}

// summarize makes one result of all connections'.
func summarize(all []*recorder, duration time.Duration) (Result, error) {
	sum := newRecorder()
	for _, r := range all {
		sum.times.Merge(r.times)
		sum.lost += r.lost
	}
	h := sum.times
	if h.TotalCount() == 0 {
		return Result{}, fmt.Errorf("nothing began and ended within %s: measure longer, or at a higher rate", duration)
	}
	micros := func(nanos int64) float64 { return float64(nanos) / 1e3 }
	r := Result{
		Count: uint64(h.TotalCount()), PerSecond: float64(h.TotalCount()) / duration.Seconds(), Lost: sum.lost,
		Mean: h.Mean() / 1e3, P50: micros(h.ValueAtPercentile(50)), P99: micros(h.ValueAtPercentile(99)),
		P999: micros(h.ValueAtPercentile(99.9)), Max: micros(h.Max()),
	}
	for _, q := range quantiles(h.TotalCount()) {
		r.Latency = append(r.Latency, result.Quantile{Q: q, Micros: micros(h.ValueAtPercentile(100 * q))})
	}
	return r, nil
}

// quantiles are the points of a distribution of n times: four in each half of
// what is left up to 1, those that people ask for, and the ends. Those that less
// than one of the n lies beyond say nothing.
func quantiles(n int64) []float64 {
	all := []float64{0.9, 0.99, 0.999, 0.9999, 0.99999}
	for rest := 1.0; rest > 1e-5; rest /= 2 {
		for part := range 4 {
			all = append(all, 1-rest*(1-float64(part)/8))
		}
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(q float64) bool { return (1-q)*float64(n) < 1 })
	return append(all, 1)
}
