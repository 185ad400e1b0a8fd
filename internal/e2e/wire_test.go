package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ctrl/podlink"
	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// Two labs alike but for what the first node runs: Culvert in one, the kernel in the
// other, set up as Flannel or Calico does it. Frames are put in by hand at one end of
// the first node and taken as they come out at the other: from a pod to the wire, and
// from the wire to the pod. What differs between the labs differs between Culvert and
// Linux.

// bed is one of the labs.
type bed struct {
	*cluster
	pod, wire       *tap
	gateway         []byte // Ethernet addresses
	podMAC, nodeMAC []byte
	peerMAC         []byte
	linux           bool
	seq             uint64
}

// newBed builds a lab whose first node is of a kind, the second of the kernel's.
func newBed(t *testing.T, first, second lab.Kind, underlay lab.Family) *bed {
	t.Helper()
	b := &bed{linux: first != lab.Culvert}
	b.cluster = up(t, lab.Options{NodeKinds: []lab.Kind{first, second}, Pods: 1, Family: lab.Dual, Underlay: underlay, Config: "workers: 1\n"})
	node, pod, peer := b.Nodes[0], b.Nodes[0].Pods[0], b.Nodes[1]
	hostEnd := ""
	switch first {
	case lab.Calico:
		hostEnd = podlink.HostName("cali", lab.Namespace, pod.Name, "")
	case lab.Flannel:
		hostEnd = "veth-" + pod.Name
	}
	// The pod sends more than fits, and checksums are complete on the wire.
	must(t, pod.Netns, "ip", "link", "set", "eth0", "mtu", "1500")
	if hostEnd != "" {
		must(t, node.Netns, "ip", "link", "set", hostEnd, "mtu", "1500")
	}
	must(t, node.Netns, "ethtool", "-K", "eth0", "tx", "off")
	b.gateway = podlink.HostMAC
	if first == lab.Flannel {
		b.gateway = macOf(t, node.Netns, "cni0")
	}
	b.podMAC, b.nodeMAC, b.peerMAC = macOf(t, pod.Netns, "eth0"), macOf(t, node.Netns, "eth0"), macOf(t, peer.Netns, "eth0")
	for _, a := range peer.Pods[0].Addrs { // every neighbour on the way is known
		must(t, pod.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", a.String())
	}
	b.pod, b.wire = openTap(t, pod.Netns), openTap(t, peer.Netns)
	return b
}

func macOf(t *testing.T, ns, dev string) []byte {
	t.Helper()
	mac, err := net.ParseMAC(strings.TrimSpace(must(t, ns, "cat", "/sys/class/net/"+dev+"/address")))
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// tap is a packet socket on a namespace's eth0: what it sends the device sends, what
// it gets the device has received.
type tap struct {
	fd, index int
	buf       []byte
}

func openTap(t *testing.T, ns string) *tap {
	t.Helper()
	w := &tap{fd: -1, buf: make([]byte, 65536)}
	err := inside(ns, func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		w.index = dev.Index
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		return err
	})
	if err == nil {
		t.Cleanup(func() { unix.Close(w.fd) })
		err = errors.Join(unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: w.index}))
	}
	if err != nil {
		t.Fatalf("packet socket in %s: %v", ns, err)
	}
	return w
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (w *tap) send(t *testing.T, f []byte) {
	t.Helper()
	if err := unix.Sendto(w.fd, f, 0, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(f[12:]), Ifindex: w.index}); err != nil {
		t.Fatalf("sending %d bytes: %v", len(f), err)
	}
}

// receive is the next frame, nil if none comes in time.
func (w *tap) receive(t *testing.T, wait time.Duration) []byte {
	t.Helper()
	for end := time.Now().Add(wait); ; {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(w.fd, w.buf, unix.MSG_DONTWAIT)
		if err == nil {
			return bytes.Clone(w.buf[:n])
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// mark begins the payload of the frame that ends a case.
const mark = "end of case "

// pass puts frames in at one end and returns what is ours of what comes out at the
// other, until a last frame does that takes the same way. A lost one is sent again.
func (b *bed) pass(t *testing.T, in, out *tap, frames [][]byte, last func(payload string) []byte, ours func(f []byte) bool) (got [][]byte) {
	t.Helper()
	// On one CPU all the way: the kernel keeps order on each alone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		t.Fatal(err)
	}
	for cpu := range len(was) * 64 {
		if was.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &was) }()

	for _, f := range frames {
		in.send(t, f)
	}
	b.seq++
	end := fmt.Sprintf("%s%d.", mark, b.seq)
	f := last(end)
	for range 10 {
		in.send(t, f)
		for {
			g := out.receive(t, 500*time.Millisecond)
			switch {
			case g == nil:
			case bytes.Contains(g, []byte(end)):
				return got
			case !bytes.Contains(g, []byte(mark)) && ours(g):
				got = append(got, g)
				continue
			default:
				continue
			}
			break
		}
	}
	t.Fatalf("node of kind %s: the last frame of a case did not arrive", b.Nodes[0].Kind)
	return nil
}

// ethernet puts an Ethernet header in front of an IP packet.
func ethernet(dst, src, ip []byte) []byte {
	et := []byte{0x08, 0x00}
	if ip[0]>>4 == 6 {
		et = []byte{0x86, 0xdd}
	}
	return kit.Join(dst, src, et, ip)
}

// fromPod sends IP packets from the pod and returns the VXLAN frames on the wire.
func (b *bed) fromPod(t *testing.T, packets [][]byte) [][]byte {
	t.Helper()
	var frames [][]byte
	for _, p := range packets {
		frames = append(frames, ethernet(b.gateway, b.podMAC, p))
	}
	last := func(payload string) []byte {
		return ethernet(b.gateway, b.podMAC, kit.IP(t, kit.IP4(podA4, podB4), kit.UDP(9, 9), kit.Bytes([]byte(payload)...)))
	}
	return b.pass(t, b.pod, b.wire, frames, last, func(f []byte) bool {
		o, ok := splitVXLAN(f, b.Port)
		return ok && bytes.Equal(o.inner[6:12], vtepOf(t, b.Nodes[0]))
	})
}

// fromWire sends frames to the node and returns what IP packets the pod got.
func (b *bed) fromWire(t *testing.T, frames [][]byte) (packets [][]byte) {
	t.Helper()
	last := func(payload string) []byte {
		return b.tunnel(t, nil, kit.IP(t, kit.IP4(podB4, podA4), kit.UDP(9, 9), kit.Bytes([]byte(payload)...)))
	}
	got := b.pass(t, b.wire, b.pod, frames, last, func(f []byte) bool {
		return bytes.Equal(f[:6], b.podMAC) && bytes.Contains(f, []byte(probe))
	})
	for _, f := range got {
		if !bytes.Equal(f[6:12], b.gateway) {
			t.Errorf("the pod got a frame from % x, want the gateway", f[6:12])
		}
		packets = append(packets, f[14:])
	}
	return packets
}

func vtepOf(t *testing.T, n *lab.Node) []byte {
	t.Helper()
	mac, err := net.ParseMAC(n.VTEPMAC)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// The pods of both labs have the same addresses.
const (
	podA4, podB4 = "10.244.1.2", "10.244.2.2"
	podA6, podB6 = "fd44:0:0:1::2", "fd44:0:0:2::2"
)

// vxlanFrame are the parts of a VXLAN frame.
type vxlanFrame struct {
	eth, ip, udp, vxlan, inner []byte
}

// splitVXLAN takes a frame apart if it is a VXLAN one.
func splitVXLAN(f []byte, port uint16) (o vxlanFrame, ok bool) {
	n := 20
	if len(f) < 14+40+8+8+14 {
		return o, false
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0800:
		ok = f[23] == unix.IPPROTO_UDP && f[14] == 0x45
	case 0x86dd:
		n, ok = 40, f[20] == unix.IPPROTO_UDP
	}
	o.eth, o.ip, o.udp, o.vxlan, o.inner = f[:14], f[14:14+n], f[14+n:22+n], f[22+n:30+n], f[30+n:]
	return o, ok && binary.BigEndian.Uint16(o.udp[2:]) == port
}
