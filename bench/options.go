package bench

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"culvert/bench/peer"
	"culvert/bench/xdpgen"
)

// Direction is what the device under test does with the load.
type Direction string

// The directions.
const (
	Encap Direction = "encap" // pod to wire
	Decap Direction = "decap" // wire to pod
)

// Options say what a run measures.
type Options struct {
	Devices   []peer.Device
	Direction Direction
	Rounds    int
	Duration  time.Duration // measured, of each device and round
	WarmUp    time.Duration // before it, from the first frame that arrived
	FrameLen  int           // of the pod's frames, without frame check sequence
	Flows     int
	// GeneratorCPU is the processor of the generator. What the kernel does to
	// receive the generator's frames happens there, too.
	GeneratorCPU int
	// Patience is how long each measurement waits at most for the machine to
	// become quiet. It is made in any case; the report says how it was.
	Patience time.Duration
	// Progress is told what happens; nil for silence.
	Progress func(format string, args ...any)
}

// Default is the standard run: 64-byte frames of 256 flows, one node encapsulates.
func Default(devices ...peer.Device) Options {
	return Options{
		Devices: devices, Direction: Encap, Rounds: 5, Duration: 3 * time.Second, WarmUp: 500 * time.Millisecond,
		FrameLen: xdpgen.MinFrame, Flows: 256,
	}
}

func (o *Options) check() error {
	switch {
	case len(o.Devices) == 0:
		return errors.New("no device to test")
	case o.Direction != Encap && o.Direction != Decap:
		return fmt.Errorf("direction %q: must be %s or %s", o.Direction, Encap, Decap)
	case o.Rounds < 1 || o.Duration <= 0 || o.WarmUp < 0:
		return fmt.Errorf("%d rounds of %s after %s: must be positive", o.Rounds, o.Duration, o.WarmUp)
	case o.Duration > time.Minute || o.WarmUp > time.Minute:
		return fmt.Errorf("rounds of %s after %s: must be a minute at most", o.Duration, o.WarmUp)
	case o.GeneratorCPU >= runtime.NumCPU():
		return fmt.Errorf("generator on processor %d: there are %d", o.GeneratorCPU, runtime.NumCPU())
	}
	for _, d := range o.Devices {
		if err := d.Check(); err != nil {
			return fmt.Errorf("%s cannot run here: %w", d.Name(), err)
		}
	}
	return nil
}

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(format, args...)
	}
}
