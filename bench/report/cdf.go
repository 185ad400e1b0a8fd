package report

import (
	"fmt"
	"html/template"
	"math"

	"culvert/bench/result"
)

// mostNines is how far up a distribution is drawn: 99.99 %.
const mostNines = 4.0

// cdf draws the distribution of single times: on the upright axis each nine of a
// percentile has the same room.
func (p *palette) cdf(e *result.Experiment, k *result.Case) template.HTML {
	c := newCanvas(chartHeight)
	x := scale{low: math.Inf(1), log: true, a: left + 4, b: c.width - right - 4}
	y := scale{low: 0, high: 2, a: c.height - bottom, b: top}
	devices := k.Devices()
	all := make([][]result.Quantile, len(devices))
	for n, d := range devices {
		all[n] = distribution(k, d)
		for _, q := range all[n] {
			x.low, x.high = min(x.low, q.Micros), max(x.high, q.Micros)
			y.high = max(y.high, nines(q.Q))
		}
	}
	if x.high == 0 {
		return ""
	}
	x.low, x.high = x.low*0.95, x.high*1.05
	for _, tick := range []struct {
		q    float64
		name string
	}{{0, "0"}, {0.5, "50"}, {0.9, "90"}, {0.99, "99"}, {0.999, "99.9"}, {0.9999, "99.99"}} {
		if nines(tick.q) > y.high+0.01 {
			continue
		}
		at := y.at(nines(tick.q))
		c.line("g", left, at, c.width-right, at)
		c.text("t", "end", left-5, at+4, tick.name)
	}
	for _, v := range x.labels(x.ticks(6)) {
		c.line("g", x.at(v), top, x.at(v), c.height-bottom)
		c.text("t", "middle", x.at(v), c.height-bottom+17, number(v))
	}
	c.line("a", left, c.height-bottom, c.width-right, c.height-bottom)
	c.text("t", "middle", (left+c.width-right)/2, c.height-6, "µs, there and back; logarithmic axis")
	c.text("t", "start", 4, 12, "% of answers")
	for n, d := range devices {
		p.ascent(c, &x, &y, p.of(d), all[n])
	}
	return c.done(fmt.Sprintf("%s, %s: distribution of times", e.Title, k.Name))
}

// ascent draws a distribution, with markers where people look.
func (p *palette) ascent(c *canvas, x, y *scale, series int, all []result.Quantile) {
	var points, marks [][2]float64
	for n, q := range all {
		at := [2]float64{x.at(q.Micros), y.at(nines(q.Q))}
		points = append(points, at)
		for _, mark := range []float64{0.5, 0.9, 0.99, 0.999} {
			if n > 0 && all[n-1].Q < mark-1e-9 && q.Q >= mark-1e-9 {
				marks = append(marks, at)
			}
		}
	}
	c.path(fmt.Sprintf("l s%d", series), points)
	for _, at := range marks {
		c.marker(series, at[0], at[1])
	}
}

// distribution is a device's of all rounds: at each quantile the median of what
// the rounds have, up to where all of them have times.
func distribution(k *result.Case, device string) (all []result.Quantile) {
	deepest := mostNines
	var rounds [][]result.Quantile
	for _, r := range k.Runs {
		if r.Device != device || len(r.Latency) == 0 {
			continue
		}
		rounds = append(rounds, r.Latency)
		last := 0.0
		for _, q := range r.Latency {
			if q.Q < 1 { // the slowest of all is one time, not a quantile
				last = max(last, q.Q)
			}
		}
		deepest = min(deepest, nines(last))
	}
	if len(rounds) == 0 {
		return nil
	}
	const each = 0.05 // nines between two points
	for n := 0; float64(n)*each <= deepest+1e-9; n++ {
		q := 1 - math.Pow(10, -float64(n)*each)
		var times []float64
		for _, r := range rounds {
			times = append(times, timeAt(r, q))
		}
		if m := result.SpreadOf(times).Median; m > 0 {
			all = append(all, result.Quantile{Q: q, Micros: m})
		}
	}
	return all
}

// timeAt is the time within which that part of a run's requests was answered.
func timeAt(all []result.Quantile, q float64) float64 {
	for _, x := range all {
		if x.Q >= q-1e-9 {
			return x.Micros
		}
	}
	return all[len(all)-1].Micros
}

// nines is how many nines a quantile has: 1 for 0.9, 2 for 0.99.
func nines(q float64) float64 { return -math.Log10(1 - min(q, 0.9999)) }
