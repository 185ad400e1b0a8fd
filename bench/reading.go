package bench

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
	counts  xdpgen.Counts
	offered uint64
	machine time.Duration // processor time of all that is not idle
	device  time.Duration // ... of the device's processes
}

func read(i *peer.Instance, gen *xdpgen.Generator, sink *xdpgen.Sink) (r reading, err error) {
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
	if r.offered, err = gen.Generated(); err != nil {
		return r, err
	}
	r.at = time.Now()
	r.counts, err = sink.Counts()
	return r, err
}

// since is what happened between two readings.
func (r reading) since(before reading) Measurement {
	took := r.at.Sub(before.at)
	c := r.counts.Sub(before.counts)
	m := Measurement{
		Seconds: took.Seconds(), Packets: c.Packets, Bytes: c.Bytes, Other: c.Other,
		Offered:     r.offered - before.offered,
		Mpps:        float64(c.Packets) / took.Seconds() / 1e6,
		CoresBusy:   float64(r.machine-before.machine) / float64(took),
		DeviceCores: float64(r.device-before.device) / float64(took),
	}
	if c.Packets > 0 {
		m.NanosPerPacket = float64(r.machine-before.machine) / float64(c.Packets)
	}
	return m
}
