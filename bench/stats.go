package bench

import "slices"

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
	mpps := column(ms, func(m Measurement) float64 { return m.Mpps })
	s := Summary{
		Device: ms[0].Device, Note: ms[0].Note,
		Mpps: median(mpps), MinMpps: slices.Min(mpps), MaxMpps: slices.Max(mpps),
		CoresBusy:   median(column(ms, func(m Measurement) float64 { return m.CoresBusy })),
		DeviceCores: median(column(ms, func(m Measurement) float64 { return m.DeviceCores })),
		Background:  median(column(ms, func(m Measurement) float64 { return m.Background })),
		Nanos:       median(column(ms, func(m Measurement) float64 { return m.NanosPerPacket })),
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
		r.Median, r.Min, r.Max = median(all), slices.Min(all), slices.Max(all)
	}
	return r
}

func column(ms []Measurement, f func(Measurement) float64) []float64 {
	values := make([]float64, len(ms))
	for i, m := range ms {
		values[i] = f(m)
	}
	return values
}

// median is the middle value, or the mean of the two in the middle. There must
// be a value.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
