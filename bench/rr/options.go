package rr

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"culvert/bench/testbed"
)

// Options say what is asked and answered. What is zero has the default that is
// said with it.
type Options struct {
	// Client and Server are where the two ends are. Their threads come and go with
	// the call.
	Client, Server *testbed.Space
	// Addr is where the server listens. With port 0 the kernel chooses one; else UDP
	// takes a port for each connection, from this one on.
	Addr netip.AddrPort
	// Network is tcp, the default, or udp. Connect is TCP only.
	Network string
	// Connections is how many there are at the same time, each with one request
	// outstanding, to MaxConnections. Default 1. Each takes two threads.
	Connections int
	// Request and Response are lengths in bytes, of what TCP or UDP carries. Default
	// 64; at least 1, UDP 8.
	Request, Response int
	// WarmUp comes before Duration, which is what counts. Duration has no default.
	WarmUp, Duration time.Duration
	// Rate is how many requests a second all connections together send, evenly. The
	// default, 0, sends each as soon as the one before is answered. A Rate that
	// cannot be kept shows in Result.PerSecond. Connect does not know it.
	Rate float64
	// Patience is how long a connection, or an answer, may take before the whole is
	// given up. Default 3 s.
	Patience time.Duration
}

// MaxConnections bounds Options.Connections.
const MaxConnections = 1000

// Bounds of Options.Request and Response: UDP datagrams are bounded by IPv4's
// length, and have a number that tells an answer from a late one.
const (
	maxMessage  = 1 << 20
	maxDatagram = 65507
	minDatagram = 8
)

// full has the defaults in place of zeros.
func (o Options) full() Options {
	if o.Network == "" {
		o.Network = "tcp"
	}
	if o.Connections == 0 {
		o.Connections = 1
	}
	if o.Request == 0 {
		o.Request = 64
	}
	if o.Response == 0 {
		o.Response = 64
	}
	if o.Patience == 0 {
		o.Patience = 3 * time.Second
	}
	return o
}

// check refuses what makes no sense.
func (o *Options) check() error {
	least, most := 1, maxMessage
	if o.Network == "udp" {
		least, most = minDatagram, maxDatagram
	}
	switch {
	case o.Client == nil || o.Server == nil:
		return errors.New("client and server need a namespace each")
	case !o.Addr.Addr().IsValid() || o.Addr.Addr().IsUnspecified():
		return fmt.Errorf("address %s: must be one of the server's", o.Addr)
	case o.Network != "tcp" && o.Network != "udp":
		return fmt.Errorf("network %q: must be tcp or udp", o.Network)
	case o.Connections < 1 || o.Connections > MaxConnections:
		return fmt.Errorf("%d connections: must be 1 to %d", o.Connections, MaxConnections)
	case o.Request < least || o.Request > most || o.Response < least || o.Response > most:
		return fmt.Errorf("request of %d and response of %d bytes: must be %d to %d over %s", o.Request, o.Response, least, most, o.Network)
	case o.WarmUp < 0 || o.Duration <= 0 || o.Patience < 0:
		return fmt.Errorf("warm-up %s, duration %s, patience %s: must be positive", o.WarmUp, o.Duration, o.Patience)
	case o.Rate < 0:
		return fmt.Errorf("rate %g: must be positive, or 0 for as fast as answers come", o.Rate)
	}
	return nil
}
