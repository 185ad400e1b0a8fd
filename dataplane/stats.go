package dataplane

import (
	"fmt"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/drop"
)

// PortStats are a port's counters since it was added, summed over its queues.
type PortStats struct {
	Index              uint16
	Spec               PortSpec
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	Drops              uint64
	Device             frame.DeviceStats
}

// DropCount is the number of frames dropped for one reason at one port. Port is
// empty for the sum of ports of that kind that are gone.
type DropCount struct {
	Reason  drop.Reason
	Port    string
	Kind    PortKind
	Packets uint64
}

// WorkerStats are one worker's gauges and counters.
type WorkerStats struct {
	ID          int
	BusyRatio   float64 // of the last second, 0 to 1
	FreeFrames  int
	TotalFrames int
	// Bursts counts received bursts by size: 1, 2, 3–4, 5–8, …, 33–64.
	Bursts [burstBuckets]uint64
	// BurstFrames is the number of frames in all of them.
	BurstFrames uint64
	Sleeps      uint64 // times the worker waited for input
	Big         BigFrames
	Fragments   FragmentStats
}

// FragmentStats are what a worker knows of datagrams in fragments.
type FragmentStats struct {
	Datagrams int    // of which not all fragments have come
	Held      int    // frames that wait for the first fragment of their datagram
	Evicted   uint64 // datagrams forgotten to make room for others
	Expired   uint64 // ... of which not all fragments came in time
}

// BigFrames counts frames that stand for many on a wire.
type BigFrames struct {
	Whole  uint64 // left as they came
	Cut    uint64 // were cut
	Merged uint64 // were made of segments from the wire
}

// burstBuckets are the powers of two up to frame.BurstSize.
const burstBuckets = 7

// deviceDrops are the frames that the device or the kernel below it lost. Those
// that Send leaves to its caller are the worker's to count.
func deviceDrops(s *frame.DeviceStats) map[drop.Reason]uint64 {
	return map[drop.Reason]uint64{
		drop.RxRingFull:  s.RxRingFull,
		drop.RxFillEmpty: s.RxFillEmpty,
		drop.RxTooLong:   s.RxTooLong + s.RxDropped,
		drop.RxInvalid:   s.RxInvalid,
		drop.RxShare:     s.RxShare,
		drop.RxFailed:    s.RxFailed,
		drop.TxRefused:   s.TxRefused,
		drop.TxLinkDown:  s.TxLinkDown,
		drop.TxInvalid:   s.TxInvalid,
	}
}

// Ports returns every port's counters in the order of their indices.
func (e *Engine) Ports() []PortStats {
	return e.portStats(func(k PortKind) bool { return k != PortIntake })
}

// Intake returns the intake's counters, with nothing but losses in it: frames are
// counted at the ports that they came by. ok is false where there is none.
func (e *Engine) Intake() (s PortStats, ok bool) {
	for _, s = range e.portStats(func(k PortKind) bool { return k == PortIntake }) {
		return s, true
	}
	return s, false
}

// portStats returns the counters of the ports of some kinds.
func (e *Engine) portStats(of func(PortKind) bool) []PortStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []PortStats
	for _, p := range e.ports {
		if p == nil || !p.ready || !of(p.spec.Kind) {
			continue
		}
		s := PortStats{Index: p.index, Spec: p.spec}
		for _, q := range p.queues {
			if q == nil {
				continue
			}
			c := &q.counters
			s.RxPackets += c.rxPackets.Load()
			s.RxBytes += c.rxBytes.Load()
			s.TxPackets += c.txPackets.Load()
			s.TxBytes += c.txBytes.Load()
			for r := range c.drops {
				s.Drops += c.drops[r].Load()
			}
			q.dev.Stats(&s.Device)
		}
		for _, n := range deviceDrops(&s.Device) {
			s.Drops += n
		}
		all = append(all, s)
	}
	return all
}

// Drops returns every nonzero drop counter: a line per port and reason in the
// order of ports and reasons, then what ports that are gone had counted.
func (e *Engine) Drops() []DropCount {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []DropCount
	for _, p := range e.ports {
		if p == nil || !p.ready {
			continue
		}
		var sums [drop.Count]uint64
		var dev frame.DeviceStats
		for _, q := range p.queues {
			if q == nil {
				continue
			}
			for r := range sums {
				sums[r] += q.counters.drops[r].Load()
			}
			q.dev.Stats(&dev)
		}
		for r, n := range deviceDrops(&dev) {
			sums[r] += n
		}
		for r, n := range sums {
			if n != 0 {
				all = append(all, DropCount{drop.Reason(r), p.spec.Name, p.spec.Kind, n})
			}
		}
	}
	for k := range e.retired {
		for r, n := range e.retired[k] {
			if n != 0 {
				all = append(all, DropCount{drop.Reason(r), "", PortKind(k), n})
			}
		}
	}
	return all
}

// stuckAfter is how long a worker may go without housekeeping: fifty times its
// interval, which only a bug or a starved machine makes.
const stuckAfter = 5 * time.Second

// Healthy names a worker that makes no progress, nil if all do.
func (e *Engine) Healthy() error {
	if !e.started.Load() {
		return nil
	}
	for _, w := range e.workers { // no lock: who holds it may wait for the stuck worker
		if silent := time.Since(w.started) - time.Duration(w.gauges.beat.Load()); silent > stuckAfter {
			return fmt.Errorf("worker %d has not finished a round for %v", w.id, silent.Round(time.Second))
		}
	}
	return nil
}

// WorkerStats returns every worker's gauges and counters.
func (e *Engine) WorkerStats() []WorkerStats {
	all := make([]WorkerStats, 0, len(e.workers))
	for _, w := range e.workers {
		s := WorkerStats{
			ID:          w.id,
			BusyRatio:   float64(w.gauges.busyPermille.Load()) / 1000,
			FreeFrames:  int(w.gauges.freeFrames.Load()),
			TotalFrames: w.pool.Chunks(),
			BurstFrames: w.gauges.burstFrames.Load(),
			Sleeps:      w.gauges.sleeps.Load(),
			Big:         BigFrames{w.gauges.whole.Load(), w.gauges.cut.Load(), w.gauges.merged.Load()},
			Fragments:   w.frags.gauges.read(),
		}
		for i := range s.Bursts {
			s.Bursts[i] = w.gauges.bursts[i].Load()
		}
		all = append(all, s)
	}
	return all
}
