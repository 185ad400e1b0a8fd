package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// replyTimeout is how long one answer of ping and traceroute is waited for.
const replyTimeout = time.Second

// PingResult is what Ping saw.
type PingResult struct {
	Sent, Received int
	Min, Avg       time.Duration
}

// Ping sends count echo requests with size bytes of data and the don't-fragment
// bit from a pod to an address, one after the other. Missing answers are in
// the result, not an error.
func Ping(ctx context.Context, from *Pod, to netip.Addr, size, count int) (r PingResult, err error) {
	c, err := openICMP(from, to)
	if err != nil {
		return r, err
	}
	defer unix.Close(c.fd)
	if err := unix.SetsockoptInt(c.fd, c.level, c.discover, unix.IP_PMTUDISC_DO); err != nil {
		return r, fmt.Errorf("ping: %w", err)
	}
	var sum time.Duration
	for range count {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		rtt, ok, err := pingOnce(c, to, size)
		if err != nil {
			return r, err
		}
		r.Sent++
		if !ok {
			continue
		}
		r.Received++
		sum += rtt
		if r.Min == 0 || rtt < r.Min {
			r.Min = rtt
		}
	}
	if r.Received > 0 {
		r.Avg = sum / time.Duration(r.Received)
	}
	return r, nil
}

// icmp is a raw ICMP or ICMPv6 socket, and what the family's numbers are.
type icmp struct {
	fd                        int
	v6                        bool
	level, discover, hopLimit int   // of setsockopt
	request, reply            byte  // types of echo
	unreachable, port         uint8 // type and code of "port unreachable"
}

// openICMP opens a socket in a pod for messages about an address. It stays there
// whichever thread uses it.
func openICMP(p *Pod, to netip.Addr) (*icmp, error) {
	c := &icmp{level: unix.IPPROTO_IP, discover: unix.IP_MTU_DISCOVER, hopLimit: unix.IP_TTL, request: 8, unreachable: 3, port: 3}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() {
		c = &icmp{v6: true, level: unix.IPPROTO_IPV6, discover: unix.IPV6_MTU_DISCOVER, hopLimit: unix.IPV6_UNICAST_HOPS,
			request: 128, reply: 129, unreachable: 1, port: 4}
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	err := enter(p.Netns, func() (err error) {
		c.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ICMP socket in pod %s: %w", p.Name, err)
	}
	return c, nil
}

// sockaddr is an address and port for the kernel.
func sockaddr(to netip.Addr, port int) unix.Sockaddr {
	if to.Is6() {
		return &unix.SockaddrInet6{Port: port, Addr: to.As16()}
	}
	return &unix.SockaddrInet4{Port: port, Addr: to.As4()}
}

// echoSeq numbers the requests of this process, so that no late reply is taken
// for another's. Their identifier is the process, as ping(8) does it: all pings
// between two pods are one flow.
var echoSeq atomic.Uint32

// pingOnce sends one request and waits for its reply.
func pingOnce(c *icmp, to netip.Addr, size int) (rtt time.Duration, ok bool, err error) {
	id, seq := uint16(os.Getpid()), uint16(echoSeq.Add(1))
	req := make([]byte, 8+size)
	req[0] = c.request
	binary.BigEndian.PutUint16(req[4:], id)
	binary.BigEndian.PutUint16(req[6:], seq)
	for i := range size {
		req[8+i] = byte(i)
	}
	if !c.v6 { // the kernel sums ICMPv6 itself
		binary.BigEndian.PutUint16(req[2:], checksum(req))
	}
	start := time.Now()
	err = unix.Sendto(c.fd, req, 0, sockaddr(to, 0))
	if errors.Is(err, unix.EMSGSIZE) {
		return 0, false, nil // larger than the path's MTU: no answer can come
	}
	if err != nil {
		return 0, false, fmt.Errorf("ping %s: %w", to, err)
	}
	end := start.Add(replyTimeout)
	for {
		msg, _, err := c.receive(end)
		if err != nil || msg == nil {
			return 0, false, err
		}
		if msg[0] == c.reply && len(msg) == len(req) && binary.BigEndian.Uint16(msg[4:]) == id && binary.BigEndian.Uint16(msg[6:]) == seq {
			return time.Since(start), true, nil
		}
	}
}

// receive waits for the next ICMP message until end; nil when none came.
func (c *icmp) receive(end time.Time) (msg []byte, from netip.Addr, err error) {
	buf := make([]byte, 65536)
	for {
		left := time.Until(end)
		if left <= 0 {
			return nil, netip.Addr{}, nil
		}
		poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, netip.Addr{}, fmt.Errorf("waiting for ICMP: %w", err)
		}
		n, sa, err := unix.Recvfrom(c.fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, netip.Addr{}, fmt.Errorf("receiving ICMP: %w", err)
		}
		header := 0 // an ICMPv6 socket gives none (RFC 3542 3)
		if !c.v6 {
			header = int(buf[0]&0xf) * 4
		}
		if n < header+8 {
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			from = netip.AddrFrom4(sa.Addr)
		case *unix.SockaddrInet6:
			from = netip.AddrFrom16(sa.Addr)
		}
		return buf[header:n], from, nil
	}
}

// checksum is the Internet checksum of b (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
