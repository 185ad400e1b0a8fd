package testnet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Ping sends one echo request with n bytes of data from the namespace and waits
// at most timeout for the reply to exactly that.
func (ns *NS) Ping(t testing.TB, to string, n int, timeout time.Duration) (err error) {
	t.Helper()
	ns.Do(t, func() { err = ping(netip.MustParseAddr(to), n, timeout) })
	return err
}

// MustPing pings until a reply comes, for at most five seconds: the first
// packets of a new device can be lost while its carrier comes up.
func (ns *NS) MustPing(t testing.TB, to string) {
	t.Helper()
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if err = ns.Ping(t, to, 56, 300*time.Millisecond); err == nil {
			return
		}
	}
	t.Fatalf("no reply from %s: %v", to, err)
}

func ping(to netip.Addr, n int, timeout time.Duration) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := net.ListenPacket(network, "")
	if err != nil {
		return fmt.Errorf("opening a raw socket: %w", err)
	}
	defer conn.Close()
	msg := make([]byte, 8+n)
	msg[0] = request
	binary.BigEndian.PutUint64(msg[4:], uint64(time.Now().UnixNano())) // identifier, sequence and a little data
	for i := 12; i < len(msg); i++ {
		msg[i] = byte(i)
	}
	if !to.Is6() { // the kernel sums ICMPv6 itself
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	if _, err := conn.WriteTo(msg, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		return fmt.Errorf("sending an echo request: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	for buf := make([]byte, 65536); ; {
		got, _, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("waiting for the echo reply: %w", err)
		}
		if got == len(msg) && buf[0] == reply && bytes.Equal(buf[4:got], msg[4:]) {
			return nil
		}
	}
}

// checksum is the Internet checksum of b (RFC 1071).
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
