//go:build vm

package xsk

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"
	"culvert/internal/vm"
)

// nic is one of the machine's NICs, in a namespace of its own where nobody but
// us sends, with memory and a socket for each of its queue pairs.
type nic struct {
	ns     *testnet.NS
	name   string
	queues int
	mac    net.HardwareAddr
	pool   *frame.Pool
	attach *Attachment
	socks  []*counted
	seen   []bool // of the frames that this end is to receive
	got    int
}

type counted struct {
	*Socket
	received int
}

// wire is both NICs.
type wire [2]*nic

// newNIC takes NIC i out of the machine's first namespace, where it is again
// when the test has ended.
func newNIC(t *testing.T, i, queues int) *nic {
	t.Helper()
	e := &nic{ns: testnet.NewNS(t)}
	e.ns.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1") // nobody sends but us
	var link netlink.Link
	links, err := netlink.LinkList()
	for _, l := range links {
		if l.Attrs().HardwareAddr.String() == vm.NICs[i] {
			link = l
		}
	}
	if link == nil {
		t.Fatalf("the machine has no NIC %s: %v, %v", vm.NICs[i], links, err)
	}
	e.name, e.mac = link.Attrs().Name, link.Attrs().HardwareAddr
	if err := netlink.LinkSetNsFd(link, int(e.ns.Handle())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.ns.Do(t, func() {
			link, err := netlink.LinkByName(e.name) // by another index than it had
			if err == nil {
				err = netlink.LinkSetNsPid(link, 1)
			}
			if err != nil {
				t.Errorf("giving %s back: %v", e.name, err)
			}
		})
	})
	if err := e.setQueues(t, queues); err != nil {
		t.Fatal(err)
	}
	e.ns.Up(t, e.name)
	return e
}

// setQueues sets the number of queue pairs in use.
func (e *nic) setQueues(t *testing.T, n int) (err error) {
	t.Helper()
	e.ns.Do(t, func() {
		out, failed := exec.Command("ethtool", "-L", e.name, "combined", fmt.Sprint(n)).CombinedOutput()
		if failed != nil {
			err = fmt.Errorf("%d queues for %s: %w: %s", n, e.name, failed, out)
		}
	})
	if err == nil {
		e.queues = n
	}
	return err
}

func newWire(t *testing.T, queues int, zeroCopy string) *wire {
	t.Helper()
	w := &wire{newNIC(t, 0, queues), newNIC(t, 1, queues)}
	for _, e := range w {
		e.open(t, AttachPod, SocketConfig{RingSize: ringSize, ZeroCopy: zeroCopy})
	}
	w.carrier(t)
	return w
}

// open attaches and opens a socket on every queue pair, with one memory for all.
func (e *nic) open(t *testing.T, attach func(int, string, Mode) (*Attachment, error), cfg SocketConfig) {
	t.Helper()
	var err error
	if e.pool, err = frame.NewPool(8192, 4096, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.pool.Close() })
	t.Cleanup(func() { e.release() })
	umem := NewUmem(e.pool)
	e.ns.Do(t, func() {
		cfg.Ifindex, cfg.Ifname = ifindex(t, e.name), e.name
		if e.attach, err = attach(cfg.Ifindex, e.name, ModeNative); err != nil {
			t.Fatal(err)
		}
		for ; cfg.Queue < e.queues; cfg.Queue++ {
			s, err := umem.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			e.socks = append(e.socks, &counted{Socket: s})
			if err := s.Start(e.pool.NewOwner(), 2*cfg.RingSize); err != nil {
				t.Fatal(err)
			}
			if err := e.attach.SetSocket(cfg.Queue, s); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// sockets are those to wait on.
func (e *nic) sockets() (list []*Socket) {
	for _, s := range e.socks {
		list = append(list, s.Socket)
	}
	return list
}

// release closes what is open.
func (e *nic) release() {
	if e.attach != nil {
		e.attach.Close()
		e.attach = nil
	}
	for _, s := range e.socks {
		s.Close()
		e.pool.Reclaim(s.owner)
	}
	e.socks = nil
}

// close waits until all sends are completed, closes everything and accounts for
// every chunk.
func (e *nic) close(t *testing.T) {
	t.Helper()
	waitUntil(t, "every send of "+e.name+" is completed", func() bool {
		left := uint32(0)
		for _, s := range e.socks {
			e.drain(s)
			left += s.inflight
		}
		return left == 0
	})
	for i, s := range e.socks {
		var stats frame.DeviceStats
		s.Stats(&stats)
		t.Logf("%s queue %d: zero-copy %t, received %d, %+v", e.name, i, s.ZeroCopy(), s.received, stats)
	}
	e.release()
	if e.pool.FreeChunks() != e.pool.Chunks() {
		t.Errorf("%s: %d of %d chunks are left", e.name, e.pool.FreeChunks(), e.pool.Chunks())
	}
}

func (w *wire) close(t *testing.T) {
	t.Helper()
	for _, e := range w {
		e.close(t)
	}
}

// carrier waits until both ends are up.
func (w *wire) carrier(t *testing.T) {
	t.Helper()
	for _, e := range w {
		waitUntil(t, e.name+" has a carrier", func() bool {
			return e.ns.Attrs(t, e.name).RawFlags&unix.IFF_LOWER_UP != 0
		})
	}
}

// window is how many frames are under way in each direction: fewer than any
// queue between the NICs holds, so that none may be lost.
const window = 128

// exchange sends n frames each way and wants every one, once and unchanged.
func (w *wire) exchange(t *testing.T, n int) {
	t.Helper()
	sent := [2]int{}
	for _, e := range w {
		e.drainAll() // what is left of before
		e.seen, e.got = make([]bool, n), 0
	}
	last, progress := 0, time.Now()
	for w[0].got < n || w[1].got < n {
		for i, e := range w {
			peer := w[1-i]
			for sent[i] < n && sent[i]-peer.got < window && e.send(peer, sent[i]) {
				sent[i]++
			}
			for _, s := range e.socks {
				if err := e.receive(s); err != nil {
					t.Fatal(err)
				}
			}
		}
		switch sum := w[0].got + w[1].got; {
		case sum > last:
			last, progress = sum, time.Now()
		case time.Since(progress) > 10*time.Second:
			t.Fatalf("nothing arrives any more: %s has %d of %d that were sent, %s %d of %d",
				w[0].name, w[0].got, sent[1], w[1].name, w[1].got, sent[0])
		default:
			waitFor(append(w[0].sockets(), w[1].sockets()...)...)
		}
	}
	for _, e := range w {
		e.seen = nil
	}
}

// lengthOf is that of frame number n: they come in all of them.
func lengthOf(n int) int { return 60 + n*37%(1514-60+1) }

// send gives frame number n to the socket whose turn it is. It is UDP of a flow
// of its own: the NICs spread flows over their queues.
func (e *nic) send(peer *nic, n int) bool {
	addr, ok := e.pool.Alloc()
	if !ok {
		return false
	}
	length := lengthOf(n)
	b := e.pool.Bytes(addr, uint32(length))
	for i := range b {
		b[i] = byte(n + i)
	}
	copy(b, peer.mac)
	copy(b[6:], e.mac)
	copy(b[12:], "\x08\x00\x45\x00\x00\x00\x00\x00\x40\x00\x40\x11\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02")
	binary.BigEndian.PutUint16(b[16:], uint16(length-14))
	binary.BigEndian.PutUint16(b[24:], ^fold16(uint64(sum16(b[14:34]))))
	binary.BigEndian.PutUint16(b[34:], uint16(32768+n%20000))
	binary.BigEndian.PutUint16(b[36:], 9)
	binary.BigEndian.PutUint16(b[38:], uint16(length-34))
	b[40], b[41] = 0, 0 // no checksum
	binary.BigEndian.PutUint32(b[42:], uint32(n))
	f := frame.Frame{Addr: addr, Len: uint32(length), Total: uint32(length)}
	if e.socks[n%len(e.socks)].Send([]frame.Frame{f}) == 1 {
		return true
	}
	e.pool.FreeFrame(&f)
	return false
}

// receive takes what is there and checks it.
func (e *nic) receive(s *counted) error {
	var burst frame.Burst
	s.Recv(&burst)
	for i := range burst.N {
		f := &burst.Frames[i]
		err := e.check(e.pool.Bytes(f.Addr, f.Len))
		e.pool.FreeFrame(f)
		if err != nil {
			return err
		}
		s.received++
	}
	return nil
}

func (e *nic) check(b []byte) error {
	if len(b) < 60 {
		return fmt.Errorf("%s: a frame of %d bytes", e.name, len(b))
	}
	n := int(binary.BigEndian.Uint32(b[42:]))
	switch {
	case n >= len(e.seen):
		return fmt.Errorf("%s: a frame that nobody sent: %x", e.name, b)
	case e.seen[n]:
		return fmt.Errorf("%s: frame %d came twice", e.name, n)
	case len(b) != lengthOf(n):
		return fmt.Errorf("%s: frame %d has %d bytes, not %d", e.name, n, len(b), lengthOf(n))
	}
	for i := 46; i < len(b); i++ {
		if b[i] != byte(n+i) {
			return fmt.Errorf("%s: frame %d is changed at %d", e.name, n, i)
		}
	}
	e.seen[n] = true
	e.got++
	return nil
}

// drain throws away what a socket has received, and reaps completions.
func (e *nic) drain(s *counted) (n int) {
	var burst frame.Burst
	s.Recv(&burst)
	for i := range burst.N {
		e.pool.FreeFrame(&burst.Frames[i])
	}
	return burst.N
}

// drainAll does so until nothing has come for a while.
func (e *nic) drainAll() {
	for quiet := 0; quiet < 10; quiet++ {
		for _, s := range e.socks {
			if e.drain(s) > 0 {
				quiet = 0
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// askARP asks for an address through all sockets until it has n answers.
func (e *nic) askARP(t *testing.T, addr netip.Addr, n int) {
	t.Helper()
	answers, end := 0, time.Now().Add(20*time.Second)
	for asked := 0; answers < n; asked++ {
		if time.Now().After(end) {
			t.Fatalf("%d answers to %d requests", answers, asked)
		}
		chunk, _ := e.pool.Alloc()
		f := frame.Frame{Addr: chunk, Len: 42, Total: 42}
		putARP(e.pool.Bytes(chunk, 42), e.mac, addr)
		if e.socks[asked%len(e.socks)].Send([]frame.Frame{f}) != 1 {
			e.pool.FreeFrame(&f)
		}
		waitFor(e.sockets()...)
		for _, s := range e.socks {
			answers += e.countAnswers(s)
		}
	}
}

// countAnswers receives what is there and counts the ARP replies.
func (e *nic) countAnswers(s *counted) (n int) {
	var burst frame.Burst
	s.Recv(&burst)
	for i := range burst.N {
		f := &burst.Frames[i]
		if b := e.pool.Bytes(f.Addr, f.Len); len(b) >= 42 && b[12] == 8 && b[13] == 6 && b[21] == 2 {
			n++
		}
		e.pool.FreeFrame(f)
	}
	return n
}

// putARP writes an ARP request for peer from 0.0.0.0 (RFC 5227).
func putARP(b []byte, src net.HardwareAddr, peer netip.Addr) {
	clear(b)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], src)
	binary.BigEndian.PutUint16(b[12:], 0x0806)
	copy(b[14:], "\x00\x01\x08\x00\x06\x04\x00\x01")
	copy(b[22:], src)
	copy(b[38:], peer.AsSlice())
}

// optionsZeroCopy asks the kernel whether a socket's queue is zero-copy.
func optionsZeroCopy(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.GetsockoptInt(fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.XDP_OPTIONS_ZEROCOPY != 0
}
