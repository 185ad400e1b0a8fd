package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/bench/peer"
	"culvert/bench/sample"
)

// Measurement is what a device did with a load.
type Measurement struct {
	Seconds float64
	Packets uint64 // delivered
	OnWire  uint64 // of them, with a tunnel's headers
	Bytes   uint64
	Other   uint64 // frames at the sink that are not the load
	Offered uint64 // generated in the same time
	// CoresBusy is the processor time of the whole machine a second, the
	// generator's included, DeviceCores that of the device's processes.
	CoresBusy   float64
	DeviceCores float64
}

// Mpps is how many million packets were delivered a second.
func (m *Measurement) Mpps() float64 { return float64(m.Packets) / m.Seconds / 1e6 }

// OfferedMpps is how many were generated.
func (m *Measurement) OfferedMpps() float64 { return float64(m.Offered) / m.Seconds / 1e6 }

// Loss is the part of the offered frames that was not delivered in the same time.
func (m *Measurement) Loss() float64 {
	return max(0, 1-float64(m.Packets)/max(1, float64(m.Offered)))
}

// Gbits is how much of the pods' frames was delivered a second, in 10⁹ bits:
// without the tunnel's headers and the frame check sequence.
func (m *Measurement) Gbits(i *peer.Instance) float64 {
	return float64(m.Bytes-m.OnWire*i.Options.Encap.Overhead()) * 8 / m.Seconds / 1e9
}

// firstFrame is how long a device may take to deliver the first frame.
const firstFrame = 5 * time.Second

// warmUpFlow is how much longer a load is on for each flow before it is measured.
const warmUpFlow = 5 * time.Microsecond

// Measure loads a running device and reads what arrives.
func Measure(ctx context.Context, t Timing, l Load, i *peer.Instance) (m Measurement, err error) {
	if err := errors.Join(l.check(), t.check()); err != nil {
		return m, err
	}
	b, err := begin(ctx, t, l, i)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	if m, err = between(ctx, t, i, b); err != nil {
		return m, err
	}
	return m, b.check(i)
}

// between waits for the first frame and the warm-up, and takes the difference
// of two readings.
func between(ctx context.Context, t Timing, i *peer.Instance, b *bench) (Measurement, error) {
	for end := time.Now().Add(firstFrame); ; {
		c, err := b.least()
		if err != nil {
			return Measurement{}, err
		}
		if c.Packets > 0 {
			break
		}
		if time.Now().After(end) {
			n, err := b.offered()
			return Measurement{}, errors.Join(fmt.Errorf("of %d frames none arrived within %s, but %d others", n, firstFrame, c.Other), err)
		}
		if err := sample.Sleep(ctx, 10*time.Millisecond); err != nil {
			return Measurement{}, err
		}
	}
	// Each flow's first packet makes it: what is measured are established flows.
	warmUp := t.WarmUp + time.Duration(b.load.Flows)*warmUpFlow
	if err := sample.Sleep(ctx, warmUp); err != nil {
		return Measurement{}, err
	}
	before, err := read(i, b)
	if err != nil {
		return Measurement{}, err
	}
	if err := sample.Sleep(ctx, t.Duration); err != nil {
		return Measurement{}, err
	}
	after, err := read(i, b)
	if err != nil {
		return Measurement{}, err
	}
	if !b.running() {
		return Measurement{}, errors.New("the generator came to its bounds within the measurement")
	}
	return after.since(before, b.ways), nil
}
