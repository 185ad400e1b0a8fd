package rr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Run asks over connections that stay for the whole run.
//
// A time is that from the first byte sent to the last byte received. With a Rate,
// each request has a time at which it is due, and one that has to wait for an
// answer to the one before is measured from there: what is slow does not get
// fewer requests to be slow with (coordinated omission). One whose client was
// merely late to wake up is measured from its sending.
//
// Everything has ended when Run returns, which is within 100 ms of the end of ctx.
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.full()
	if err := o.check(); err != nil {
		return Result{}, fmt.Errorf("rr: %w", err)
	}
	r, err := run(ctx, &o)
	if err != nil {
		return Result{}, fmt.Errorf("rr: %d requests at a time to %s over %s: %w", o.Connections, o.Addr, o.Network, err)
	}
	return r, nil
}

func run(ctx context.Context, o *Options) (Result, error) {
	servers, err := openServers(o)
	if err != nil {
		return Result{}, err
	}
	defer closeServers(servers)
	c := newCrew(ctx, o.Connections)
	var all []*recorder
	for n := range o.Connections {
		s := servers[min(n, len(servers)-1)]
		answer := c.answerTCP
		if o.Network == "udp" {
			answer = c.answerUDP
		}
		c.thread(o.Server, func() error { return stopped(answer(s.fd, o)) })
		asker := newClient(c, o, n, s.at)
		all = append(all, asker.recorder)
		c.client(o.Client, func() error { return stopped(asker.run()) })
	}
	if err := c.measure(o); err != nil {
		return Result{}, err
	}
	return summarize(all, o.Duration)
}

// server is a socket that answers come from: TCP's listens for all connections,
// UDP has one for each.
type server struct {
	fd int
	at netip.AddrPort
}

func openServers(o *Options) (all []server, err error) {
	count := 1
	if o.Network == "udp" {
		count = o.Connections
	}
	err = o.Server.Do(func() error {
		for n := range count {
			at := o.Addr
			if at.Port() != 0 {
				at = netip.AddrPortFrom(at.Addr(), at.Port()+uint16(n))
			}
			fd, at, err := listen(o.Network, at)
			if err != nil {
				return err
			}
			all = append(all, server{fd, at})
		}
		return nil
	})
	if err != nil {
		closeServers(all)
		return nil, err
	}
	return all, nil
}

func closeServers(all []server) {
	for _, s := range all {
		_ = unix.Close(s.fd) // it holds nothing that could fail to be written
	}
}

// answerTCP answers one connection for as long as it stays.
func (c *crew) answerTCP(listener int, o *Options) error {
	fd, err := c.accept(listener)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, response := make([]byte, o.Request), make([]byte, o.Response)
	for !c.stop.Load() {
		ok, err := c.read(fd, request, tick)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
			return nil // the client has ended
		case err != nil:
			return fmt.Errorf("server: reading a request: %w", err)
		case !ok:
			continue
		}
		if err := c.write(fd, response); err != nil {
			return fmt.Errorf("server: writing a response: %w", err)
		}
	}
	return nil
}

// answerUDP answers the first client that speaks. An answer begins with the
// number that the request began with.
func (c *crew) answerUDP(fd int, o *Options) error {
	request, response := make([]byte, o.Request), make([]byte, o.Response)
	for known := false; !c.stop.Load(); {
		var n int
		var err error
		if known {
			n, err = unix.Read(fd, request)
		} else {
			var from unix.Sockaddr
			if n, from, err = unix.Recvfrom(fd, request, 0); err == nil {
				known, err = true, unix.Connect(fd, from)
			}
		}
		if again(err) {
			continue
		}
		if err == nil && n >= minDatagram {
			copy(response, request[:minDatagram])
			err = c.write(fd, response)
		}
		// The client's socket is gone when the run has ended.
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("server: %w", err)
		}
	}
	return nil
}

// noAnswer is the error of a server that says nothing.
func noAnswer(o *Options, at netip.AddrPort, within time.Duration) error {
	return fmt.Errorf("no answer from %s within %s: see whether the device under test drops or has no route: nsenter --net=%s ping %s",
		at, within, o.Client.Path(), at.Addr())
}
