package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/bench/load"
	"culvert/bench/peer"
	"culvert/bench/sample"
)

// LossAllowed is the part of the frames that may be lost where the rate counts as
// one without loss. RFC 2544 allows none; here the machine's other tasks stop a
// device for a moment now and then.
const LossAllowed = 1e-4

// trials is how many halvings the search takes: it then knows the rate to a
// hundredth of the highest one that it tried.
const trials = 7

// kept is the part of a rate that a generator must have sent for a trial to count: one
// that was too slow says nothing of the rate it was told.
const kept = 0.95

// drain is how long frames that were sent may be on their way.
const drain = 50 * time.Millisecond

// ZeroLoss searches the highest rate, in packets a second, that a device forwards
// with at most LossAllowed lost (RFC 2544, section 26.1): by halving the interval
// between a rate that works and one that does not, from somewhat more than it delivers
// of as much as there is. Each trial takes half of the timing's duration; one that
// loses is repeated once, for the machine's sake.
func ZeroLoss(ctx context.Context, t Timing, l Load, i *peer.Instance) (rate float64, err error) {
	all, err := ways(l.Direction, i)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 {
		return 0, fmt.Errorf("direction %q: the search takes one at a time", l.Direction)
	}
	m, err := Measure(ctx, t, l, i)
	if err != nil {
		return 0, err
	}
	b := &bench{load: l, ttl: t.ttl(), ways: all}
	defer func() { err = errors.Join(err, b.end()) }()
	if err := b.attach(&all[0]); err != nil {
		return 0, err
	}
	low, high := 0.0, 1.2e6*m.Mpps()
	for range trials {
		l.Rate = (low + high) / 2
		sent, works, err := b.works(ctx, t, l, i)
		if err != nil {
			return 0, err
		}
		if works {
			low = sent
		} else {
			high = l.Rate
		}
	}
	if low == 0 {
		return 0, fmt.Errorf("no rate down to %.0f packets a second went without loss", high)
	}
	return low, nil
}

// works tries a rate, twice if need be, and returns the one that was really sent.
func (b *bench) works(ctx context.Context, t Timing, l Load, i *peer.Instance) (sent float64, works bool, err error) {
	for range 2 {
		sent, lost, err := b.trial(ctx, t, l, i)
		if err != nil {
			return 0, false, err
		}
		if lost <= LossAllowed {
			// A generator that cannot do the rate is no reason to look higher.
			return sent, sent >= kept*l.Rate, nil
		}
	}
	return 0, false, nil
}

// trial sends at the load's rate, as far as the generator can, and returns the rate
// that was sent and the part of the frames that did not arrive.
func (b *bench) trial(ctx context.Context, t Timing, l Load, i *peer.Instance) (rate, lost float64, err error) {
	took := t.Duration / 2
	cfg := b.ways[0].config(l, t, i)
	cfg.MaxFrames = max(1, uint64(l.Rate*took.Seconds()))
	cfg.MaxTime = 2 * took
	before, err := b.least()
	if err != nil {
		return 0, 0, err
	}
	gen, err := t.start(ctx, &l, cfg)
	if err != nil {
		return 0, 0, err
	}
	rate, err = pace(ctx, gen, &cfg)
	sent, readErr := gen.Generated()
	if err := errors.Join(err, readErr, gen.Stop()); err != nil {
		return 0, 0, err
	}
	if err := sample.Sleep(ctx, drain); err != nil {
		return 0, 0, err
	}
	after, err := b.least()
	if err != nil {
		return 0, 0, err
	}
	if sent == 0 {
		return 0, 0, errors.New("the generator sent nothing")
	}
	return rate, 1 - min(1, float64(after.Packets-before.Packets)/float64(sent)), nil
}

// pace waits until a generator has made its frames and returns how many it made in a
// second, from its first to its last: neither its start nor its end, which may wait
// for the kernel, is of the rate.
func pace(ctx context.Context, gen load.Generator, cfg *load.Config) (float64, error) {
	var began, ended time.Time
	var first, last uint64
	for gen.Running() && last < cfg.MaxFrames {
		n, err := gen.Generated()
		if err != nil {
			return 0, err
		}
		now := time.Now()
		if first == 0 && n > 0 {
			began, first = now, n
		}
		if n > last {
			ended, last = now, n
		}
		if err := sample.Sleep(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
	if !ended.After(began) {
		return cfg.Rate, nil // a few frames, in less than two readings
	}
	return float64(last-first) / ended.Sub(began).Seconds(), nil
}
