package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"culvert/bench/peer"
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
	if r.machine, err = machineTime(); err != nil {
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

// machineTime is the processor time of the whole machine except idle, waiting
// for disks, and what other virtual machines took (proc(5), /proc/stat).
func machineTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for n, f := range fields[1:8] { // user nice system idle iowait irq softirq
		t, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if n != 3 && n != 4 {
			ticks += t
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// quietCores is the background up to which a machine counts as quiet.
const quietCores = 0.1

// awaitQuiet waits until the machine is quiet, for at most the given time, and
// returns its last background.
func awaitQuiet(ctx context.Context, patience time.Duration) (busy float64, err error) {
	for end := time.Now().Add(patience); ; {
		if busy, err = background(ctx); err != nil || busy <= quietCores || time.Now().After(end) {
			return busy, err
		}
	}
}

// background is how many cores are busy without us.
func background(ctx context.Context) (float64, error) {
	before, err := machineTime()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := sleep(ctx, 300*time.Millisecond); err != nil {
		return 0, err
	}
	after, err := machineTime()
	return float64(after-before) / float64(time.Since(start)), err
}
