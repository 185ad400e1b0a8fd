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
	icmp, err := rawICMP(from)
	if err != nil {
		return nil, err
	}
	defer unix.Close(icmp)
	var udp int
	err = enter(from.Netns, func() error {
		udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
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
		hop, err := probe(udp, icmp, to, ttl)
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
func probe(udp, icmp int, to netip.Addr, ttl int) (Hop, error) {
	hop := Hop{TTL: ttl}
	if err := unix.SetsockoptInt(udp, unix.IPPROTO_IP, unix.IP_TTL, ttl); err != nil {
		return hop, fmt.Errorf("traceroute: %w", err)
	}
	port := tracePort + ttl
	start := time.Now()
	err := unix.Sendto(udp, make([]byte, 32), 0, &unix.SockaddrInet4{Port: port, Addr: to.As4()})
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) {
		err = unix.Sendto(udp, make([]byte, 32), 0, &unix.SockaddrInet4{Port: port, Addr: to.As4()})
	}
	if err != nil {
		return hop, fmt.Errorf("traceroute to %s: %w", to, err)
	}
	for end := start.Add(replyTimeout); ; {
		msg, from, err := receiveICMP(icmp, end)
		if err != nil || msg == nil {
			return hop, err
		}
		kind, code, cited := msg[0], msg[1], msg[8:]
		if len(cited) < 28 || int(binary.BigEndian.Uint16(cited[int(cited[0]&0xf)*4+2:])) != port {
			continue // about something else
		}
		hop.Addr, hop.RTT = from, time.Since(start)
		hop.Final = kind == 3 && code == 3
		return hop, nil
	}
}
