// Package loadtest is the test kit of generators: a little network to send
// into, and a comparison of what arrives with what the plan says.
package loadtest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/testbed"

	"golang.org/x/sys/unix"
)

// Bed is a testbed with so many pods, connected.
func Bed(t *testing.T, pods int) *testbed.Bed {
	t.Helper()
	bed, err := testbed.New(context.Background(), testbed.Options{Pods: pods, Peers: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := bed.ConnectPods(1500); err != nil {
		t.Fatal(err)
	}
	return bed
}

// FromPods is a load of all pods to all peers, slow enough for none to be lost.
func FromPods(bed *testbed.Bed) load.Config {
	c := load.Config{
		NextHop: testbed.GatewayMAC, Sizes: load.Fixed(64), Flows: 40, Rate: 10000, MaxFrames: 1000,
		MaxTime: 30 * time.Second, CPU: -1, Enter: bed.Pod.Enter,
	}
	for _, p := range bed.Pods {
		c.Outs = append(c.Outs, load.Out{Device: p.Ifindex, MAC: p.MAC, Addr: p.Addr})
	}
	for _, p := range bed.Peers {
		c.Destinations = append(c.Destinations, p.Pod())
	}
	return c
}

// FromWire is a load of all peers to all pods, in a tunnel.
func FromWire(t *testing.T, bed *testbed.Bed, kind load.Kind) load.Config {
	t.Helper()
	wire, err := bed.Wire.Link(testbed.WireDevice)
	if err != nil {
		t.Fatal(err)
	}
	c := FromPods(bed)
	c.NextHop, c.Enter, c.Outs, c.Destinations = testbed.NodeVTEP, bed.Wire.Enter, nil, nil
	c.Tunnel = &load.Tunnel{
		Kind: kind, SrcMAC: testbed.WireMAC, DstMAC: testbed.UplinkMAC, Dst: testbed.NodeAddr, Port: testbed.Port, VNI: testbed.VNI,
	}
	for _, p := range bed.Peers {
		c.Outs = append(c.Outs, load.Out{Device: wire.Index, MAC: p.VTEP, Addr: p.Pod(), Peer: p.Addr})
	}
	for _, p := range bed.Pods {
		c.Destinations = append(c.Destinations, p.Addr)
	}
	return c
}

// Far are the node's devices at the other ends, by the index of the one that
// sends.
func Far(t *testing.T, bed *testbed.Bed) map[int]int {
	t.Helper()
	far := make(map[int]int)
	pair := func(from int, name string) {
		l, err := bed.Node.Link(name)
		if err != nil {
			t.Fatal(err)
		}
		far[from] = l.Index
	}
	wire, err := bed.Wire.Link(testbed.WireDevice)
	if err != nil {
		t.Fatal(err)
	}
	pair(-wire.Index, testbed.Uplink) // of another namespace than the pods'
	for _, p := range bed.Pods {
		pair(p.Ifindex, p.Host)
	}
	return far
}

// Capture is whole frames that arrived at a namespace's devices.
type Capture struct {
	t  *testing.T
	fd int
}

// Listen begins to capture what arrives in the node.
func Listen(t *testing.T, bed *testbed.Bed) *Capture {
	t.Helper()
	c := &Capture{t: t}
	err := bed.Node.Do(func() (err error) {
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300) // ETH_P_ALL in network byte order
		if err != nil {
			return err
		}
		return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

// Frames are those that arrived, by device: n of them, or what is there when
// none has come for some seconds.
func (c *Capture) Frames(n int) map[int][][]byte {
	c.t.Helper()
	all := make(map[int][][]byte)
	b := make([]byte, 4096)
	poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	for got := 0; got < n; {
		ready, err := unix.Poll(poll, 3000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || ready == 0 {
			break
		}
		size, from, err := unix.Recvfrom(c.fd, b, 0)
		link, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok {
			c.t.Fatal(err)
		}
		if link.Pkttype != unix.PACKET_OUTGOING {
			got++
			all[link.Ifindex] = append(all[link.Ifindex], bytes.Clone(b[:size]))
		}
	}
	return all
}

// Check compares what arrived with what the configuration's plan says: byte for
// byte, in the same order on each device, without more than a few missing.
func Check(t *testing.T, bed *testbed.Bed, cfg load.Config, frames map[int][][]byte) {
	t.Helper()
	plan, err := cfg.Plan()
	if err != nil {
		t.Fatal(err)
	}
	far := Far(t, bed)
	want := make(map[int][][]byte)
	s := plan.Stream()
	for range cfg.MaxFrames {
		flow, n := s.Next()
		from := plan.Outs[plan.Out(flow)].Device
		if cfg.Tunnel != nil {
			from = -from
		}
		want[far[from]] = append(want[far[from]], plan.Frame(flow, n))
	}
	missing, all := 0, 0
	for device, list := range frames {
		if _, ok := want[device]; !ok {
			t.Errorf("%d frames at device %d, want none", len(list), device)
		}
	}
	for device, list := range want {
		got := frames[device]
		all += len(list)
		for _, w := range list {
			switch {
			case len(got) > 0 && bytes.Equal(got[0], w):
				got = got[1:]
			default:
				missing++
			}
		}
		if len(got) > 0 {
			t.Errorf("device %d got a frame that is not the next of the plan:\n% x", device, got[0])
		}
	}
	if missing > all/10 {
		t.Errorf("of %d frames %d did not arrive", all, missing)
	}
}
