package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os/exec"
	"testing"

	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"
	"culvert/dataplane/vnet"
	"culvert/internal/pkttest"
	"culvert/internal/testnet"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire is a node with an Uplink, and another that decapsulates with Linux's own
// VXLAN device:
//
//	node [cvg… →] up0 ──── up0 vx0 far
//	10.1.0.1                   10.1.0.2
type wire struct {
	t         testing.TB
	node, far *testnet.NS
	pool      *frame.Pool
	up        *Uplink
	vx, outer int // packet sockets in far: on vx0 with offloads, on up0 without
}

const (
	wireVNI  = 4096
	innerSrc = "02:00:00:00:00:01"
	innerDst = "02:00:00:00:00:02"
)

func newWire(t testing.TB) *wire {
	w := &wire{t: t, node: testnet.NewNS(t), far: testnet.NewNS(t)}
	testnet.Veth(t, w.node, "up0", w.far, "up0", testnet.MTU(1500))
	w.node.AddAddr(t, "up0", "10.1.0.1/24")
	w.far.AddAddr(t, "up0", "10.1.0.2/24")
	w.node.AddAddr(t, "up0", "fd01::1/64")
	w.far.AddAddr(t, "up0", "fd01::2/64")
	w.node.MustPing(t, "10.1.0.2") // who sends has the neighbour already
	w.far.Do(t, func() {
		for _, vx := range []*netlink.Vxlan{
			{LinkAttrs: netlink.LinkAttrs{Name: "vx0", MTU: 1450}, VxlanId: wireVNI, Port: 4789, SrcAddr: net.ParseIP("10.1.0.2")},
			{LinkAttrs: netlink.LinkAttrs{Name: "vx6", MTU: 1430}, VxlanId: wireVNI, Port: 4790, SrcAddr: net.ParseIP("fd01::2"), UDP6ZeroCSumRx: true},
		} {
			if err := netlink.LinkAdd(vx); err != nil {
				t.Fatal(err)
			}
		}
	})
	w.far.Up(t, "vx0")
	w.far.Up(t, "vx6")
	w.far.Do(t, func() {
		w.vx, w.outer = packetSocket(t, "vx0", true), packetSocket(t, "up0", false)
	})
	var err error
	if w.pool, err = frame.NewPool(256, 4096, true); err != nil {
		t.Fatal(err)
	}
	index := w.node.Attrs(t, "up0").Index
	w.node.Do(t, func() {
		if w.up, err = OpenUplink("up0", index, w.pool); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(w.up.Close(), unix.Close(w.vx), unix.Close(w.outer)); err != nil {
			t.Error(err)
		}
		if free := w.pool.FreeChunks(); free != w.pool.Chunks() {
			t.Errorf("%d of %d chunks are free at the end", free, w.pool.Chunks())
		}
		w.pool.Close()
	})
	return w
}

// segmentation switches the uplink's offloads.
func (w *wire) segmentation(on string) {
	w.t.Helper()
	w.node.Do(w.t, func() {
		out, err := exec.Command("ethtool", "-K", "up0", "tx-udp_tnl-segmentation", on, "tx-udp_tnl-csum-segmentation", on,
			"tso", on, "gso", on, "tx-udp-segmentation", on, "tx", on).CombinedOutput()
		if err != nil {
			w.t.Fatalf("ethtool: %v: %s", err, out)
		}
	})
}

// bigFrame is one frame in VXLAN that stands for many, as the dataplane would
// build it, and what its receiver shall get.
type bigFrame struct {
	data    []byte
	meta    frame.Frame
	payload []byte
	hdr     int // bytes of the inner headers
}

// newBig builds one. inner are the layers from the inner IP header on.
func newBig(t testing.TB, kind frame.Flags, seg int, payload []byte, v6outer bool, inner ...pkttest.Layer) *bigFrame {
	t.Helper()
	port := uint16(4789)
	outer := []pkttest.Layer{pkttest.Eth("02:00:00:00:01:01", "02:00:00:00:01:02"), pkttest.IP4("10.1.0.1", "10.1.0.2", pkttest.ID(65530))}
	if v6outer {
		port = 4790
		outer[1] = pkttest.IP6("fd01::1", "fd01::2")
	}
	in := append([]pkttest.Layer{pkttest.Eth(innerSrc, innerDst)}, inner...)
	in = append(in, pkttest.Bytes(payload...))
	b := &bigFrame{payload: payload}
	tcp := pkttest.SetPartial(pkttest.Frame(t, in...))
	b.hdr = len(tcp) - len(payload)
	vx := append(outer, pkttest.UDP(40000, port), pkttest.VXLANHeader(wireVNI), pkttest.Bytes(tcp...))
	b.data = pkttest.ZeroL4Checksum(pkttest.Frame(t, vx...))
	head := len(b.data) - len(tcp)
	b.meta = frame.Frame{
		Flags: kind | frame.CsumPartial, SegSize: uint16(seg), HeaderLen: uint16(head + b.hdr), OuterL4: uint8(head - 30 + 14),
		CsumOffset: 16, CsumStart: uint16(head + 34),
	}
	if tcp[12] == 0x86 {
		b.meta.CsumStart += 20
	}
	if kind&frame.SegUDP != 0 {
		b.meta.CsumOffset = 6
	}
	return b
}

func (w *wire) send(b *bigFrame) mixed.Result {
	w.t.Helper()
	f := build(w.t, w.pool, b.data, 3840)
	f.Flags, f.SegSize, f.HeaderLen, f.OuterL4 = b.meta.Flags, b.meta.SegSize, b.meta.HeaderLen, b.meta.OuterL4
	f.CsumStart, f.CsumOffset = b.meta.CsumStart, b.meta.CsumOffset
	r := w.up.Send(&f)
	w.pool.FreeFrame(&f)
	return r
}

// next is the next frame of a packet socket that is for the test.
func next(t testing.TB, sock int, header int, want func([]byte) bool) (hdr, data []byte) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(sock, buf, 0)
		if err != nil {
			t.Fatalf("no frame arrives: %v", err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if n >= header+14 && want(buf[header:n]) {
			return buf[:header], buf[header:n]
		}
	}
}

func isInner(b []byte) bool { return bytes.Equal(b[6:12], []byte{2, 0, 0, 0, 0, 1}) }
func isOuter(b []byte) bool {
	return b[12] == 8 && b[23] == 17 && binary.BigEndian.Uint16(b[36:]) == 4789 || b[12] == 0x86 && b[20] == 17 && binary.BigEndian.Uint16(b[56:]) == 4790
}

func tcpBig(t testing.TB, size int) *bigFrame {
	return newBig(t, frame.SegTCP4, 1398, pkttest.Pattern(size), false, pkttest.IP4("10.244.0.1", "10.244.1.1", pkttest.ID(7)),
		pkttest.TCP(1000, 2000, pkttest.Seq(5), pkttest.Flags("PA"), pkttest.TCPOption(8, 1, 2, 3, 4, 5, 6, 7, 8)))
}

// TestTunnelWhole: where the wire passes it, a frame of 60 KB in VXLAN arrives
// whole, with its segment size, behind Linux's VXLAN device.
func TestTunnelWhole(t *testing.T) {
	w := newWire(t)
	b := tcpBig(t, 60000)
	if r := w.send(b); r != mixed.Sent {
		t.Fatalf("sent with result %d", r)
	}
	hdr, got := next(t, w.vx, vnet.Len, isInner)
	var f frame.Frame
	if !vnet.Get(hdr, &f) || f.SegSize != 1398 || f.Flags&frame.SegTCP4 == 0 || f.Flags&frame.CsumPartial == 0 {
		t.Errorf("arrived with offloads %x: %+v", hdr, f)
	}
	if !bytes.Equal(got, b.data[50:]) {
		t.Errorf("%d other bytes arrived than were sent: %d", len(got), len(b.data)-50)
	}
}

// TestTunnelMeetsXDP: on a wire that is a veth, a generic XDP program at the far end
// sees what an Uplink sent, as it would what came from a NIC. The kernel spares it
// frames that carry the mark of bpf_redirect (see bpf/redirect.bpf.c).
func TestTunnelMeetsXDP(t *testing.T) {
	w := newWire(t)
	b := tcpBig(t, 60000)
	if r := w.send(b); r != mixed.Sent {
		t.Fatalf("sent with result %d", r)
	}
	next(t, w.outer, 0, isOuter)
	w.far.Do(t, func() {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.XDP, License: "GPL", Flags: unix.BPF_F_XDP_HAS_FRAGS,
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}, // XDP_DROP
		})
		if err != nil {
			t.Fatal(err)
		}
		defer prog.Close()
		l, err := netlink.LinkByName("up0")
		if err != nil {
			t.Fatal(err)
		}
		at, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index, Flags: link.XDPGenericMode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { at.Close() })
	})
	if r := w.send(b); r != mixed.Sent {
		t.Fatalf("sent with result %d", r)
	}
	if err := unix.SetsockoptTimeval(w.outer, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(w.outer, buf, 0)
		if err != nil {
			return // it was dropped, as the program says
		}
		if n > 100 && isOuter(buf[:n]) {
			t.Fatal("the frame passed the program by")
		}
	}
}

// TestTunnelCut: where the wire takes MTU-sized frames only, the kernel cuts.
func TestTunnelCut(t *testing.T) {
	for _, test := range []struct {
		name  string
		big   func(t *testing.T) *bigFrame
		check func(t *testing.T, i, n int, at uint32, inner []byte)
	}{
		{"tcp", func(t *testing.T) *bigFrame { return tcpBig(t, 60000) }, checkTCP},
		{"udp", func(t *testing.T) *bigFrame {
			return newBig(t, frame.SegUDP, 1300, pkttest.Pattern(50000), false,
				pkttest.IP4("10.244.0.1", "10.244.1.1", pkttest.ID(7)), pkttest.UDP(1000, 2000))
		}, nil},
		{"tcp6", func(t *testing.T) *bigFrame {
			return newBig(t, frame.SegTCP6, 1300, pkttest.Pattern(50000), false,
				pkttest.IP6("fd00::1", "fd00::2"), pkttest.TCP(1000, 2000, pkttest.Seq(5), pkttest.Flags("A")))
		}, nil},
		{"udp6", func(t *testing.T) *bigFrame {
			return newBig(t, frame.SegUDP, 1300, pkttest.Pattern(50000), false,
				pkttest.IP6("fd00::1", "fd00::2"), pkttest.UDP(1000, 2000))
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWire(t)
			w.segmentation("off")
			b := test.big(t)
			if r := w.send(b); r != mixed.Sent {
				t.Fatalf("sent with result %d", r)
			}
			n := b.segments()
			var payload []byte
			for i := range n {
				_, raw := next(t, w.outer, 0, isOuter)
				if len(raw) > 1514 {
					t.Fatalf("frame %d has %d bytes", i, len(raw))
				}
				wants := []pkttest.Want{pkttest.VNI(wireVNI), pkttest.OuterPorts(40000, 4789)}
				inner := pkttest.CheckVXLAN(t, raw, wants...)
				if id := binary.BigEndian.Uint16(raw[18:]); id != uint16(65530+i) {
					t.Errorf("frame %d has the outer ID %d", i, id)
				}
				if sum := binary.BigEndian.Uint16(raw[40:]); sum != 0 {
					t.Errorf("frame %d has the outer UDP checksum %#x", i, sum)
				}
				if test.check != nil {
					test.check(t, i, n, uint32(len(payload)), inner)
				}
				payload = append(payload, inner[b.hdr:]...)
			}
			if !bytes.Equal(payload, b.payload) {
				t.Errorf("%d other bytes arrived than were sent: %d", len(payload), len(b.payload))
			}
		})
	}
}

func checkTCP(t *testing.T, i, n int, at uint32, inner []byte) {
	if id := binary.BigEndian.Uint16(inner[18:]); id != uint16(7+i) {
		t.Errorf("segment %d has the ID %d", i, id)
	}
	if seq := binary.BigEndian.Uint32(inner[38:]); seq != 5+at {
		t.Errorf("segment %d has the sequence number %d", i, seq)
	}
	if psh := inner[47]&8 != 0; psh != (i == n-1) {
		t.Errorf("segment %d of %d has PSH %v", i, n, psh)
	}
}

// segments is the number of segments of the frame that b describes.
func (b *bigFrame) segments() int {
	return (len(b.payload) + int(b.meta.SegSize) - 1) / int(b.meta.SegSize)
}

// TestTunnelOverIPv6: with outer UDP checksums of 0, for a receiver that takes them,
// and with right ones, whole and cut.
func TestTunnelOverIPv6(t *testing.T) {
	w := newWire(t)
	w.node.MustPing(t, "fd01::2")
	var vx6 int
	w.far.Do(t, func() { vx6 = packetSocket(t, "vx6", true) })
	defer unix.Close(vx6)
	b := newBig(t, frame.SegTCP4, 1378, pkttest.Pattern(50000), true, pkttest.IP4("10.244.0.1", "10.244.1.1"),
		pkttest.TCP(1000, 2000, pkttest.Flags("A")))
	if r := w.send(b); r != mixed.Sent {
		t.Fatalf("sent with result %d", r)
	}
	if _, got := next(t, vx6, vnet.Len, isInner); !bytes.Equal(got, b.data[70:]) {
		t.Errorf("%d other bytes arrived than were sent: %d", len(got), len(b.data)-70)
	}
	// The field of a GSO packet is the sum of the pseudo-header, not inverted.
	seed := pkttest.Sum16(b.data[22:54], uint32(len(b.data)-54+17))
	binary.BigEndian.PutUint16(b.data[60:], seed)
	b.meta.Flags |= frame.SegOuterSum
	if r := w.send(b); r != mixed.Sent {
		t.Fatalf("sent with result %d", r)
	}
	if _, got := next(t, vx6, vnet.Len, isInner); !bytes.Equal(got, b.data[70:]) {
		t.Errorf("with a checksum %d other bytes arrived than were sent: %d", len(got), len(b.data)-70)
	}
	w.segmentation("off")
	if r := w.send(b); r != mixed.Sent {
		t.Fatalf("sent with result %d", r)
	}
	var payload []byte
	for range b.segments() {
		_, raw := next(t, w.outer, 0, func(f []byte) bool { return isOuter(f) && len(f) <= 1514 }) // not what came whole
		inner := pkttest.CheckVXLAN(t, raw, pkttest.VNI(wireVNI), pkttest.OuterPorts(40000, 4790)) // the outer checksum is right
		payload = append(payload, inner[b.hdr:]...)
	}
	if !bytes.Equal(payload, b.payload) {
		t.Errorf("%d other bytes arrived in segments than were sent: %d", len(payload), len(b.payload))
	}
}

// TestQueueingUplink: behind a queueing discipline small frames would overtake.
func TestQueueingUplink(t *testing.T) {
	w := newWire(t)
	w.node.Do(t, func() {
		l, err := netlink.LinkByName("up0")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "pfifo",
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenUplink("up0", l.Attrs().Index, w.pool); !errors.Is(err, ErrQueues) {
			t.Errorf("opened: %v", err)
		}
	})
}

// TestUplinkRefuses: frames that the kernel does not take are told apart.
func TestUplinkRefuses(t *testing.T) {
	w := newWire(t)
	b := tcpBig(t, 60000)
	summed := *b
	summed.data = bytes.Clone(b.data)
	summed.data[41] = 1
	if r := w.send(&summed); r != mixed.Refused {
		t.Errorf("with an outer checksum: result %d", r)
	}
	summed.data[41], summed.meta.Flags = 0, b.meta.Flags|frame.SegOuterSum
	if r := w.send(&summed); r != mixed.Refused {
		t.Errorf("without the outer checksum that it shall have: result %d", r)
	}
	for name, change := range map[string]func(*frame.Frame){
		"checksum before the inner header": func(f *frame.Frame) { f.CsumStart = 60 },
		"no tunnel":                        func(f *frame.Frame) { f.OuterL4 = 0 },
		"no partial checksum":              func(f *frame.Frame) { f.Flags &^= frame.CsumPartial },
	} {
		bad := *b
		change(&bad.meta)
		if r := w.send(&bad); r != mixed.Refused {
			t.Errorf("%s: result %d", name, r)
		}
	}
	w.node.Do(t, func() {
		if _, err := OpenUplink("none", 9999, w.pool); err == nil {
			t.Error("an uplink that does not exist was opened")
		}
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if l.Type() == "tuntap" {
				if err := netlink.LinkDel(l); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	if r := w.send(b); r != mixed.Gone {
		t.Errorf("with its TAP removed: result %d", r)
	}
}

// BenchmarkTunnel sends 60 KB frames in VXLAN over a wire that passes them, and
// over one that does not. They are for nobody: the far stack drops them at once.
func BenchmarkTunnel(b *testing.B) {
	for _, on := range []string{"on", "off"} {
		b.Run("segmentation="+on, func(b *testing.B) {
			w := newWire(b)
			w.segmentation(on)
			big := tcpBig(b, 60000)
			big.data[0], big.data[5] = 2, 0x99
			for _, sock := range []int{w.vx, w.outer} { // nobody listens
				if err := unix.Bind(sock, &unix.SockaddrLinklayer{Ifindex: 1}); err != nil {
					b.Fatal(err)
				}
			}
			f := build(b, w.pool, big.data, 3840)
			defer w.pool.FreeFrame(&f)
			m := &big.meta
			f.Flags, f.SegSize, f.HeaderLen, f.OuterL4 = m.Flags, m.SegSize, m.HeaderLen, m.OuterL4
			f.CsumStart, f.CsumOffset = m.CsumStart, m.CsumOffset
			b.SetBytes(60000)
			b.ReportAllocs()
			for b.Loop() {
				if r := w.up.Send(&f); r != mixed.Sent {
					b.Fatal(r)
				}
			}
		})
	}
}
