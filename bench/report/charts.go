package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"

	"culvert/bench/result"
)

// curve is what a chart over an axis shows of one device.
type curve struct {
	device string
	points []curvePoint
}

type curvePoint struct {
	x float64
	s result.Spread
}

// curves asks for every device's spread in every case, in the order of the axis.
func curves(e *result.Experiment, devices []string, of func(c *result.Case, device string) result.Spread) (all []curve) {
	for _, d := range devices {
		one := curve{device: d}
		for n := range e.Cases {
			if s := of(&e.Cases[n], d); s.N > 0 {
				one.points = append(one.points, curvePoint{e.Cases[n].X, s})
			}
		}
		slices.SortFunc(one.points, func(a, b curvePoint) int { return cmp.Compare(a.x, b.x) })
		all = append(all, one)
	}
	return all
}

// lines draws a metric of all devices over the experiment's axis.
func (p *palette) lines(e *result.Experiment, m result.Metric) template.HTML {
	all := curves(e, e.Devices(), func(c *result.Case, d string) result.Spread { return c.Spread(d, m.Name) })
	y := scale{}
	for _, one := range all {
		for _, q := range one.points {
			y.high = max(y.high, q.s.Max)
		}
	}
	y.high = ceiling(y.high)
	c := newCanvas(chartHeight)
	p.plot(c, e, all, &y, y.ticks(5), m.Title)
	return c.done(fmt.Sprintf("%s: %s over %s", e.Title, m.Title, e.Axis))
}

// ratioLines draws the first device's value divided by every other's over the
// experiment's axis, around 1.
func (p *palette) ratioLines(e *result.Experiment, m result.Metric) template.HTML {
	devices := e.Devices()
	all := curves(e, devices[1:], func(c *result.Case, d string) result.Spread { return c.Ratio(devices[0], d, m.Name) })
	y := aroundOne()
	some := false
	for _, one := range all {
		for _, q := range one.points {
			y.include(q.s)
			some = true
		}
	}
	if !some {
		return ""
	}
	c := newCanvas(chartHeight)
	p.plot(c, e, all, &y, ratioTicks(y.low, y.high), "×")
	c.line("a", left, y.at(1), c.width-right, y.at(1))
	return c.done(fmt.Sprintf("%s: ratios of %s to its peers over %s", e.Title, devices[0], e.Axis))
}

// How far beside each other devices are drawn, so that one's whisker does not hide
// another's.
const apart, mostApart = 3.0, 9.0

// plot draws curves over the experiment's axis.
func (p *palette) plot(c *canvas, e *result.Experiment, all []curve, y *scale, ticks []float64, unit string) {
	y.a, y.b = c.height-bottom, top
	x := scale{low: math.Inf(1), high: math.Inf(-1), log: e.Log, a: left + 16, b: c.width - right - 16}
	var xs []float64
	for n := range e.Cases {
		xs = append(xs, e.Cases[n].X)
		x.low, x.high = min(x.low, e.Cases[n].X), max(x.high, e.Cases[n].X)
	}
	if x.log && x.low <= 0 {
		x.log = false // a logarithm of nothing
	}
	c.frame(&x, y, x.labels(xs), ticks, e.Axis, unit)
	for n, one := range all {
		series := p.of(one.device)
		beside := apart * (float64(n) - float64(len(all)-1)/2)
		var points [][2]float64
		for _, q := range one.points {
			at := x.at(q.x) + max(-mostApart, min(mostApart, beside))
			points = append(points, [2]float64{at, y.at(q.s.Median)})
			c.whisker(series, at, y.at(q.s.Min), y.at(q.s.Max))
		}
		c.path(fmt.Sprintf("l s%d", series), points)
		for _, q := range points {
			c.marker(series, q[0], q[1])
		}
	}
}

// ceiling leaves room above the highest value, up to a round one.
func ceiling(v float64) float64 {
	step := roundUp(max(v, 1e-9) / 5)
	return math.Ceil(v*1.02/step) * step
}

// frame draws the axes of a plot, with their ticks and titles.
func (c *canvas) frame(x, y *scale, xTicks, yTicks []float64, xTitle, unit string) {
	for _, v := range yTicks {
		at := y.at(v)
		c.line("g", left, at, c.width-right, at)
		c.text("t", "end", left-6, at+4, number(v))
	}
	for _, v := range xTicks {
		at := x.at(v)
		c.line("g", at, top, at, c.height-bottom)
		c.text("t", "middle", at, c.height-bottom+17, number(v))
	}
	c.line("a", left, c.height-bottom, c.width-right, c.height-bottom)
	c.text("t", "middle", (left+c.width-right)/2, c.height-6, shorten(xTitle, 48))
	c.text("t u", "start", 4, 12, unit)
}

// aroundOne is an axis of ratios; it takes in more as there is more.
func aroundOne() scale { return scale{low: 0.85, high: 1.18, log: true} }

// leastRatio is where the axis of ratios ends: beyond it is as good as nothing.
const leastRatio, mostRatio = 0.01, 100.0

func (s *scale) include(r result.Spread) {
	s.low = max(leastRatio, min(s.low, r.Min*0.95))
	s.high = min(mostRatio, max(s.high, r.Max*1.05))
}

// ratioTicks are round ratios on both sides of 1, few enough for their labels.
func ratioTicks(low, high float64) (all []float64) {
	candidates := []float64{0.01, 0.1, 1, 10, 100}
	switch r := high / low; {
	case r < 2.2:
		candidates = []float64{0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2}
	case r < 6:
		candidates = []float64{0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4}
	case r < 150:
		candidates = []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100}
	}
	for _, v := range candidates {
		if v >= low && v <= high {
			all = append(all, v)
		}
	}
	return all
}

// shorten cuts a name that has no room.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
