package report

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"culvert/bench/result"
)

func TestTicks(t *testing.T) {
	for _, test := range []struct {
		s     scale
		about int
		want  string
	}{
		{scale{low: 0, high: 0.8}, 5, "[0 0.2 0.4 0.6 0.8]"},
		{scale{low: 0, high: 3000}, 5, "[0 1000 2000 3000]"},
		{scale{low: -1, high: 1}, 4, "[-1 -0.5 0 0.5 1]"},
		{scale{low: 7, high: 7}, 4, "[7]"},
		{scale{low: 30, high: 600, log: true}, 5, "[50 100 200 500]"},
		{scale{low: 40, high: 200_000, log: true}, 5, "[100 1000 10 k 100 k]"},
	} {
		var got []string
		for _, v := range test.s.ticks(test.about) {
			got = append(got, number(v))
		}
		if fmt.Sprint(got) != test.want {
			t.Errorf("%v: ticks are %v, want %s", test.s, got, test.want)
		}
	}
	s := scale{low: 64, high: 1464, log: true, a: 0, b: 300}
	if got := s.labels([]float64{1464, 64, 65, 512}); !slices.Equal(got, []float64{64, 512, 1464}) {
		t.Errorf("labels that do not cover each other are %v", got)
	}
	for _, v := range []float64{0, 1, 1e9} { // what is beyond ends at the axis' end
		if at := s.at(v); at < 0 || at > 300 || math.IsNaN(at) {
			t.Errorf("%g is at %g", v, at)
		}
	}
}

// Devices that meet have different colours, the known ones always the same, and no
// two the same colour and marker.
func TestPalette(t *testing.T) {
	var r result.Report
	add := func(devices ...string) {
		c := result.Case{Name: "1"}
		for _, d := range devices {
			c.Runs = append(c.Runs, result.Run{Device: d, Round: 1})
		}
		r.Experiments = append(r.Experiments, result.Experiment{Name: fmt.Sprint(len(r.Experiments)), Cases: []result.Case{c}})
	}
	add("culvert", "a", "b", "c", "d", "e", "f", "g")
	add("h", "culvert-culvert", "kernel-kernel", "tap-tap", "tap")
	add("i", "j", "k", "l", "kernel")
	p := newPalette(&r)
	for n := range r.Experiments {
		colour := make(map[int]string)
		for _, d := range r.Experiments[n].Devices() {
			series := p.of(d)
			if other, taken := colour[series%colours]; series < 0 || taken && other != same(d) {
				t.Errorf("%s and %s have the same colour", d, other)
			}
			colour[series%colours] = same(d)
		}
	}
	if p.of("culvert") != 0 || p.of("kernel-kernel") != 1 || p.of("nobody") != -1 {
		t.Errorf("culvert has %d, kernel %d, nobody %d", p.of("culvert"), p.of("kernel-kernel"), p.of("nobody"))
	}
	seen := make(map[string]bool)
	for n := range allSeries {
		look := fmt.Sprint(n%colours, markerPath(n, 0, 0, 1))
		if seen[look] {
			t.Errorf("series %d looks like another", n)
		}
		seen[look] = true
	}
	var many []string // more than there are series
	for n := range 2 * allSeries {
		many = append(many, fmt.Sprintf("device%d", n))
	}
	add(many...)
	p = newPalette(&r)
	for _, d := range many {
		if s := p.of(d); s < 0 || s >= allSeries {
			t.Errorf("%s has series %d", d, s)
		}
	}
}

// A curve is the median of the rounds, up to where all of them have times; the
// slowest single time is not of it.
func TestDistribution(t *testing.T) {
	c := result.Case{Name: "idle"}
	for round, base := range []float64{10, 20, 90} {
		c.Runs = append(c.Runs, result.Run{Device: "d", Round: round + 1, Latency: []result.Quantile{
			{Q: 0, Micros: base}, {Q: 0.5, Micros: 2 * base}, {Q: 0.9, Micros: 3 * base}, {Q: 0.99, Micros: 4 * base}, {Q: 1, Micros: 1e6},
		}})
	}
	got := distribution(&c, "d")
	if first := got[0]; first.Q != 0 || first.Micros != 20 {
		t.Errorf("begins with %v", first)
	}
	if last := got[len(got)-1]; math.Abs(last.Q-0.99) > 1e-9 || last.Micros != 80 {
		t.Errorf("ends with %v", last)
	}
	if distribution(&c, "nobody") != nil {
		t.Error("nobody has a distribution")
	}
}

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		least, most float64
		lower       bool
		want        string
	}{
		{1.1, 1.3, false, "better"}, {1.1, 1.3, true, "worse"}, {0.9, 1.1, false, "even"}, {0.7, 0.9, true, "better"}, {0.7, 0.9, false, "worse"},
	} {
		if got, _ := verdict(result.Spread{Min: test.least, Max: test.most}, test.lower); got != test.want {
			t.Errorf("%v: %s", test, got)
		}
	}
}
