package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"culvert/bench/forward"
	"culvert/bench/peer"
	"culvert/bench/result"
	"culvert/bench/run"
)

// point is a case of an experiment about forwarding.
type point struct {
	name  string
	x     float64
	load  forward.Load
	setup peer.Options
}

// setupTime is about how long it takes to build a device and its testbed, and to
// take them down.
const setupTime = 1500 * time.Millisecond

// forwarding is an experiment that loads devices and counts what they deliver.
// Points that follow each other with the same setup share a device.
func (o *Options) forwarding(head result.Experiment, devices []peer.Device, points []point) run.Experiment {
	if head.Metric == "" {
		head.Metric = result.Mpps
	}
	for _, p := range points {
		head.Cases = append(head.Cases, result.Case{Name: p.name, X: p.x})
		head.Definition += fmt.Sprintf("%s %+v %+v;", p.name, p.load, p.setup)
	}
	takes := time.Duration(0)
	for n := range points {
		takes += o.Timing.WarmUp + o.Timing.Duration + time.Duration(points[n].load.Flows)*5*time.Microsecond
		if n == 0 || points[n].setup != points[n-1].setup {
			takes += setupTime
		}
	}
	e := run.Experiment{Head: head}
	for _, d := range devices {
		e.Subjects = append(e.Subjects, run.Subject{
			Device: d.Name(), Takes: takes, Check: func() error { return d.Check(points[0].setup) },
			Turn: func(ctx context.Context, found func(int, run.Finding)) error {
				return o.forwardingTurn(ctx, d, points, found)
			},
		})
	}
	return e
}

// forwardingTurn measures a device at all points. A setup that it cannot be built
// for fails at its own points only.
func (o *Options) forwardingTurn(ctx context.Context, d peer.Device, points []point, found func(int, run.Finding)) error {
	for n := 0; n < len(points); {
		end := n + 1
		for end < len(points) && points[end].setup == points[n].setup {
			end++
		}
		if err := o.group(ctx, d, points, n, end, found); err != nil {
			return err
		}
		n = end
	}
	return nil
}

// group measures the points from n to before end, which have the same setup. Its
// error is one of the testbed.
func (o *Options) group(ctx context.Context, d peer.Device, points []point, n, end int, found func(int, run.Finding)) (err error) {
	i, err := d.Start(ctx, points[n].setup)
	if err != nil {
		for ; n < end; n++ {
			found(n, run.Finding{Failed: err.Error()})
		}
		return ctx.Err()
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	for ; n < end; n++ {
		f, err := o.load(ctx, i, points[n].load)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			f.Failed = err.Error() + "\n" + i.Log()
		}
		f.Note = i.Note
		found(n, f)
	}
	return nil
}

// load measures one load.
func (o *Options) load(ctx context.Context, i *peer.Instance, l forward.Load) (run.Finding, error) {
	cost, err := o.costs.of(ctx, o.Timing, l)
	if err != nil {
		return run.Finding{}, err
	}
	m, err := forward.Measure(ctx, o.Timing, l, i)
	if err != nil {
		return run.Finding{}, err
	}
	values := map[string]float64{
		result.Mpps: m.Mpps(), result.Offered: m.OfferedMpps(), result.Gbits: m.Gbits(i),
		result.NanosPacket: m.Nanos(cost), result.CoresBusy: m.CoresBusy, result.DeviceCores: m.DeviceCores,
	}
	if l.Rate > 0 {
		values[result.Loss] = m.Loss()
	}
	if memory, err := i.Memory(); err == nil {
		values[result.Memory] = memory.MiB()
	}
	return run.Finding{Values: values}, nil
}

// costs remembers what the generator's frames cost, by load.
type costs struct {
	mu    sync.Mutex
	known map[string]time.Duration
}

func (c *costs) of(ctx context.Context, t forward.Timing, l forward.Load) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := l.Key()
	if d, ok := c.known[key]; ok {
		return d, nil
	}
	d, err := forward.Cost(ctx, t, l)
	if err != nil {
		return 0, err
	}
	if c.known == nil {
		c.known = make(map[string]time.Duration)
	}
	c.known[key] = d
	return d, nil
}
