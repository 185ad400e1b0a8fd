package report

import (
	"slices"
	"strings"

	"culvert/bench/result"
)

// palette gives each device of a report a series: a colour and a marker, the same
// in every chart.
type palette struct{ names []string }

// known are devices that always have the same series, by their place.
var known = []string{"culvert", "kernel", "ovs-generic", "ovs-native", "kernel-rps"}

// colours is how many there are; page.css has them, and a class for each of
// allSeries. There are fewer markers, so that a series which has a colour again has
// another marker.
const (
	colours   = 8
	markers   = 7
	allSeries = colours * 5
)

// newPalette knows all devices of a report. Those that meet in an experiment have
// different colours as long as there are some left.
func newPalette(r *result.Report) *palette {
	p := &palette{names: make([]string, allSeries)}
	copy(p.names, known)
	for n := range r.Experiments {
		for _, d := range r.Experiments[n].Devices() {
			if p.of(d) < 0 {
				p.add(same(d), p.coloursBeside(r, d))
			}
		}
	}
	return p
}

// coloursBeside are those of the devices that a device meets.
func (p *palette) coloursBeside(r *result.Report, device string) map[int]bool {
	taken := make(map[int]bool)
	for n := range r.Experiments {
		devices := r.Experiments[n].Devices()
		if !slices.ContainsFunc(devices, func(d string) bool { return same(d) == same(device) }) {
			continue
		}
		for _, d := range devices {
			if series := p.of(d); series >= 0 {
				taken[series%colours] = true
			}
		}
	}
	return taken
}

// add gives a device the first series whose colour is not taken, and the first of
// all where every colour is. More devices than series share the last one.
func (p *palette) add(device string, taken map[int]bool) {
	first := len(p.names) - 1
	for n := len(p.names) - 1; n >= 0; n-- {
		if p.names[n] == "" {
			first = n
		}
	}
	for n := first; n < len(p.names); n++ {
		if p.names[n] == "" && !taken[n%colours] {
			p.names[n] = device
			return
		}
	}
	if p.names[first] == "" {
		p.names[first] = device
	}
}

// of is a device's series, -1 for one that has none.
func (p *palette) of(device string) int {
	n := slices.Index(p.names, same(device))
	if n < 0 && p.names[allSeries-1] != "" {
		return allSeries - 1
	}
	return n
}

// same is a device's own name: a pair of ends that are the same is what they are.
func same(device string) string {
	if a, b, ok := strings.Cut(device, "-"); ok && a == b {
		return a
	}
	return device
}
