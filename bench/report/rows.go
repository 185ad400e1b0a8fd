package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"culvert/bench/result"
)

// row is a line of a chart with rows: a case's name, or one device in it.
type row struct {
	caption string
	device  string
	spread  result.Spread
}

// rowsOf are the rows of all cases, with what of says of each device; ratios
// leave out the first, which they are about.
func rowsOf(e *result.Experiment, from int, of func(c *result.Case, device string) result.Spread) (rows []row) {
	for n := range e.Cases {
		c := &e.Cases[n]
		rows = append(rows, row{caption: c.Name})
		for _, d := range c.Devices()[min(from, len(c.Devices())):] {
			rows = append(rows, row{device: d, spread: of(c, d)})
		}
	}
	return rows
}

// beyondBars is from how large a factor between medians on bars would hide the
// small ones: then it is markers on a logarithmic axis.
const beyondBars = 25

// bars draws a metric of all devices in each case, where cases are no points of
// an axis.
func (p *palette) bars(e *result.Experiment, m result.Metric) template.HTML {
	rows := rowsOf(e, 0, func(c *result.Case, d string) result.Spread { return c.Spread(d, m.Name) })
	least, most, low := math.Inf(1), 0.0, math.Inf(1)
	for _, r := range rows {
		if r.spread.Median > 0 {
			least, most = min(least, r.spread.Median), max(most, r.spread.Max)
		}
		if r.spread.Min > 0 {
			low = min(low, r.spread.Min)
		}
	}
	x := scale{low: 0, high: ceiling(most)}
	title := m.Title
	if most > beyondBars*least {
		x, title = scale{low: low * 0.9, high: most * 1.1, log: true}, title+", logarithmic axis"
	}
	c := newCanvas(rowsHeight(rows) + axisHeight)
	x.a, x.b = namesWidth(rows), c.width-valueWidth
	c.columns(&x, x.labels(x.ticks(4)), rowsHeight(rows), title)
	p.rows(c, rows, &x, func(r *row) string { return value(m, r.spread.Median) })
	return c.done(fmt.Sprintf("%s: %s", e.Title, m.Title))
}

// ratios draws the first device's value divided by every other's, case by case,
// around 1.
func (p *palette) ratios(e *result.Experiment, m result.Metric) template.HTML {
	first := e.Devices()[0]
	rows := rowsOf(e, 1, func(c *result.Case, d string) result.Spread { return c.Ratio(first, d, m.Name) })
	rows = slices.DeleteFunc(rows, func(r row) bool { return r.caption == "" && r.spread.N == 0 })
	x := aroundOne()
	some := false
	for _, r := range rows {
		if r.spread.N > 0 {
			x.include(r.spread)
			some = true
		}
	}
	if !some {
		return ""
	}
	c := newCanvas(rowsHeight(rows) + axisHeight)
	x.a, x.b = namesWidth(rows), c.width-valueWidth
	c.columns(&x, ratioTicks(x.low, x.high), rowsHeight(rows), shorten(first, 24)+" / peer")
	c.line("a", x.at(1), rowsTop, x.at(1), rowsHeight(rows))
	p.rows(c, rows, &x, func(r *row) string { return fmt.Sprintf("%.2f", r.spread.Median) })
	return c.done(fmt.Sprintf("%s: ratios of %s to its peers", e.Title, first))
}

// Of charts with rows.
const (
	rowsTop       = 4.0
	captionHeight = 27.0 // of a case's name
	rowHeight     = 21.0
	axisHeight    = 40.0 // of ticks and title below rows
	valueWidth    = 64.0 // of the numbers at the right
	nameLength    = 20   // characters of a device's name that have room at the left
)

func rowsHeight(rows []row) float64 {
	h := rowsTop
	for _, r := range rows {
		if r.caption != "" {
			h += captionHeight
		} else {
			h += rowHeight
		}
	}
	return h
}

// namesWidth is how much room the longest device's name takes.
func namesWidth(rows []row) float64 {
	longest := 0
	for _, r := range rows {
		longest = max(longest, len([]rune(shorten(r.device, nameLength))))
	}
	return 24 + 7*float64(longest)
}

// rows draws bars from the axis' beginning; a logarithmic one has none, so there
// it is markers.
func (p *palette) rows(c *canvas, rows []row, x *scale, text func(*row) string) {
	y := rowsTop
	for n := range rows {
		r := &rows[n]
		if r.caption != "" {
			c.text("h", "start", 4, y+19, shorten(r.caption, 24))
			y += captionHeight
			continue
		}
		p.row(c, r, x, y+rowHeight/2, text)
		y += rowHeight
	}
}

func (p *palette) row(c *canvas, r *row, x *scale, middle float64, text func(*row) string) {
	c.text("t", "end", x.a-10, middle+4, shorten(r.device, nameLength))
	if r.spread.N == 0 {
		c.text("t", "end", c.width-4, middle+4, "failed")
		return
	}
	series := p.of(r.device)
	if !x.log {
		c.rect(fmt.Sprintf("b s%d", series), x.at(0), middle-6, x.at(r.spread.Median)-x.at(0), 12)
	}
	c.line(fmt.Sprintf("w s%d", series), x.at(r.spread.Min), middle, x.at(r.spread.Max), middle)
	if x.log {
		c.marker(series, x.at(r.spread.Median), middle)
	}
	c.text("v", "end", c.width-4, middle+4, text(r))
}

// columns draws a horizontal axis at the bottom of rows.
func (c *canvas) columns(x *scale, ticks []float64, height float64, title string) {
	for _, v := range ticks {
		c.line("g", x.at(v), rowsTop, x.at(v), height)
		c.text("t", "middle", x.at(v), height+17, number(v))
	}
	c.text("t", "middle", (x.a+x.b)/2, height+34, title)
}
