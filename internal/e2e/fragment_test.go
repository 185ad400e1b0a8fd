package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ctrl/api"
	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// fragments are the IP packets of a UDP datagram in fragments of size bytes, of
// the datagram's bytes from the offsets on.
func fragments(t *testing.T, src, dst string, port int, id uint16, payload []byte, size int, offsets ...int) (packets [][]byte) {
	t.Helper()
	n := len(payload) + 8
	udp := append([]byte{0x30, 0x39, byte(port >> 8), byte(port), byte(n >> 8), byte(n), 0, 0}, payload...)
	for _, off := range offsets {
		end := min(off+size, n)
		f := kit.Frame(t, kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"),
			kit.IP4(src, dst, kit.ID(id), kit.Fragment(off, end < n), kit.Proto(17)), kit.Bytes(udp[off:end]...))
		packets = append(packets, f[14:14+20+end-off])
	}
	return packets
}

// sendIP sends IP packets as they are from a namespace.
func sendIP(t *testing.T, ns, dst string, packets ...[]byte) {
	t.Helper()
	to := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(dst).To4())}
	if err := inside(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, to); err != nil {
				return fmt.Errorf("sending %d bytes: %w", len(p), err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// sink listens for UDP in a namespace.
func sink(t *testing.T, ns string) (c net.PacketConn, port int) {
	t.Helper()
	if err := inside(ns, func() (err error) {
		c, err = net.ListenPacket("udp4", ":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).Port
}

// wantDatagram fails unless the next datagram holds want.
func wantDatagram(t *testing.T, what string, c net.PacketConn, want []byte) {
	t.Helper()
	b := make([]byte, 65536)
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if n, _, err := c.ReadFrom(b); err != nil || !bytes.Equal(b[:n], want) {
		t.Errorf("%s: %d bytes, %v, want %d", what, n, err, len(want))
	}
}

// Fragments in any order come together at the receiver; out of overlapping ones
// it can make nothing.
func TestFragmentsInDisorder(t *testing.T) {
	for _, peer := range lab.Kinds {
		t.Run(string(peer), func(t *testing.T) {
			c := up(t, lab.Options{Peer: peer})
			n := c.Nodes[0]
			a, local, b := n.Pods[0], n.Pods[1], c.Nodes[1].Pods[0]
			payload := kit.Pattern(9*1000 + 93)
			var offsets []int
			for off := 0; off < len(payload)+8; off += 1000 {
				offsets = append(offsets, off)
			}
			reverse := slices.Clone(offsets)
			slices.Reverse(reverse)
			swapped := slices.Clone(offsets)
			swapped[0], swapped[4] = swapped[4], swapped[0]
			overlap := []int{0, 1000, 1992, 3000}
			for _, to := range []*lab.Pod{b, local} {
				conn, port := sink(t, to.Netns)
				src, dst := a.Addr.String(), to.Addr.String()
				before := dropped(t, n, "fragment_overlap")
				sendIP(t, a.Netns, dst, fragments(t, src, dst, port, 99, payload, 1000, overlap...)...)
				sendIP(t, a.Netns, dst, fragments(t, src, dst, port, 100, payload, 1000, reverse...)...)
				wantDatagram(t, "in reverse order to "+to.Name, conn, payload)
				sendIP(t, a.Netns, dst, fragments(t, src, dst, port, 101, payload, 1000, swapped...)...)
				wantDatagram(t, "with two out of order to "+to.Name, conn, payload)
				eventually(t, "fragment_overlap", func() error {
					if got := dropped(t, n, "fragment_overlap") - before; got != 2 { // the overlapping one and what follows
						return fmt.Errorf("%d counted, want 2", got)
					}
					return nil
				})
			}
			fromWire(t, c, payload, reverse)
			eventually(t, "no frame waits", func() error {
				for _, w := range culvertJSON[api.Status](t, n, "status").Workers {
					if w.Fragments.Held != 0 {
						return fmt.Errorf("worker %d: %+v", w.ID, w.Fragments)
					}
				}
				return nil
			})
		})
	}
}

// fromWire sends fragments in reverse order through a node's tunnel.
func fromWire(t *testing.T, c *cluster, payload []byte, reverse []int) {
	t.Helper()
	n, k := c.Nodes[0], c.Nodes[1]
	a, b := n.Pods[0], k.Pods[0]
	conn, port := sink(t, a.Netns)
	nic, wire := devMAC(t, n.Netns, nic0), devMAC(t, k.Netns, nic0)
	vtep := culvertJSON[api.Status](t, n, "status").VTEP.MAC
	var frames [][]byte
	for _, p := range fragments(t, b.Addr.String(), a.Addr.String(), port, 102, payload, 1000, reverse...) {
		frames = append(frames, kit.Frame(t, kit.Eth(wire, nic), kit.IP4(k.Addr.String(), n.Addr.String()), kit.UDP(40000, c.Port), kit.VXLANHeader(c.VNI),
			kit.EthType("02:00:00:00:00:99", vtep, 0x0800), kit.Bytes(p...)))
	}
	rawSend(t, k.Netns, nic0, frames...)
	wantDatagram(t, "in reverse order from the wire", conn, payload)
}

// All fragments of a datagram arrive at the same one of several workers, whatever
// way they come: else some of them would wait for a first one that never comes.
func TestFragmentsMeetAtOneWorker(t *testing.T) {
	c := up(t, lab.Options{Interfaces: []string{"veth", "tap"}})
	for _, n := range c.Nodes {
		if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.Nodes {
		eventually(t, "the kernel has closed the sockets", func() error {
			_, err := netns(n.Netns, "ethtool", "-L", nic0, "rx", "2", "tx", "2")
			return err
		})
	}
	for _, n := range c.Nodes {
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		for _, p := range n.Pods { // with queues for both workers
			for _, command := range []string{"DEL", "ADD"} {
				if _, err := c.CNI(context.Background(), n, p, command); err != nil {
					t.Fatal(err)
				}
			}
			p.Addr = netip.MustParseAddr(podNamed(t, n, p.Name).Addrs[0])
		}
	}
	for _, p := range c.Nodes[0].Pods {
		for _, to := range c.Nodes[1].Pods {
			for range 12 { // other ports, other queues
				echoUDP(t, p.Netns, to.Netns, to.Addr.String(), 1400, 3000, 9000, 65000)
			}
		}
	}
	for _, node := range c.Nodes {
		s := culvertJSON[api.Status](t, node, "status")
		if len(s.Workers) != 2 || s.Workers[0].BurstFrames == 0 || s.Workers[1].BurstFrames == 0 {
			t.Fatalf("%s: %+v", node.Name, s.Workers)
		}
		eventually(t, "no datagram is left in pieces", func() error {
			for _, w := range culvertJSON[api.Status](t, node, "status").Workers {
				if w.Fragments != (api.Fragments{}) {
					return fmt.Errorf("%s, worker %d: %+v", node.Name, w.ID, w.Fragments)
				}
			}
			return nil
		})
	}
}
