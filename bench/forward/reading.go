package forward

import (
	"time"

	"culvert/bench/peer"
	"culvert/bench/sample"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"
)

// reading is all counters at one moment.
type reading struct {
	at      time.Time
	counts  []xdpgen.Counts
	offered uint64
	machine time.Duration // processor time of all that is not idle
	device  time.Duration // ... of the device's processes
}

func read(i *peer.Instance, b *bench) (r reading, err error) {
	if r.machine, err = sample.Time(); err != nil {
		return r, err
	}
	for _, path := range i.CPU {
		t, err := testbed.CPUTime(path)
		if err != nil {
			return r, err
		}
		r.device += t
	}
	if r.offered, err = b.offered(); err != nil {
		return r, err
	}
	r.at = time.Now()
	r.counts, err = b.counts()
	return r, err
}

// since is what happened between two readings.
func (r reading) since(before reading, ways []way) Measurement {
	took := r.at.Sub(before.at)
	m := Measurement{
		Seconds: took.Seconds(), Offered: r.offered - before.offered,
		CoresBusy:   float64(r.machine-before.machine) / float64(took),
		DeviceCores: float64(r.device-before.device) / float64(took),
	}
	for n := range r.counts {
		c := r.counts[n].Sub(before.counts[n])
		m.Packets += c.Packets
		m.Bytes += c.Bytes
		m.Other += c.Other
		if ways[n].direction == Encap {
			m.OnWire += c.Packets
		}
	}
	return m
}
