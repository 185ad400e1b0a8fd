package bench

import (
	"context"
	"errors"
	"fmt"

	"culvert/bench/peer"
	"culvert/bench/sample"
)

// Run measures all devices, one after the other in every round. It stops at
// the first that fails, and when ctx ends; either way nothing is left behind.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	report := newReport(o)
	for round := 1; round <= o.Rounds; round++ {
		for _, d := range o.Devices {
			m, err := measureOne(ctx, o, d)
			if err != nil {
				return nil, fmt.Errorf("bench: %s, round %d: %w", d.Name(), round, err)
			}
			m.Round = round
			report.Rounds = append(report.Rounds, m)
			o.progress("round %d/%d  %-20s %.3f Mpps  %.2f cores busy, %.2f before",
				round, o.Rounds, m.Device, m.Mpps, m.CoresBusy, m.Background)
		}
	}
	report.summarise()
	return report, nil
}

// measureOne builds a device and its testbed, measures it, and takes both down.
func measureOne(ctx context.Context, o Options, d peer.Device) (m Measurement, err error) {
	busy, err := sample.AwaitQuiet(ctx, o.Patience)
	if err != nil {
		return m, err
	}
	i, err := d.Start(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	m, err = measure(ctx, o, i)
	m.Device, m.Note, m.Background = d.Name(), i.Note, busy
	if err != nil {
		return m, fmt.Errorf("%w\n%s", err, i.Log())
	}
	return m, nil
}
