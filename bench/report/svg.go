package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"

	"culvert/bench/result"
)

// The size of a chart, in units of its viewBox: small, so that its text can be
// read where it is as wide as a phone, and is no larger than other text where
// three of them are side by side.
const (
	chartWidth  = 400.0
	chartHeight = 300.0
	left        = 54.0 // margins around the plot
	right       = 8.0
	top         = 22.0
	bottom      = 42.0
)

// canvas is an SVG being drawn.
type canvas struct {
	b             strings.Builder
	width, height float64
}

func newCanvas(height float64) *canvas { return &canvas{width: chartWidth, height: height} }

// done closes the SVG. What it says is escaped.
func (c *canvas) done(title string) template.HTML {
	//nolint:gosec // everything that comes from a report passes html.EscapeString
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">%s</svg>`,
		c.width, c.height, html.EscapeString(title), c.b.String()))
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&c.b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

// text writes s at a point: anchor is start, middle or end.
func (c *canvas) text(class, anchor string, x, y float64, s string) {
	fmt.Fprintf(&c.b, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`, class, anchor, x, y, html.EscapeString(s))
}

func (c *canvas) rect(class string, x, y, w, h float64) {
	fmt.Fprintf(&c.b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, class, x, y, max(0, w), h)
}

func (c *canvas) path(class string, points [][2]float64) {
	if len(points) == 0 {
		return
	}
	var d strings.Builder
	for n, p := range points {
		command := 'L'
		if n == 0 {
			command = 'M'
		}
		fmt.Fprintf(&d, "%c%.1f %.1f", command, p[0], p[1])
	}
	fmt.Fprintf(&c.b, `<path class="%s" d="%s"/>`, class, d.String())
}

// marker draws a series' sign: colours alone do not tell all readers apart.
func (c *canvas) marker(series int, x, y float64) {
	fmt.Fprintf(&c.b, `<path class="m s%d" d="%s"/>`, series, markerPath(series, x, y, 4.5))
}

// whisker is a vertical line from least to most.
func (c *canvas) whisker(series int, x, y1, y2 float64) {
	c.line(fmt.Sprintf("w s%d", series), x, y1, x, y2)
}

// markerPath is the outline of a series' sign around a point.
func markerPath(series int, x, y, r float64) string {
	corners := [][2]float64(nil)
	switch series % markers {
	case 0: // a circle, of two arcs
		return fmt.Sprintf("M%.1f %.1fa%.1f %.1f 0 1 0 %.1f 0a%.1f %.1f 0 1 0 %.1f 0z", x-r, y, r, r, 2*r, r, r, -2*r)
	case 1:
		corners = [][2]float64{{-r, -r}, {r, -r}, {r, r}, {-r, r}}
	case 2:
		corners = [][2]float64{{0, -1.2 * r}, {1.2 * r, r}, {-1.2 * r, r}}
	case 3:
		corners = [][2]float64{{0, -1.3 * r}, {1.3 * r, 0}, {0, 1.3 * r}, {-1.3 * r, 0}}
	case 4:
		corners = [][2]float64{{-1.2 * r, -r}, {1.2 * r, -r}, {0, 1.2 * r}}
	case 5: // a plus
		a, b := 0.45*r, 1.25*r
		corners = [][2]float64{{-a, -b}, {a, -b}, {a, -a}, {b, -a}, {b, a}, {a, a}, {a, b}, {-a, b}, {-a, a}, {-b, a}, {-b, -a}, {-a, -a}}
	case 6: // a cross
		a, b := 0.55*r, 1.15*r
		corners = [][2]float64{{0, -a}, {b - a, -b}, {b, a - b}, {a, 0}, {b, b - a}, {b - a, b}, {0, a}, {a - b, b}, {-b, b - a}, {-a, 0}, {-b, a - b}, {a - b, -b}}
	}
	var d strings.Builder
	for n, p := range corners {
		command := 'L'
		if n == 0 {
			command = 'M'
		}
		fmt.Fprintf(&d, "%c%.1f %.1f", command, x+p[0], y+p[1])
	}
	return d.String() + "z"
}

// scale puts values onto an axis from pixel a to pixel b.
type scale struct {
	low, high float64
	log       bool
	a, b      float64
}

func (s *scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		low, high, v = math.Log(low), math.Log(high), math.Log(min(max(v, s.low), s.high))
	}
	if high == low {
		return (s.a + s.b) / 2
	}
	return s.a + (v-low)/(high-low)*(s.b-s.a)
}

// ticks are round values from low to high: by one, two or five times a power of
// ten, about so many; on a logarithmic axis those themselves, and powers of ten
// alone where it is long.
func (s *scale) ticks(about int) (all []float64) {
	if s.log {
		factors := []float64{1, 2, 5}
		if s.high/s.low > 300 {
			factors = []float64{1}
		}
		for power := math.Pow(10, math.Floor(math.Log10(s.low))); power <= s.high; power *= 10 {
			for _, f := range factors {
				if v := f * power; v >= s.low*(1-1e-9) && v <= s.high*(1+1e-9) {
					all = append(all, v)
				}
			}
		}
		return all
	}
	if s.high <= s.low {
		return []float64{s.low}
	}
	step := roundUp((s.high - s.low) / float64(about))
	for n := math.Ceil(s.low/step - 1e-9); n*step <= s.high+step*1e-9; n++ {
		all = append(all, n*step+0) // + 0: the ceiling of a little less than zero is -0
	}
	return all
}

// labels are those values, ascending, whose labels on a horizontal axis do not
// cover the ones before them.
func (s *scale) labels(values []float64) (all []float64) {
	const character = 7.5
	end := math.Inf(-1)
	for _, v := range slices.Sorted(slices.Values(values)) {
		half := character * float64(len(number(v))) / 2
		if s.at(v)-half < end {
			continue
		}
		all, end = append(all, v), s.at(v)+half+8
	}
	return all
}

// roundUp is the least of 1, 2 and 5 times powers of ten that is at least v.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= v*(1-1e-9) {
			return f * power
		}
	}
	return 10 * power
}

// number writes a value as short as it can be read: 1.5, 20 k, 1 M.
func number(v float64) string {
	abs := math.Abs(v)
	switch {
	case abs >= 1e6:
		return trim(v/1e6) + " M"
	case abs >= 1e4:
		return trim(v/1e3) + " k"
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return trim(math.Round(v*10) / 10)
	}
	return trim(math.Round(v*1000) / 1000)
}

func trim(v float64) string {
	s := fmt.Sprintf("%.3f", v)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// value writes a value of a metric with the digits that mean something: of a
// thousand and more those behind the point do not.
func value(m result.Metric, v float64) string {
	digits := m.Digits
	if math.Abs(v) >= 1000 {
		digits = 0
	}
	return fmt.Sprintf("%.*f", digits, v)
}
