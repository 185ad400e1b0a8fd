package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// Two workers share a node's pods: whichever of them takes a packet, it finds the
// one flow of its connection, and what a pod sends in order arrives in order.
func TestTwoWorkers(t *testing.T) {
	opts := mixedPods
	opts.Config = "workers: 2\n"
	c := up(t, opts)
	for _, w := range ways(c) {
		t.Run(w.String(), func(t *testing.T) {
			transfer(t, w.from.Netns, w.to.Netns, w.to.Addr.String(), 1, bulk/10)
			transfer(t, w.from.Netns, w.to.Netns, w.to.Addr.String(), 64, bulk/400)
			echoUDP(t, w.from.Netns, w.to.Netns, w.to.Addr.String(), 100, 1422, 9000, 65000)
			inOrder(t, w.from, w.to)
		})
	}
	n := c.Nodes[0]
	conns := keepOpen(t, n.Pods[0], c.Nodes[1].Pods[0], 40)
	found := map[string]int{}
	for _, f := range culvertJSON[[]api.Flow](t, n, "flow") {
		if f.State == "ESTABLISHED" && f.Src == n.Pods[0].Addr.String() {
			found[fmt.Sprintf("%s:%d", f.Src, f.Sport)]++
		}
	}
	for _, conn := range conns {
		if from := conn.LocalAddr().String(); found[from] != 1 {
			t.Errorf("the connection from %s has %d flows", from, found[from])
		}
	}
	before := received(t, n)
	transfer(t, n.Pods[0].Netns, c.Nodes[1].Pods[0].Netns, c.Nodes[1].Pods[0].Addr.String(), 64, bulk/400)
	for id, now := range received(t, n) {
		if now == before[id] {
			t.Errorf("worker %d took no frame of 64 connections", id)
		}
	}
	for _, n := range c.Nodes {
		for _, reason := range []string{"port_gone", "cannot_segment", "bug"} {
			if d := dropped(t, n, reason); d != 0 {
				t.Errorf("%s: %d frames dropped: %s", n.Name, d, reason)
			}
		}
	}
}

// inOrder sends numbered datagrams of changing size and wants those that arrive in
// ascending order.
func inOrder(t *testing.T, from, to *lab.Pod) {
	t.Helper()
	const datagrams = 5000 / slower
	var server net.PacketConn
	err := inside(to.Netns, func() (err error) {
		server, err = net.ListenPacket("udp4", ":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	roomy(t, server.(*net.UDPConn))
	var client net.Conn
	err = inside(from.Netns, func() (err error) {
		client, err = net.Dial("udp4", net.JoinHostPort(to.Addr.String(), strconv.Itoa(server.LocalAddr().(*net.UDPAddr).Port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	go func() {
		b := make([]byte, 1400)
		for i := range uint32(datagrams) {
			binary.BigEndian.PutUint32(b, i)
			client.Write(b[:8+i*97%1390])
			if i%32 == 31 {
				time.Sleep(500 * time.Microsecond)
			}
		}
	}()
	b, next, got := make([]byte, 2048), uint32(0), 0
	for next < datagrams {
		server.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, _, err := server.ReadFrom(b)
		if err != nil {
			break
		}
		i := binary.BigEndian.Uint32(b[:n])
		if i < next {
			t.Fatalf("datagram %d came behind %d", i, next-1)
		}
		next = i + 1
		got++
	}
	if got < datagrams/2 { // a busy machine may lose some: the rings are short
		t.Errorf("%d of %d datagrams came", got, datagrams)
	}
}

// roomy gives a socket room for what comes while its reader does not run.
func roomy(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// received is how many frames each worker has taken.
func received(t *testing.T, n *lab.Node) (list []uint64) {
	t.Helper()
	for _, w := range culvertJSON[api.Status](t, n, "status").Workers {
		list = append(list, w.BurstFrames)
	}
	return list
}

// keepOpen opens TCP connections whose far end sends everything back.
func keepOpen(t *testing.T, from, to *lab.Pod, n int) (conns []net.Conn) {
	t.Helper()
	l, port := listen(t, to.Netns)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	for range n {
		c, err := dial(from.Netns, fmt.Sprintf("%s:%d", to.Addr, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := answered(c); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return conns
}

// answered sends a few bytes and wants them back.
func answered(c net.Conn) error {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("still here")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len("still here")))
	return err
}
