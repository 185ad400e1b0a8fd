package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/dataplane/vnet"
	"culvert/internal/pkttest"
	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTransfer moves TCP between two pods in frames of 64 KB, over devices whose
// MTU is 1450.
func TestTransfer(t *testing.T) {
	r := newRig(t, true)
	r.addPod(1450, "10.0.0.1/24")
	r.addPod(1450, "10.0.0.2/24")
	r.onFrame = func(f *frame.Frame) {
		if f.SegSize != 0 && (f.Flags&(frame.SegTCP4|frame.CsumPartial) != frame.SegTCP4|frame.CsumPartial ||
			f.SegSize != 1450-52 || f.CsumStart != 34 || f.CsumOffset != 16) {
			t.Errorf("a big frame is %+v", *f)
		}
	}
	r.run()
	const size = 64 << 20
	took := r.transfer(0, 1, "10.0.0.2", size) + r.transfer(1, 0, "10.0.0.1", size)
	t.Logf("%.1f Gbit/s; %d frames, %d big, the longest of %d bytes, %d lost",
		2*size*8/took.Seconds()/1e9, r.frames.Load(), r.big.Load(), r.longest.Load(), r.lost.Load())
	if r.longest.Load() < 60000 || r.big.Load() == 0 {
		t.Errorf("the longest of %d big frames has %d bytes: segmentation offload is not used", r.big.Load(), r.longest.Load())
	}
}

// TestUDPSegments moves one datagram batch as one frame, cut at its receiver only.
func TestUDPSegments(t *testing.T) {
	r := newRig(t, true)
	r.addPod(1450, "10.0.0.1/24")
	r.addPod(1450, "10.0.0.2/24")
	r.run()
	if r.pods[0].q.Limits().Offload&frame.OffloadUDP == 0 {
		t.Fatal("the kernel has no UDP segmentation on TAP")
	}
	var in, out *net.UDPConn
	r.pods[1].ns.Do(t, func() { in = listenUDP(t, "10.0.0.2:5000") })
	r.pods[0].ns.Do(t, func() { out = listenUDP(t, "10.0.0.1:0") })
	defer in.Close()
	defer out.Close()
	raw, _ := out.SyscallConn()
	_ = raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1200); err != nil {
			t.Fatal(err)
		}
	})
	sent := pkttest.Pattern(20*1200 + 17)
	if _, err := out.WriteTo(sent, in.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 65536)
	for i := range 21 {
		_ = in.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := in.Read(buf)
		if err != nil || n != 1200 && i < 20 {
			t.Fatalf("datagram %d: %d bytes, %v", i, n, err)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes arrived than were sent")
	}
	if r.big.Load() != 1 {
		t.Errorf("%d frames had a segment size", r.big.Load())
	}
}

func listenUDP(t *testing.T, addr string) *net.UDPConn {
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp", a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// alone is a queue without a forwarder, and a packet socket on its device.
type alone struct {
	*pod
	pool *frame.Pool
	sock int
}

func newAlone(t testing.TB) *alone {
	r := newRig(t, true)
	a := &alone{pod: r.addPod(9000, "10.0.0.1/24"), pool: r.pool}
	a.ns.Do(t, func() { a.sock = packetSocket(t, "eth0", false) })
	t.Cleanup(func() { unix.Close(a.sock) })
	return a
}

// packetSocket receives what arrives on a device: with vnetHdr with offloads.
func packetSocket(t testing.TB, dev string, vnetHdr bool) int {
	t.Helper()
	proto := int(binary.BigEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
	proto = proto<<8&0xff00 | proto>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	if vnetHdr {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(proto), Ifindex: l.Attrs().Index}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// build makes a frame of data in chunks of at most per bytes each.
func build(t testing.TB, pool *frame.Pool, data []byte, per int) frame.Frame {
	t.Helper()
	f := frame.Frame{Total: uint32(len(data))}
	for i := 0; len(data) > 0; i++ {
		addr, ok := pool.Alloc()
		if !ok {
			t.Fatal("no chunk left")
		}
		n := copy(pool.Bytes(addr, uint32(min(per, pool.ChunkSize()-frame.Headroom))), data)
		data = data[n:]
		if i == 0 {
			f.Addr, f.Len = addr, uint32(n)
		} else {
			f.Rest = append(f.Rest, frame.Desc{Addr: addr, Len: uint32(n)})
		}
	}
	return f
}

func TestSendSizes(t *testing.T) {
	a := newAlone(t)
	buf := make([]byte, 1<<17)
	for _, size := range []int{14, 60, 1514, 3840, 3841, 9014, 65549} {
		data := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), pkttest.Pattern(size-14)...)
		f := build(t, a.pool, data, 3840)
		if n := a.q.Send([]frame.Frame{f}); n != 1 {
			t.Fatalf("%d bytes: not taken", size)
		}
		n, err := unix.Read(a.sock, buf)
		if err != nil || !bytes.Equal(buf[:n], data) {
			t.Fatalf("%d bytes: %d arrived, %v", size, n, err)
		}
	}
	for name, f := range map[string]frame.Frame{
		"too long":         build(t, a.pool, make([]byte, 65550), 3840),
		"shorter than Eth": build(t, a.pool, make([]byte, 13), 3840),
		"checksum outside": {Flags: frame.CsumPartial, CsumStart: 4000, CsumOffset: 16},
	} {
		if f.Total == 0 {
			g := build(t, a.pool, make([]byte, 60), 3840)
			f.Addr, f.Len, f.Total = g.Addr, g.Len, g.Total
		}
		var before, after frame.DeviceStats
		a.q.Stats(&before)
		n := a.q.Send([]frame.Frame{f})
		a.q.Stats(&after)
		if n != 1 || after.TxInvalid != before.TxInvalid+1 {
			t.Errorf("%s: took %d, %+v", name, n, after)
		}
	}
}

// TestRecvSizes reads frames of one chunk, of several, and the longest there is.
func TestRecvSizes(t *testing.T) {
	a := newAlone(t)
	a.ns.Do(t, func() {
		l, _ := netlink.LinkByName("eth0")
		if err := netlink.LinkSetMTU(l, 65521); err != nil { // tun's limit
			t.Fatal(err)
		}
	})
	var b frame.Burst
	for _, size := range []int{14 + 1, 60, 1514, 3840, 3841, 7680, 7681, 65535} {
		data := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5"), pkttest.Pattern(size-14)...)
		if _, err := unix.Write(a.sock, data); err != nil {
			t.Fatal(size, err)
		}
		f := a.recv(t, &b)
		if got := a.bytes(f); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: %d were read, or others", size, len(got))
		}
		if a.pool.HeadroomOf(f.Addr) != frame.Headroom-frame.TxMetadataLen || len(f.Rest) != (size-1)/3840 {
			t.Errorf("%d bytes: headroom %d, %d continuations", size, a.pool.HeadroomOf(f.Addr), len(f.Rest))
		}
		a.pool.FreeFrame(f)
	}
}

// recv waits for one frame that is for the test.
func (a *alone) recv(t testing.TB, b *frame.Burst) *frame.Frame {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		b.Reset()
		n := a.q.Recv(b)
		for i := range n {
			if a.pool.Bytes(b.Frames[i].Addr, 14)[12] == 0x88 {
				return &b.Frames[i]
			}
			a.pool.FreeFrame(&b.Frames[i])
		}
	}
	t.Fatal("no frame arrives")
	return nil
}

func (a *alone) bytes(f *frame.Frame) []byte {
	out := bytes.Clone(a.pool.Bytes(f.Addr, f.Len))
	for _, d := range f.Rest {
		out = append(out, a.pool.Bytes(d.Addr, d.Len)...)
	}
	if len(out) != int(f.Total) {
		return nil
	}
	return out
}

// TestFramesWaitForMemory: with too few chunks free, frames are neither cut off
// nor lost.
func TestFramesWaitForMemory(t *testing.T) {
	a := newAlone(t)
	var taken []uint64
	for {
		addr, ok := a.pool.Alloc()
		if !ok {
			break
		}
		taken = append(taken, addr)
	}
	data := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5"), pkttest.Pattern(8000)...)
	for range 3 {
		if _, err := unix.Write(a.sock, data); err != nil {
			t.Fatal(err)
		}
	}
	var b frame.Burst
	first := bytes.Clone(a.bytes(a.recv(t, &b))) // the stock was there before
	held := b.Frames[0]
	held.Rest = append([]frame.Desc(nil), held.Rest...)
	for range 10 {
		b.Reset()
		if n := a.q.Recv(&b); n != 0 {
			t.Fatalf("%d frames were read into a stock that is not complete", n)
		}
	}
	a.pool.FreeFrame(&held)
	for _, addr := range taken {
		a.pool.Free(addr)
	}
	for range 2 {
		f := a.recv(t, &b)
		if !bytes.Equal(first, data) || !bytes.Equal(a.bytes(f), data) {
			t.Error("other bytes were read")
		}
		for i := range b.N {
			a.pool.FreeFrame(&b.Frames[i])
		}
		if b.N == 2 {
			return
		}
	}
}

// TestRingOverflow: what the kernel could not keep for the reader is counted.
func TestRingOverflow(t *testing.T) {
	a := newAlone(t)
	data := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5"), pkttest.Pattern(100)...)
	for range 4096 + 50 {
		_, _ = unix.Write(a.sock, data)
	}
	var s frame.DeviceStats
	a.q.Stats(&s)
	if s.RxRingFull < 50 || s.RxRingFull > 60 {
		t.Errorf("%d of 50 lost frames were counted", s.RxRingFull)
	}
	var b frame.Burst
	for n := 0; n < 4096; {
		b.Reset()
		got := a.q.Recv(&b)
		if got == 0 {
			t.Fatalf("only %d frames can be read", n)
		}
		for i := range got {
			a.pool.FreeFrame(&b.Frames[i])
		}
		n += got
	}
	if err := a.q.Close(); err != nil {
		t.Fatal(err)
	}
	var after frame.DeviceStats
	if a.q.Stats(&after); after.RxRingFull != s.RxRingFull {
		t.Errorf("%d lost frames after Close, %d before", after.RxRingFull, s.RxRingFull)
	}
}

// TestRefusedByThePod: a frame that the pod's stack drops is counted.
func TestRefusedByThePod(t *testing.T) {
	r := newRig(t, true)
	a := r.addPod(9000, "10.0.0.1/24")
	data := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5"), pkttest.Pattern(100)...)
	if a.q.Send([]frame.Frame{build(t, r.pool, data, 1000)}) != 1 { // nobody takes that EtherType
		t.Fatal("not sent")
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		var s frame.DeviceStats
		if a.q.Stats(&s); s.TxRefused == 1 {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%d frames refused, want 1", s.TxRefused)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestDownAndGone follows a device that goes down, comes back and is removed.
func TestDownAndGone(t *testing.T) {
	a := newAlone(t)
	data := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), pkttest.Pattern(50)...)
	send := func() (s frame.DeviceStats) {
		var before frame.DeviceStats
		a.q.Stats(&before)
		if n := a.q.Send([]frame.Frame{build(t, a.pool, data, 3840), build(t, a.pool, data, 3840)}); n != 2 {
			t.Fatalf("%d of 2 were taken", n)
		}
		a.q.Stats(&s)
		s.TxLinkDown -= before.TxLinkDown
		return s
	}
	if s := send(); s.TxLinkDown != 0 {
		t.Fatalf("up: %+v", s)
	}
	a.ns.Down(t, "eth0")
	if s := send(); s.TxLinkDown != 2 || a.q.Gone() {
		t.Fatalf("down: %+v, gone %v", s, a.q.Gone())
	}
	a.ns.Up(t, "eth0")
	if s := send(); s.TxLinkDown != 0 {
		t.Fatalf("up again: %+v", s)
	}
	a.ns.Delete(t, "eth0")
	fds := []unix.PollFd{{Fd: int32(a.q.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 1000); n != 1 || err != nil {
		t.Errorf("the removal wakes nobody: %d, %v", n, err)
	}
	var b frame.Burst
	if n := a.q.Recv(&b); n != 0 || !a.q.Gone() {
		t.Errorf("removed: %d frames, gone %v", n, a.q.Gone())
	}
	if n, _ := unix.Poll(fds, 20); n != 0 {
		t.Errorf("the descriptor of a device that is gone stays ready: %#x", fds[0].Revents)
	}
	if s := send(); s.TxLinkDown != 2 {
		t.Errorf("removed: %+v", s)
	}
}

// TestGoneBySend notices the removal by sending alone.
func TestGoneBySend(t *testing.T) {
	a := newAlone(t)
	a.ns.Delete(t, "eth0")
	f := build(t, a.pool, make([]byte, 60), 3840)
	if n := a.q.Send([]frame.Frame{f}); n != 1 || !a.q.Gone() {
		t.Errorf("took %d, gone %v", n, a.q.Gone())
	}
}

// TestPersistence: the device keeps what it has while nobody has it open, and is
// open to two queues afterwards.
func TestPersistence(t *testing.T) {
	r := newRig(t, true)
	p := r.addPod(1450, "10.0.0.1/24")
	index := p.ns.Attrs(t, "eth0").Index
	p.close(t, r.pool)
	if a := p.ns.Attrs(t, "eth0"); a.Index != index || a.MTU != 1450 || a.TxQLen != 4096 {
		t.Errorf("after closing: %+v", a)
	}
	p.open(t, r.pool)
	second := &pod{ns: p.ns}
	second.open(t, r.pool)
	r.pods = append(r.pods, second)
	if a := p.ns.Attrs(t, "eth0"); a.OperState != netlink.OperUp && a.OperState != netlink.OperUnknown {
		t.Errorf("no carrier after opening again: %v", a.OperState)
	}
}

func TestOpenRefuses(t *testing.T) {
	ns, other := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, ns, "veth0", other, "veth1")
	pool, err := frame.NewPool(64, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ns.Do(t, func() {
		for _, name := range []string{"none", "veth0"} {
			if _, err := Open(name, pool, true); !errors.Is(err, ErrNotOurs) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := netlink.LinkByName("none"); err == nil {
			t.Error("Open made a device")
		}
		if _, err := Open("a234567890123456", pool, true); err == nil {
			t.Error("a name of 16 characters was taken")
		}
		m, err := Make("tap0")
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for _, name := range []string{"tap0", "veth0"} {
			if _, err := Make(name); !errors.Is(err, ErrExists) {
				t.Errorf("a second %s: %v", name, err)
			}
		}
	})
}

// TestOthersAreRefused: a process of the pod without CAP_NET_ADMIN cannot take a
// queue, be it root.
func TestOthersAreRefused(t *testing.T) {
	ns := testnet.NewNS(t)
	makeTAP(t, ns, 1450, "10.0.0.1/24")
	ns.Do(t, func() {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			t.Fatal(err)
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &data[0]); err != nil { // this thread's, which ends with Do
			t.Fatal(err)
		}
		if fd, err := attach("eth0", flags); !errors.Is(err, unix.EPERM) {
			t.Errorf("fd %d, %v", fd, err)
		}
	})
}

// TestForgedOffloads: what a pod writes into its packet sockets cannot make a
// frame whose offloads lie outside of it.
func TestForgedOffloads(t *testing.T) {
	a := newAlone(t)
	var sock int
	a.ns.Do(t, func() { sock = packetSocket(t, "eth0", true) })
	defer unix.Close(sock)
	var b frame.Burst
	sent := 0
	for start := 0; start < 200; start += 7 {
		for _, offset := range []int{0, 6, 16, 300, 65000} {
			for _, kind := range []byte{0, 1, 4, 5, 0x81} {
				h := make([]byte, vnet.Len, 200)
				h[0], h[1] = 1, kind
				binary.NativeEndian.PutUint16(h[2:], 54)
				binary.NativeEndian.PutUint16(h[4:], 20)
				binary.NativeEndian.PutUint16(h[6:], uint16(start))
				binary.NativeEndian.PutUint16(h[8:], uint16(offset))
				pkt := pkttest.Frame(t, pkttest.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"), pkttest.IP4("10.0.0.1", "10.0.0.3"),
					pkttest.TCP(1, 2), pkttest.Payload(100))
				if _, err := unix.Write(sock, append(h, pkt...)); err == nil {
					sent++
				}
				b.Reset()
				for i := range a.q.Recv(&b) {
					f := &b.Frames[i]
					if f.Flags&frame.CsumPartial != 0 && uint32(f.CsumStart)+uint32(f.CsumOffset)+2 > f.Len ||
						f.SegSize != 0 && f.Flags&frame.CsumPartial == 0 {
						t.Errorf("%+v was received", *f)
					}
					a.pool.FreeFrame(f)
				}
			}
		}
	}
	if sent == 0 {
		t.Error("the pod could send nothing")
	}
}

// TestNoAllocations: neither direction allocates.
func TestNoAllocations(t *testing.T) {
	a := newAlone(t)
	data := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5"), pkttest.Pattern(8000)...)
	var b frame.Burst
	frames := make([]frame.Frame, 1)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = unix.Write(a.sock, data)
		b.Reset()
		n := a.q.Recv(&b)
		for i := range n {
			frames[0] = b.Frames[i]
			if a.q.Send(frames) != 1 {
				t.Error("not taken")
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNamespaceIsHeld is the fact that the pods' upkeep rests on: an open queue
// keeps its namespace, and so its device, from ending.
func TestNamespaceIsHeld(t *testing.T) {
	r := newRig(t, true)
	p := &pod{}
	r.pods = append(r.pods, p)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, and nothing else holds its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			var m *Made
			if m, err = Make("eth0"); err == nil {
				p.q, err = Open("eth0", r.pool, false)
				m.Close()
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.owner = r.pool.NewOwner()
	if err := p.q.Start(p.owner, 96); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // namespaces end within tens of milliseconds
	var b frame.Burst
	if n := p.q.Recv(&b); n != 0 || p.q.Gone() {
		t.Errorf("%d frames, gone %v: the kernel tells of the namespace's end after all", n, p.q.Gone())
	}
}
