package e2e

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// What a pod sends with UDP_SEGMENT leaves it as one big frame, from a veth as from a
// tap, and arrives as the datagrams that it meant, each with its own end and contents.
func TestUDPSegment(t *testing.T) {
	for _, peer := range []lab.Kind{lab.Culvert, lab.Flannel} {
		t.Run(string(peer), func(t *testing.T) {
			opts := mixedPods
			opts.Peer = peer
			c := up(t, opts)
			for _, w := range ways(c) {
				if w.from.Node != c.Nodes[0].Name || peer != lab.Culvert && w.from.Node == w.to.Node {
					continue // as from the other node, or in the other lab
				}
				t.Run(w.String(), func(t *testing.T) {
					must(t, w.from.Netns, "ping", "-n", "-c", "1", "-W", "2", w.to.Addr.String())
					before := bigFrames(t, c.Nodes[0])
					sends := sendSegmented(t, w.from, w.to)
					if n := bigFrames(t, c.Nodes[0]) - before; n != uint64(sends) {
						t.Errorf("%d big frames passed the node, want %d", n, sends)
					}
				})
			}
		})
	}
}

// Without the intake, a veth's gso_size is lost on the way: the pod cuts by itself.
func TestUDPSegmentInGenericMode(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Config: "xdp: {mode: generic}\n"})
	n := c.Nodes[0]
	sendSegmented(t, n.Pods[0], n.Pods[1])
	if n := bigFrames(t, n); n != 0 {
		t.Errorf("%d big frames passed the node", n)
	}
}

// bigFrames is how many a node's workers have passed on, whole or cut.
func bigFrames(t *testing.T, n *lab.Node) (sum uint64) {
	t.Helper()
	for _, w := range culvertJSON[api.Status](t, n, "status").Workers {
		sum += w.Big.Whole + w.Big.Cut
	}
	return sum
}

// sendSegmented sends some batches of datagrams from one pod to another, each with a
// single call, and compares what arrives. It returns the number of batches.
func sendSegmented(t *testing.T, from, to *lab.Pod) int {
	t.Helper()
	const solUDP, udpSegment = 17, 103
	var server, client *net.UDPConn
	for ns, conn := range map[string]**net.UDPConn{to.Netns: &server, from.Netns: &client} {
		err := inside(ns, func() (err error) {
			*conn, err = net.ListenUDP("udp4", nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer (*conn).Close()
	}
	_ = server.SetReadBuffer(4 << 20)
	dst := netip.AddrPortFrom(to.Addr, uint16(server.LocalAddr().(*net.UDPAddr).Port))
	batches := []struct{ size, bytes int }{{1200, 20*1200 + 500}, {1422, 40 * 1422}, {100, 60 * 100}, {1000, 1001}, {700, 1400}}
	for _, b := range batches {
		payload := make([]byte, b.bytes)
		rand.Read(payload)
		oob := make([]byte, unix.CmsgSpace(2))
		h := (*[unix.SizeofCmsghdr]byte)(oob) // struct cmsghdr: length, level, type
		binary.NativeEndian.PutUint64(h[0:], uint64(unix.CmsgLen(2)))
		binary.NativeEndian.PutUint32(h[8:], solUDP)
		binary.NativeEndian.PutUint32(h[12:], udpSegment)
		binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(b.size))
		if _, _, err := client.WriteMsgUDPAddrPort(payload, oob, dst); err != nil {
			t.Fatalf("sending %d bytes to be cut to %d: %v", b.bytes, b.size, err)
		}
		if err := receiveSegments(server, payload, b.size); err != nil {
			t.Fatalf("%d bytes cut to %d: %v", b.bytes, b.size, err)
		}
	}
	return len(batches)
}

// receiveSegments wants the datagrams that payload is to be cut into, in order.
func receiveSegments(server *net.UDPConn, payload []byte, size int) error {
	buf := make([]byte, 65536)
	server.SetReadDeadline(time.Now().Add(3 * time.Second))
	for at := 0; at < len(payload); at += size {
		want := payload[at:min(at+size, len(payload))]
		n, _, flags, _, err := server.ReadMsgUDPAddrPort(buf, nil)
		if err != nil {
			return fmt.Errorf("datagram %d: %w", at/size, err)
		}
		if flags&syscall.MSG_TRUNC != 0 || string(buf[:n]) != string(want) {
			return fmt.Errorf("datagram %d has %d bytes, want %d, or other contents", at/size, n, len(want))
		}
	}
	return nil
}
