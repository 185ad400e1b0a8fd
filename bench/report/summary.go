package report

import (
	"fmt"
	"html/template"

	"culvert/bench/result"
)

// card is an experiment in short: what its first device did in its first case,
// beside its peers.
type card struct {
	Name, Title, Case string
	Device            string
	Value, Unit       string
	Detail            string // the metric, and which direction is the better one
	Peers             []peerView
}

// peerView is how the card's device compares with another.
type peerView struct {
	Name    string
	Marker  template.HTML
	Ratio   string // of the device to it
	Verdict string // better, worse or even
	Sign    string
}

// summary has a card for each experiment that has found something.
func (p *palette) summary(r *result.Report) (all []card) {
	for n := range r.Experiments {
		if one, ok := p.card(&r.Experiments[n]); ok {
			all = append(all, one)
		}
	}
	return all
}

func (p *palette) card(e *result.Experiment) (card, bool) {
	devices := e.Devices()
	if len(e.Cases) == 0 || len(devices) == 0 {
		return card{}, false
	}
	c := &e.Cases[0]
	m, _ := result.MetricOf(e.Metric)
	s := c.Spread(devices[0], e.Metric)
	if s.N == 0 {
		return card{}, false
	}
	one := card{
		Name: e.Name, Title: e.Title, Case: c.Name, Device: devices[0],
		Value: value(m, s.Median), Unit: m.Unit, Detail: m.Title + ", " + direction(m),
	}
	for _, d := range devices[1:] {
		ratio := c.Ratio(devices[0], d, e.Metric)
		if ratio.N == 0 {
			continue
		}
		peer := peerView{Name: d, Marker: p.legend(d).Marker, Ratio: fmt.Sprintf("%.2f ×", ratio.Median)}
		peer.Verdict, peer.Sign = verdict(ratio, m.Lower)
		one.Peers = append(one.Peers, peer)
	}
	return one, true
}

// verdict is what all rounds agree on.
func verdict(ratio result.Spread, lower bool) (word, sign string) {
	more, less := ratio.Min > 1, ratio.Max < 1
	if lower {
		more, less = less, more
	}
	switch {
	case more:
		return "better", "▲"
	case less:
		return "worse", "▼"
	}
	return "even", "≈"
}
