package forward

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"culvert/bench/load"
	"culvert/bench/pktgen"
	"culvert/bench/xdpgen"
	"culvert/bench/xskgen"
)

// Direction is what the device under test does with the load.
type Direction string

// The directions.
const (
	Encap Direction = "encap" // pods to wire
	Decap Direction = "decap" // wire to pods
	Both  Direction = "both"  // half of the generator's time each
)

// Load is what a device gets to forward: frames of all its pods and peers.
type Load struct {
	Direction Direction
	Sizes     []load.Size // of the pods' frames
	Flows     int
	// Zipf, NewEvery and Rate are as in load.Config.
	Zipf     float64
	NewEvery int
	Rate     float64
	// Sleeps takes the generator that sleeps between bursts (package xskgen) and not
	// the one that keeps a processor busy: for a Rate that leaves the machine room.
	Sleeps bool
}

// Key tells loads apart that cost their generator differently.
func (l *Load) Key() string { return fmt.Sprintf("%+v", *l) }

// Generator says who makes a load.
type Generator string

// The generators.
const (
	XDP    Generator = "xdp"    // live frames of an XDP program: package xdpgen
	AFXDP  Generator = "af_xdp" // asavie/xdp: package xskgen
	Pktgen Generator = "pktgen" // the kernel's: package pktgen, which knows few of the loads
)

// Check says what this machine lacks for the generator.
func (g Generator) Check() error {
	switch g {
	case "", XDP, AFXDP:
		return nil
	case Pktgen:
		return pktgen.Check()
	}
	return fmt.Errorf("generator %q: must be %s, %s or %s", g, XDP, AFXDP, Pktgen)
}

// start starts the generator that the load asks for.
func (t *Timing) start(ctx context.Context, l *Load, cfg load.Config) (load.Generator, error) {
	switch {
	case l.Sleeps:
		cfg.CPU = -1 // where there is room
		return xskgen.Start(ctx, cfg)
	case t.Generator == AFXDP:
		return xskgen.Start(ctx, cfg)
	case t.Generator == Pktgen:
		return pktgen.Start(ctx, cfg)
	}
	return xdpgen.Start(ctx, cfg)
}

// ttl is that of packets after one hop.
func (t *Timing) ttl() uint8 {
	if t.Generator == Pktgen {
		return 31 // the module's packets begin with 32
	}
	return 63
}

// Timing is how long a load is on, and where it comes from.
type Timing struct {
	WarmUp   time.Duration // from the first frame that arrived
	Duration time.Duration // measured after it
	// Generator makes the load, but for loads that ask for one that sleeps; the zero
	// value is XDP.
	Generator Generator
	// GeneratorCPU is the processor of the generator. What the kernel does to
	// receive the generator's frames happens there, too.
	GeneratorCPU int
}

func (l *Load) check() error {
	switch {
	case l.Direction != Encap && l.Direction != Decap && l.Direction != Both:
		return fmt.Errorf("direction %q: must be %s, %s or %s", l.Direction, Encap, Decap, Both)
	case len(l.Sizes) == 0 || l.Flows < 1:
		return errors.New("a load needs lengths of frames and a number of flows")
	}
	return nil
}

func (t *Timing) check() error {
	switch {
	case t.Duration <= 0 || t.WarmUp < 0:
		return fmt.Errorf("%s after %s: must be positive", t.Duration, t.WarmUp)
	case t.Duration > time.Minute || t.WarmUp > time.Minute:
		return fmt.Errorf("%s after %s: must be a minute at most", t.Duration, t.WarmUp)
	case t.GeneratorCPU < 0 || t.GeneratorCPU >= runtime.NumCPU():
		return fmt.Errorf("generator on processor %d: there are %d", t.GeneratorCPU, runtime.NumCPU())
	}
	return t.Generator.Check()
}
