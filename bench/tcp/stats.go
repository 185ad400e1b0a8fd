package tcp

import (
	"slices"

	"culvert/bench/sample"
)

// Row is one pair of a scenario over all rounds: its throughput with a number
// of connections, or with none its latency.
type Row struct {
	Scenario    string            `json:"scenario"`
	Pair        string            `json:"pair"`
	Connections int               `json:"connections,omitempty"`
	Gbits       *Spread           `json:"gbits,omitempty"`
	Retransmits float64           `json:"retransmits"` // median, as the next three
	CoresBusy   float64           `json:"coresBusy"`
	AgentCores  float64           `json:"agentCores"`
	FrameLen    float64           `json:"frameLen"`        // of the frames with data
	Drops       map[string]uint64 `json:"drops,omitempty"` // of all rounds
	Micros      *Spread           `json:"micros,omitempty"`
	Lost        int               `json:"lost,omitempty"` // pings, of all rounds
	// Ratio is to the kernel in the same scenario, round by round; nil for the
	// kernel itself and without it.
	Ratio *Spread `json:"ratio,omitempty"`
}

// Spread is a value over all rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// key is what the measurements of one row have in common.
type key struct {
	scenario, pair string
	connections    int
}

// byRound are the values of a row that ratios are made of.
type byRound map[int]float64

// summarise fills Rows from Measurements and Latencies.
func (r *Report) summarise() {
	r.Rows = nil
	throughput, keys := group(r.Measurements, func(m Measurement) key { return key{m.Scenario, m.Pair, m.Connections} })
	for _, k := range keys {
		row := throughputRow(throughput[k])
		base := throughput[key{k.scenario, baseline.String(), k.connections}]
		row.Ratio = ratioTo(k, gbits(throughput[k]), gbits(base))
		r.Rows = append(r.Rows, row)
	}
	latency, keys := group(r.Latencies, func(l Latency) key { return key{l.Scenario, l.Pair, 0} })
	for _, k := range keys {
		row := latencyRow(latency[k])
		base := latency[key{k.scenario, baseline.String(), 0}]
		row.Ratio = ratioTo(k, micros(latency[k]), micros(base))
		r.Rows = append(r.Rows, row)
	}
}

// group collects what has the same key, and the keys: those with few connections
// first, otherwise in the order in which they appear.
func group[T any](all []T, of func(T) key) (map[key][]T, []key) {
	groups := make(map[key][]T)
	var keys []key
	for _, x := range all {
		k := of(x)
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], x)
	}
	slices.SortStableFunc(keys, func(a, b key) int { return a.connections - b.connections })
	return groups, keys
}

func throughputRow(ms []Measurement) Row {
	row := Row{
		Scenario: ms[0].Scenario, Pair: ms[0].Pair, Connections: ms[0].Connections,
		Gbits:       spread(sample.Column(ms, func(m Measurement) float64 { return m.Gbits })),
		Retransmits: sample.Median(sample.Column(ms, func(m Measurement) float64 { return float64(m.Retransmits) })),
		CoresBusy:   sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.CoresBusy })),
		AgentCores:  sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.AgentCores })),
		FrameLen:    sample.Median(sample.Column(ms, func(m Measurement) float64 { return m.FrameLen[0] })),
		Drops:       make(map[string]uint64),
	}
	for _, m := range ms {
		for reason, n := range m.Drops {
			row.Drops[reason] += n
		}
	}
	return row
}

func latencyRow(ls []Latency) Row {
	row := Row{
		Scenario: ls[0].Scenario, Pair: ls[0].Pair,
		Micros: spread(sample.Column(ls, func(l Latency) float64 { return l.MeanMicros })),
	}
	for _, l := range ls {
		row.Lost += l.Sent - l.Received
	}
	return row
}

func gbits(ms []Measurement) byRound {
	values := make(byRound)
	for _, m := range ms {
		values[m.Round] = m.Gbits
	}
	return values
}

func micros(ls []Latency) byRound {
	values := make(byRound)
	for _, l := range ls {
		values[l.Round] = l.MeanMicros
	}
	return values
}

// ratioTo compares the rounds that both have.
func ratioTo(k key, values, base byRound) *Spread {
	if k.pair == baseline.String() {
		return nil
	}
	var all []float64
	for round, v := range values {
		if base[round] > 0 {
			all = append(all, v/base[round])
		}
	}
	if len(all) == 0 {
		return nil
	}
	return spread(all)
}

// background is the median over all measurements.
func (r *Report) background() float64 {
	if len(r.Measurements) == 0 {
		return 0
	}
	return sample.Median(sample.Column(r.Measurements, func(m Measurement) float64 { return m.Background }))
}

func spread(values []float64) *Spread {
	return &Spread{sample.Median(values), slices.Min(values), slices.Max(values)}
}
