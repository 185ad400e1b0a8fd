package rr

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Connect opens a TCP connection for each request and closes it after the
// response; Options.Connections is how many clients do so at the same time.
//
// A time is that of the whole, from making the socket to closing it. The server
// closes first, as one of HTTP/1.0 does: TIME_WAIT, in which ports would run out,
// is then the server's, whose one port takes a new connection over an
// old one (net/ipv4/tcp_minisocks.c, tcp_timewait_state_process), and the
// client's ports are free at once.
//
// Everything has ended when Connect returns, which is within 100 ms of the end of
// ctx.
func Connect(ctx context.Context, o Options) (Result, error) {
	o = o.full()
	err := o.check()
	if err == nil && (o.Network != "tcp" || o.Rate != 0) {
		err = errors.New("connections a second are of TCP, and without a rate")
	}
	if err != nil {
		return Result{}, fmt.Errorf("rr: %w", err)
	}
	r, err := connect(ctx, &o)
	if err != nil {
		return Result{}, fmt.Errorf("rr: %d connections at a time to %s: %w", o.Connections, o.Addr, err)
	}
	return r, nil
}

func connect(ctx context.Context, o *Options) (Result, error) {
	servers, err := openServers(o)
	if err != nil {
		return Result{}, err
	}
	defer closeServers(servers)
	c := newCrew(ctx, o.Connections)
	var all []*recorder
	for range o.Connections {
		c.thread(o.Server, func() error { return stopped(c.serveEach(servers[0].fd, o)) })
		k := &connector{client: newClient(c, o, 0, servers[0].at), to: sockaddr(servers[0].at)}
		all = append(all, k.recorder)
		c.client(o.Client, func() error { return stopped(k.run()) })
	}
	if err := c.measure(o); err != nil {
		return Result{}, err
	}
	return summarize(all, o.Duration)
}

// serveEach answers one request of each connection, and closes it.
func (c *crew) serveEach(listener int, o *Options) error {
	request, response := make([]byte, o.Request), make([]byte, o.Response)
	for {
		fd, err := c.accept(listener)
		if err != nil {
			return err
		}
		ok, err := c.read(fd, request, o.Patience)
		if ok {
			err = c.write(fd, response)
		}
		err = errors.Join(err, unix.Close(fd))
		// A client that has ended or given up says so itself.
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("server: %w", err)
		}
	}
}

// connector is a client with many connections, one after the other.
type connector struct {
	*client
	to  unix.Sockaddr
	end [1]byte
}

func (k *connector) run() error {
	if err := k.once(); err != nil {
		return err
	}
	if !k.crew.meet() {
		return nil
	}
	k.ask = k.once
	return k.unpaced()
}

// once opens a connection, asks, and closes when the server has.
func (k *connector) once() (err error) {
	if k.fd, err = open("tcp", k.at.Addr()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(k.fd)) }()
	if err := k.connect(k.to); err != nil {
		return err
	}
	if err := k.askTCP(); err != nil {
		return err
	}
	ok, err := k.crew.read(k.fd, k.end[:], k.o.Patience)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("waiting for the end of %s: %w", k.at, err)
	case ok:
		return fmt.Errorf("%s answers more than was asked for", k.at)
	}
	return noAnswer(k.o, k.at, k.o.Patience)
}
