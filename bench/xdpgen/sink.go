package xdpgen

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Counts are what a sink saw since it was attached.
type Counts struct {
	Packets uint64
	Bytes   uint64
	Other   uint64 // frames that are not what the sink counts
}

// Sub is c less what an earlier reading saw.
func (c Counts) Sub(earlier Counts) Counts {
	return Counts{c.Packets - earlier.Packets, c.Bytes - earlier.Bytes, c.Other - earlier.Other}
}

// Sink counts and drops every frame that arrives at a device.
type Sink struct {
	link    link.Link
	counts  *ebpf.Map
	samples *ebpf.Map
}

// Attach puts a sink on a device of the calling thread's network namespace, in
// native mode. With a port only UDP datagrams to it count, otherwise every
// IPv4 packet. The kernel removes the sink with the process at the latest.
func Attach(ifindex int, port uint16) (*Sink, error) {
	spec, err := loadCount()
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	if err := spec.Variables["udp_port"].Set(uint32(port)); err != nil {
		return nil, fmt.Errorf("sink: setting its port: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("sink: loading its program: %w", err)
	}
	defer coll.Close()
	at, err := link.AttachXDP(link.XDPOptions{
		Program: coll.Programs["count"], Interface: ifindex, Flags: link.XDPDriverMode,
	})
	if err != nil {
		return nil, fmt.Errorf("sink: attaching to device %d: %w", ifindex, err)
	}
	return &Sink{link: at, counts: coll.DetachMap("counts"), samples: coll.DetachMap("samples")}, nil
}

// Counts reads the counters.
func (s *Sink) Counts() (Counts, error) {
	var perCPU []countCounters
	if err := s.counts.Lookup(uint32(0), &perCPU); err != nil {
		return Counts{}, fmt.Errorf("sink: reading its counters: %w", err)
	}
	var sum Counts
	for _, c := range perCPU {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.Other += c.Other
	}
	return sum, nil
}

// Samples are the beginnings of some of the first frames that the sink counted.
func (s *Sink) Samples() ([][]byte, error) {
	var all [][]byte
	for i := range s.samples.MaxEntries() {
		var f countSample
		if err := s.samples.Lookup(i, &f); err != nil {
			return nil, fmt.Errorf("sink: reading its samples: %w", err)
		}
		if f.Kept > 0 && int(f.Kept) <= len(f.Data) {
			all = append(all, f.Data[:f.Kept])
		}
	}
	return all, nil
}

// Close takes the sink from its device.
func (s *Sink) Close() error {
	if err := errors.Join(s.link.Close(), s.counts.Close(), s.samples.Close()); err != nil {
		return fmt.Errorf("sink: %w", err)
	}
	return nil
}
