package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/bench/peer"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"
)

// Cost is the processor time that the machine needs for each generated frame of a
// load before any device under test gets it: the frames cross the veth into the
// node and are dropped there, by a program at the very place where a device would
// take them.
func Cost(ctx context.Context, t Timing, l Load) (each time.Duration, err error) {
	if err := errors.Join(l.check(), t.check()); err != nil {
		return 0, err
	}
	i, err := peer.Nothing{}.Start(ctx, peer.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	all, err := ways(l.Direction, i)
	if err != nil {
		return 0, err
	}
	for n := range all {
		at := testbed.HostDevice
		if all[n].direction == Decap {
			at = testbed.Uplink
		}
		link, err := i.Bed.Node.Link(at)
		if err != nil {
			return 0, err
		}
		all[n].to, all[n].arrivals, all[n].match = i.Bed.Node, []int{link.Index}, xdpgen.Match{}
	}
	b, err := beginOn(ctx, t, l, i, all)
	if err != nil {
		return 0, err
	}
	m, err := between(ctx, t, i, b)
	if err := errors.Join(err, b.end()); err != nil {
		return 0, fmt.Errorf("measuring the generator: %w", err)
	}
	return time.Duration(m.CoresBusy * m.Seconds * 1e9 / float64(m.Offered)), nil
}

// Nanos is the machine's processor time for each delivered packet, without what
// its generation cost.
func (m *Measurement) Nanos(generated time.Duration) float64 {
	if m.Packets == 0 {
		return 0
	}
	return max(0, m.CoresBusy*m.Seconds*1e9-float64(m.Offered)*float64(generated)) / float64(m.Packets)
}
