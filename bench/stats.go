package bench

import (
	"slices"

	"culvert/bench/sample"
)

// summarise fills Devices and Ratios from Rounds. The first device is compared
// with all others.
func (r *Report) summarise() {
	var names []string
	rounds := make(map[string][]Measurement)
	for _, m := range r.Rounds {
		if rounds[m.Device] == nil {
			names = append(names, m.Device)
		}
		rounds[m.Device] = append(rounds[m.Device], m)
	}
	r.Devices, r.Ratios = nil, nil
	for i, name := range names {
		r.Devices = append(r.Devices, summary(rounds[name]))
		if i > 0 {
			r.Ratios = append(r.Ratios, ratio(rounds[names[0]], rounds[name]))
		}
	}
}

func summary(ms []Measurement) Summary {
	mpps := sample.Column(ms, func(m Measurement) float64 { return m.Mpps })
	s := Summary{
		Device: ms[0].Device, Note: ms[0].Note,
		Mpps: sample.Median(mpps), MinMpps: slices.Min(mpps), MaxMpps: slices.Max(mpps),
		CoresBusy:   sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.CoresBusy })),
		DeviceCores: sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.DeviceCores })),
		Background:  sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.Background })),
		Nanos:       sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.NanosPerPacket })),
	}
	if s.Mpps > 0 {
		s.Spread = (s.MaxMpps - s.MinMpps) / s.Mpps
	}
	return s
}

// ratio compares the measurements of each round that both devices have.
func ratio(a, b []Measurement) Ratio {
	var all []float64
	for i := range min(len(a), len(b)) {
		if b[i].Mpps > 0 {
			all = append(all, a[i].Mpps/b[i].Mpps)
		}
	}
	r := Ratio{Device: a[0].Device, To: b[0].Device}
	if len(all) > 0 {
		r.Median, r.Min, r.Max = sample.Median(all), slices.Min(all), slices.Max(all)
	}
	return r
}
