package bulk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"culvert/bench/testbed"
)

// Options say how a pair is measured.
type Options struct {
	Seconds int // measured
	WarmUp  int // seconds before them, which iperf3 leaves out, but of UDP
	// Congestion is the senders' congestion control; empty for the machine's.
	Congestion string
	// Datagrams is the length of UDP datagrams, in bytes without headers; 0 for TCP.
	Datagrams int
	// Bin is the directory of culvertd and culvert-cni.
	Bin string
}

// maxDatagram is what fits into the pods' MTU behind the IPv4 and UDP headers: a
// fragment more would be another measurement.
const maxDatagram = testbed.PodMTU - 20 - 8

// maxConnections bounds how many there are at the same time.
const maxConnections = 128

// Check says what keeps a pair from being measured in a scenario.
func Check(o Options, s Scenario, p Pair) error {
	if o.Seconds < 1 || o.WarmUp < 0 || o.Seconds > 60 || o.WarmUp > 60 {
		return fmt.Errorf("%d s after %d s: must be positive and a minute at most", o.Seconds, o.WarmUp)
	}
	if o.Datagrams < 0 || o.Datagrams > maxDatagram {
		return fmt.Errorf("datagrams of %d bytes: must be 1 to %d, as pods' MTU is", o.Datagrams, maxDatagram)
	}
	if s.Wire.cut() && o.WarmUp == 0 {
		return fmt.Errorf("scenario %s needs a warm-up: long frames are looked for in it", s.Name)
	}
	if s.Wire == NoWire && p.From.agent() != p.To.agent() {
		return fmt.Errorf("scenario %s, pair %s: one node has either culvertd or the kernel", s.Name, p)
	}
	for _, name := range []string{"iperf3", "ping", "ethtool"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: make deps", err)
		}
	}
	if !p.From.agent() && !p.To.agent() {
		return nil
	}
	for _, name := range []string{"culvertd", "culvert-cni"} {
		if _, err := os.Stat(filepath.Join(o.Bin, name)); err != nil {
			return fmt.Errorf("pair %s: %w: make build", p, err)
		}
	}
	return nil
}

// Measure builds the network of a pair, measures TCP or UDP with each number of
// connections at the same time, gives each Measurement to found, and takes the
// network down, so that no pair measures what another one has left or does. It
// stops when ctx ends; nothing is left behind in any case.
func Measure(ctx context.Context, o Options, s Scenario, p Pair, connections []int, found func(connections int, m Measurement)) (err error) {
	if err := Check(o, s, p); err != nil {
		return err
	}
	b, err := newBed(ctx, o.Bin, s.Wire, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, n := range connections {
		if n < 1 || n > maxConnections {
			return fmt.Errorf("%d connections: must be 1 to %d", n, maxConnections)
		}
		m, err := b.throughput(ctx, o, n)
		if err != nil {
			return fmt.Errorf("%d connections: %w", n, err)
		}
		found(n, m)
	}
	return nil
}
