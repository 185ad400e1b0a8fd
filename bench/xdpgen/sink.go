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

// Match says what a sink counts. The zero value is every IPv4 packet.
type Match struct {
	// Protocol is the IPv4 header's, 0 for any.
	Protocol uint8
	// Port is the destination port that UDP datagrams must have, 0 for any. The
	// Protocol is UDP then, whatever it says.
	Port uint16
}

// Sink counts and drops every frame that arrives at its devices.
type Sink struct {
	links   []link.Link
	counts  *ebpf.Map
	samples *ebpf.Map
}

// Attach puts one sink on devices of the calling thread's network namespace, in
// native mode, and counts what matches on all of them together. The kernel
// removes the sink with the process at the latest.
func Attach(match Match, ifindexes ...int) (*Sink, error) {
	spec, err := loadCount()
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	if match.Port != 0 {
		match.Protocol = udpProtocol
	}
	err = errors.Join(
		spec.Variables["ip_protocol"].Set(uint32(match.Protocol)), spec.Variables["udp_port"].Set(uint32(match.Port)))
	if err != nil {
		return nil, fmt.Errorf("sink: setting what it counts: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("sink: loading its program: %w", err)
	}
	defer coll.Close()
	s := &Sink{counts: coll.DetachMap("counts"), samples: coll.DetachMap("samples")}
	for _, ifindex := range ifindexes {
		at, err := link.AttachXDP(link.XDPOptions{
			Program: coll.Programs["count"], Interface: ifindex, Flags: link.XDPDriverMode,
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sink: attaching to device %d: %w", ifindex, err), s.Close())
		}
		s.links = append(s.links, at)
	}
	return s, nil
}

// udpProtocol is UDP's number (RFC 768).
const udpProtocol = 17

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

// Sample is the beginning of a frame that a sink counted, 128 bytes at most.
type Sample struct {
	Ifindex int // of the device where it arrived
	Len     int // of the whole frame
	Data    []byte
}

// Samples are some of the first frames that the sink counted.
func (s *Sink) Samples() ([]Sample, error) {
	var all []Sample
	for i := range s.samples.MaxEntries() {
		var f countSample
		if err := s.samples.Lookup(i, &f); err != nil {
			return nil, fmt.Errorf("sink: reading its samples: %w", err)
		}
		if f.Kept > 0 && int(f.Kept) <= len(f.Data) {
			all = append(all, Sample{int(f.Ifindex), int(f.Len), f.Data[:f.Kept]})
		}
	}
	return all, nil
}

// Close takes the sink from its devices.
func (s *Sink) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	if err := errors.Join(append(errs, s.counts.Close(), s.samples.Close())...); err != nil {
		return fmt.Errorf("sink: %w", err)
	}
	return nil
}
