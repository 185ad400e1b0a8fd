package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoAnswer is an echo request that nobody answered in time.
var ErrNoAnswer = errors.New("no answer")

// ErrTooBig is an echo request that does not fit the device that it would leave by.
var ErrTooBig = errors.New("larger than the device's MTU")

// family is what differs between ICMP and ICMPv6.
type family struct {
	network        string
	request, reply byte
	header         int // of IP, in bytes
	level, option  int // that keeps packets whole, whatever is known of the path
	mode           int
}

var families = map[bool]family{
	true:  {"ip4:icmp", 8, 0, 20, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
	false: {"ip6:ipv6-icmp", 128, 129, 40, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
}

// pingTries is how often an answer is asked for, pingWait how long one is waited for.
const (
	pingTries = 3
	pingWait  = 500 * time.Millisecond
)

// Ping asks an address for an echo with IP packets of size bytes, which no router may
// cut, from the caller's network namespace. Without an answer to any it is ErrNoAnswer.
func Ping(ctx context.Context, to netip.Addr, size int) error {
	f := families[to.Is4()]
	conn, err := net.ListenPacket(f.network, "")
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer conn.Close()
	if err := keepWhole(conn, f); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	id := uint16(rand.Uint32())
	for seq := range uint16(pingTries) {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := conn.WriteTo(echo(f, id, seq, size), &net.IPAddr{IP: to.AsSlice()})
		switch {
		case errors.Is(err, unix.EMSGSIZE):
			return ErrTooBig
		case errors.Is(err, unix.ENOBUFS): // the device's queue, or its other end, did not take it
			continue
		}
		if err == nil {
			err = answered(conn, f, to, id)
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return ErrNoAnswer
}

func keepWhole(conn net.PacketConn, f family) error {
	raw, err := conn.(*net.IPConn).SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), f.level, f.option, f.mode) })
	return errors.Join(err, set)
}

// echo is a request; the kernel adds the IP header, and ICMPv6's checksum.
func echo(f family, id, seq uint16, size int) []byte {
	b := make([]byte, max(size-f.header, 8))
	b[0] = f.request
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if f.request == 8 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// answered waits for the echo of a request.
func answered(conn net.PacketConn, f family, from netip.Addr, id uint16) error {
	if err := conn.SetReadDeadline(time.Now().Add(pingWait)); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	for {
		n, addr, err := conn.ReadFrom(b)
		if err != nil {
			return err
		}
		sender, _ := netip.AddrFromSlice(addr.(*net.IPAddr).IP)
		if n >= 8 && sender.Unmap() == from && b[0] == f.reply && binary.BigEndian.Uint16(b[4:]) == id {
			return nil
		}
	}
}
