package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The port that traceroute's first probe goes to, and the most hops.
const (
	tracePort = 33434
	maxHops   = 8
)

// Hop is a line of a traceroute.
type Hop struct {
	TTL  int
	Addr netip.Addr // invalid: nobody answered
	RTT  time.Duration
	// Final is the destination's own answer: port unreachable.
	Final bool
}

// Traceroute sends UDP probes with rising TTL from a pod to an address. It
// ends with the destination's answer or after maxHops.
func Traceroute(ctx context.Context, from *Pod, to netip.Addr) (hops []Hop, err error) {
	c, err := openICMP(from, to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(c.fd)
	family := unix.AF_INET
	if c.v6 {
		family = unix.AF_INET6
	}
	var udp int
	err = enter(from.Netns, func() error {
		udp, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("traceroute: UDP socket: %w", err)
	}
	defer unix.Close(udp)
	for ttl := 1; ttl <= maxHops; ttl++ {
		if err := ctx.Err(); err != nil {
			return hops, err
		}
		hop, err := probe(udp, c, to, ttl)
		if err != nil {
			return hops, err
		}
		hops = append(hops, hop)
		if hop.Final {
			break
		}
	}
	return hops, nil
}

// probe sends one datagram and waits for the ICMP error that cites it.
func probe(udp int, c *icmp, to netip.Addr, ttl int) (Hop, error) {
	hop := Hop{TTL: ttl}
	if err := unix.SetsockoptInt(udp, c.level, c.hopLimit, ttl); err != nil {
		return hop, fmt.Errorf("traceroute: %w", err)
	}
	port := tracePort + ttl
	start := time.Now()
	err := unix.Sendto(udp, make([]byte, 32), 0, sockaddr(to, port))
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) {
		err = unix.Sendto(udp, make([]byte, 32), 0, sockaddr(to, port))
	}
	if err != nil {
		return hop, fmt.Errorf("traceroute to %s: %w", to, err)
	}
	for end := start.Add(replyTimeout); ; {
		msg, from, err := c.receive(end)
		if err != nil || msg == nil {
			return hop, err
		}
		kind, code, cited := msg[0], msg[1], msg[8:]
		if !c.cites(cited, port) {
			continue // about something else
		}
		hop.Addr, hop.RTT = from, time.Since(start)
		hop.Final = kind == c.unreachable && code == c.port
		return hop, nil
	}
}

// cites reports whether an error is about a datagram to that port.
func (c *icmp) cites(cited []byte, port int) bool {
	header := 40
	if !c.v6 && len(cited) > 0 {
		header = int(cited[0]&0xf) * 4
	}
	return len(cited) >= header+8 && int(binary.BigEndian.Uint16(cited[header+2:])) == port
}
