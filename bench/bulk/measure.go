package bulk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/bench/sample"
	"culvert/bench/testbed"
)

// Measurement is what TCP or UDP did over a number of connections.
type Measurement struct {
	Gbits       float64 // a second, received
	Retransmits int
	Congestion  string  // control; empty for UDP
	Lost        float64 // part of the datagrams, 0 to 1
	// Seconds is the time between the two readings that the next three come
	// from. CoresBusy is the processor time of the whole machine a second in it,
	// iperf3 included, AgentCores that of the culvertds.
	Seconds    float64
	CoresBusy  float64
	AgentCores float64
	// FrameLen is the mean length of the frames that crossed the wire, those of
	// the data and those of the acknowledgements; LongFrames is how many longer
	// than the MTU packet sockets saw in the warm-up.
	FrameLen   [2]float64
	LongFrames uint64
	// Drops are the frames that the culvertds discarded, by reason.
	Drops map[string]uint64
}

// throughput measures TCP or UDP over a number of connections at the same time.
func (b *bed) throughput(ctx context.Context, o Options, connections int) (m Measurement, err error) {
	dropped, err := b.drops(ctx)
	if err != nil {
		return m, err
	}
	t, err := b.iperf(ctx, o, connections, func(ctx context.Context) error { return b.observe(ctx, o, &m) })
	if err != nil {
		return m, fmt.Errorf("%w\n%s", err, b.log())
	}
	m.Gbits, m.Retransmits, m.Congestion, m.Lost = t.Gbits, t.Retransmits, t.Congestion, t.Lost
	after, err := b.drops(ctx)
	if err != nil {
		return m, err
	}
	m.Drops = since(after, dropped)
	return m, b.wire.checkFrames(&m)
}

// observe looks for long frames in the warm-up, where looking costs nothing
// that is measured (of UDP, whose warm-up is of the measurement, next to nothing), then takes the difference of two readings.
func (b *bed) observe(ctx context.Context, o Options, m *Measurement) error {
	w, err := b.startWatch()
	if err != nil {
		return err
	}
	err = sample.Sleep(ctx, time.Duration(o.WarmUp)*time.Second)
	if err == nil {
		m.LongFrames, err = w.count()
	}
	if err = errors.Join(err, w.close()); err != nil {
		return err
	}
	before, err := b.read()
	if err != nil {
		return err
	}
	if err := sample.Sleep(ctx, time.Duration(o.Seconds)*time.Second); err != nil {
		return err
	}
	after, err := b.read()
	if err != nil {
		return err
	}
	after.fill(m, before)
	return nil
}

// reading is all counters at one moment.
type reading struct {
	at      time.Time
	machine time.Duration // processor time of all that is not idle
	agents  time.Duration // ... of the culvertds
	traffic traffic
}

func (b *bed) read() (r reading, err error) {
	if r.machine, err = sample.Time(); err != nil {
		return r, err
	}
	for _, a := range b.agents() {
		t, err := testbed.CPUTime(a.daemon.Proc())
		if err != nil {
			return r, err
		}
		r.agents += t
	}
	r.at = time.Now()
	r.traffic, err = b.traffic()
	return r, err
}

// fill writes down what happened since an earlier reading.
func (r reading) fill(m *Measurement, before reading) {
	took := r.at.Sub(before.at)
	m.Seconds = took.Seconds()
	m.CoresBusy = float64(r.machine-before.machine) / float64(took)
	m.AgentCores = float64(r.agents-before.agents) / float64(took)
	m.FrameLen = r.traffic.means(before.traffic)
}

// drops are those of all culvertds of the pair so far, by reason.
func (b *bed) drops(ctx context.Context) (map[string]uint64, error) {
	sum := make(map[string]uint64)
	for _, a := range b.agents() {
		drops, err := a.drops(ctx)
		if err != nil {
			return nil, err
		}
		for reason, n := range drops {
			sum[reason] += n
		}
	}
	return sum, nil
}

// since is what was added to the counters.
func since(after, before map[string]uint64) map[string]uint64 {
	added := make(map[string]uint64)
	for reason, n := range after {
		if n > before[reason] {
			added[reason] = n - before[reason]
		}
	}
	return added
}
