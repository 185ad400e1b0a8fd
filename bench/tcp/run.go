package tcp

import (
	"context"
	"errors"
	"fmt"

	"culvert/bench/sample"
)

// Run measures all pairs of each scenario, one after the other in every round.
// A pair that this Culvert cannot serve is noted and left out. It stops at the
// first that fails, and when ctx ends: the report then has what was measured so
// far. Nothing is left behind in any case.
func Run(ctx context.Context, o Options) (*Report, error) {
	r := newReport(o)
	if err := o.check(); err != nil {
		return r, fmt.Errorf("bench: %w", err)
	}
	defer r.summarise()
	for _, s := range o.Scenarios {
		missing := make(map[Pair]bool)
		for round := 1; round <= o.Rounds; round++ {
			for _, p := range s.Pairs {
				if missing[p] {
					continue
				}
				err := r.turn(ctx, o, s, p, round)
				if errors.Is(err, errNoTap) {
					missing[p] = true
					r.NotAvailable = append(r.NotAvailable, NotAvailable{s.Name, p.String(), errNoTap.Error()})
					o.progress("%s: %s is not available: %v", s.Name, p, errNoTap)
				} else if err != nil {
					return r, fmt.Errorf("bench: %s, %s, round %d: %w", s.Name, p, round, err)
				}
			}
		}
	}
	return r, nil
}

// turn is one pair's part of a round. Its network is built for it and taken
// down after it, so that no pair measures what another one has left or does.
func (r *Report) turn(ctx context.Context, o Options, s Scenario, p Pair, round int) (err error) {
	busy, err := sample.AwaitQuiet(ctx, o.Patience)
	if err != nil {
		return err
	}
	b, err := newBed(ctx, o.Bin, s.Wire, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if o.Echoes > 0 {
		e, err := b.ping(ctx, o.Echoes)
		if err != nil {
			return err
		}
		r.Latencies = append(r.Latencies, Latency{s.Name, p.String(), round, e.Sent, e.Received, e.MeanMicros})
		o.progress("%s %d/%d  %-16s ping %.0f µs", s.Name, round, o.Rounds, p, e.MeanMicros)
	}
	for _, connections := range o.Connections {
		m, err := b.throughput(ctx, o, connections)
		if err != nil {
			return fmt.Errorf("%d connections: %w", connections, err)
		}
		m.Scenario, m.Pair, m.Round, m.Background = s.Name, p.String(), round, busy
		r.Measurements = append(r.Measurements, m)
		o.progress("%s %d/%d  %-16s × %d  %6.2f Gbit/s  %d retransmits  %.2f cores busy, culvertd %.2f, %.2f before",
			s.Name, round, o.Rounds, p, connections, m.Gbits, m.Retransmits, m.CoresBusy, m.AgentCores, busy)
	}
	return nil
}
