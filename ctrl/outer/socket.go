package outer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/packet"
)

// Listener is the sockets of one Local.
type Listener struct {
	local   Local
	handler Handler
	conns   []*net.IPConn
	done    sync.WaitGroup
}

// A flood of errors costs no more than so many of them in so long.
const (
	errorBurst = 200
	errorPause = 100 * time.Millisecond
)

// maxPacket is the length of the longest IP packet, and more than an ICMP error's.
const maxPacket = 65535

// Listen opens the sockets in the network namespace of the calling thread, for
// packets to l.Addr, which the node must have. Close ends what it began.
func Listen(l Local, h Handler) (*Listener, error) {
	s := &Listener{local: l, handler: h}
	type socket struct {
		network string
		options func(fd int) error
		serve   func(*net.IPConn)
	}
	is4 := l.Addr.Is4()
	var all []socket
	if is4 {
		all = append(all, socket{"ip4:icmp", s.filtered(l.errors4()), s.errors})
	} else {
		all = append(all, socket{"ip6:ipv6-icmp", s.filtered(l.errors6()), s.errors})
	}
	switch {
	case l.Port != 0 && is4:
		all = append(all, socket{"ip4:udp", s.reassembled(l.datagrams4()), s.datagrams})
	case l.Port != 0:
		all = append(all, socket{"ip6:udp", s.reassembled(l.datagrams6()), s.datagrams})
	}
	if l.IPIP && is4 {
		all = append(all, socket{"ip4:4", s.reassembled(nil), s.datagrams})
	}
	for _, sock := range all {
		conn, err := open(sock.network, l.Addr, sock.options)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listening for %s to %s: %w", sock.network, l.Addr, err), s.Close())
		}
		s.conns = append(s.conns, conn)
		s.done.Add(1)
		go func() {
			defer s.done.Done()
			sock.serve(conn)
		}()
	}
	return s, nil
}

// Close ends the sockets. No handler runs afterwards.
func (s *Listener) Close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	s.done.Wait()
	return errors.Join(errs...)
}

// open makes a raw socket that receives what is sent to addr. Options are set before
// it is bound: it never has a packet that the filter would refuse.
func open(network string, addr netip.Addr, options func(fd int) error) (*net.IPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = options(int(fd)) }), err)
	}}
	conn, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.IPConn), nil
}

// filtered are the options of a socket with a filter. The kernel takes a raw socket for
// one that sends what an error quotes in its protocol, and would believe every path MTU
// for the node's own routes (raw_err of net/ipv4/raw.c): it is told not to.
func (s *Listener) filtered(f []unix.SockFilter) func(fd int) error {
	return func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE)
		if !s.local.Addr.Is4() {
			err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE)
		}
		if err != nil || len(f) == 0 {
			return os.NewSyscallError("MTU_DISCOVER", err)
		}
		prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
		return os.NewSyscallError("SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
	}
}

// datagramBuffer is how many bytes of datagrams may wait for us.
const datagramBuffer = 1 << 20

// reassembled are the options of a socket that is told how long the fragments of a
// packet were, and how many packets it has lost.
func (s *Listener) reassembled(f []unix.SockFilter) func(fd int) error {
	return func(fd int) error {
		level, option := unix.SOL_IP, unix.IP_RECVFRAGSIZE
		if !s.local.Addr.Is4() {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVFRAGSIZE
		}
		return errors.Join(s.filtered(f)(fd),
			os.NewSyscallError("RECVFRAGSIZE", unix.SetsockoptInt(fd, level, option, 1)),
			os.NewSyscallError("SO_RXQ_OVFL", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)),
			os.NewSyscallError("SO_RCVBUFFORCE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, datagramBuffer)))
	}
}

// errors reads ICMP messages until the socket is closed.
func (s *Listener) errors(c *net.IPConn) {
	b := make([]byte, maxPacket)
	start, seen := time.Now(), 0
	for {
		n, _, _, from, err := c.ReadMsgIP(b, nil)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an error about something that this socket has sent: nothing
		}
		var e Error
		if s.local.parse(b[:n], from, &e) {
			s.handler.Error(&e)
		}
		if seen++; seen == errorBurst {
			time.Sleep(errorPause - time.Since(start))
			start, seen = time.Now(), 0
		}
	}
}

// parse reads an ICMP message of either version as a raw socket has it.
func (l *Local) parse(b []byte, from *net.IPAddr, e *Error) bool {
	if l.Addr.Is4() {
		return l.parse4(b, e)
	}
	addr, _ := netip.AddrFromSlice(from.IP)
	return l.parse6(b, addr, e)
}

// datagrams reads packets until the socket is closed. Those that came whole are none
// of ours: no uplink brought them, or its program would have taken them.
func (s *Listener) datagrams(c *net.IPConn) {
	b := make([]byte, packet.EthernetLen+packet.IPv6Len+maxPacket)
	oob := make([]byte, 128)
	at := packet.EthernetLen
	if !s.local.Addr.Is4() {
		at += packet.IPv6Len
	}
	lost := uint32(0)
	for {
		n, oobn, flags, from, err := c.ReadMsgIP(b[at:], oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || flags&unix.MSG_TRUNC != 0 || from == nil {
			continue
		}
		fragment, sum := notes(oob[:oobn])
		if sum != lost {
			s.handler.Lost(uint64(sum - lost))
			lost = sum
		}
		peer, ok := netip.AddrFromSlice(from.IP)
		if peer = peer.Unmap(); fragment == 0 || !ok {
			continue
		}
		s.header(b, n, peer)
		s.handler.Datagram(&Datagram{Peer: peer, Frame: b[:at+n], Fragment: fragment})
	}
}

// header writes what a raw socket has taken off in front of n bytes.
func (s *Listener) header(b []byte, n int, from netip.Addr) {
	clear(b[:packet.EthernetLen])
	eth := packet.Ethernet(b)
	if s.local.Addr.Is4() {
		eth.SetEtherType(packet.EtherTypeIPv4)
		return
	}
	eth.SetEtherType(packet.EtherTypeIPv6)
	h := packet.IPv6(b[packet.EthernetLen : packet.EthernetLen+packet.IPv6Len])
	clear(h)
	h[0], h[6] = 0x60, packet.ProtoUDP
	h.SetPayloadLen(n)
	h.SetHopLimit(1)
	src, dst := packet.AddrFrom(from), packet.AddrFrom(s.local.Addr)
	h.SetSrc(&src)
	h.SetDst(&dst)
}

// notes reads the control messages: the length of the longest fragment, and how many
// packets the socket has lost so far.
func notes(oob []byte) (fragment int, lost uint32) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0
	}
	for _, m := range all {
		if len(m.Data) < 4 {
			continue
		}
		v := binary.NativeEndian.Uint32(m.Data)
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL:
			lost = v
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVFRAGSIZE,
			m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVFRAGSIZE:
			fragment = int(v)
		}
	}
	return fragment, lost
}
