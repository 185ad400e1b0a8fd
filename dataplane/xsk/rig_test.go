package xsk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"

	"golang.org/x/sys/unix"
)

// rig is a node with one worker's memory, and pods behind veths. Its forwarder
// is a wire between the first two ports:
//
//	pod 0 eth0 ── node port 0 ═(forwarder)═ node port 1 ── eth0 pod 1
//	10.0.0.1                                               10.0.0.2
type rig struct {
	t     testing.TB
	node  *testnet.NS
	pool  *frame.Pool
	umem  *Umem
	ports []*port

	stop, stopped chan struct{}
	frames        atomic.Uint64 // forwarded
	chains        atomic.Uint64 // of them, of several chunks
	partial       atomic.Uint64 // of them, with a partial checksum
	lost          atomic.Uint64 // the device had no room
	longest       atomic.Uint64 // bytes
	spoil         atomic.Bool   // forget that checksums are partial
}

// ringSize is that of every port of a rig.
const ringSize = 512

type port struct {
	pod    *testnet.NS
	name   string // on the node
	attach *Attachment
	sock   *Socket
	owner  frame.Owner
}

// newRig makes a node with a checked pool of 4 KiB chunks.
func newRig(t testing.TB, chunks int) *rig {
	t.Helper()
	return newRigOf(t, chunks, 4096, true)
}

func newRigOf(t testing.TB, chunks, chunkSize int, checked bool) *rig {
	t.Helper()
	pool, err := frame.NewPool(chunks, chunkSize, checked)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, node: testnet.NewNS(t), pool: pool, umem: NewUmem(pool)}
	t.Cleanup(func() {
		r.halt()
		for _, p := range r.ports {
			p.close(t, r.pool)
		}
		r.accountFor(t)
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// accountFor checks that with every device closed every chunk is free.
func (r *rig) accountFor(t testing.TB) {
	if free := r.pool.FreeChunks(); free != r.pool.Chunks() {
		t.Errorf("%d of %d chunks are free after all devices were closed; the worker holds %d",
			free, r.pool.Chunks(), r.pool.Held(frame.OwnerWorker))
	}
}

// addPod makes pod number len(r.ports) and opens its port.
func (r *rig) addPod(mode Mode, opts ...testnet.VethOption) *port {
	r.t.Helper()
	p := r.addVeth(opts...)
	r.open(p, mode)
	return p
}

// addVeth makes a pod and its veth pair.
func (r *rig) addVeth(opts ...testnet.VethOption) *port {
	r.t.Helper()
	p := &port{pod: testnet.NewNS(r.t), name: testnet.Name("p")}
	r.ports = append(r.ports, p)
	testnet.Veth(r.t, p.pod, "eth0", r.node, p.name, opts...)
	p.pod.AddAddr(r.t, "eth0", fmt.Sprintf("10.0.0.%d/24", len(r.ports)))
	return p
}

// open attaches the pod program and opens queue 0.
func (r *rig) open(p *port, mode Mode) {
	r.t.Helper()
	r.node.Do(r.t, func() {
		index := ifindex(r.t, p.name)
		var err error
		if p.attach, err = AttachPod(index, p.name, mode); err != nil {
			r.t.Fatal(err)
		}
		if p.sock, err = r.umem.Open(SocketConfig{Ifindex: index, Ifname: p.name, RingSize: ringSize, SG: true}); err != nil {
			r.t.Fatal(err)
		}
	})
	r.start(p)
}

// start gives the port's socket its chunks and steers queue 0 into it.
func (r *rig) start(p *port) {
	r.t.Helper()
	p.owner = r.pool.NewOwner()
	if err := p.sock.Start(p.owner, 2*ringSize); err != nil {
		r.t.Fatal(err)
	}
	if err := p.attach.SetSocket(0, p.sock); err != nil {
		r.t.Fatal(err)
	}
}

// close closes what is open of the port and takes its chunks back.
func (p *port) close(t testing.TB, pool *frame.Pool) {
	if p.attach != nil {
		if err := p.attach.Close(); err != nil {
			t.Error(err)
		}
		p.attach = nil
	}
	if p.sock != nil {
		if err := p.sock.Close(); err != nil {
			t.Error(err)
		}
		p.sock = nil
	}
	if p.owner != 0 {
		pool.Reclaim(p.owner)
		p.owner = 0
	}
}

// forward runs the wire between ports 0 and 1 until halt.
func (r *rig) forward() {
	r.stop, r.stopped = make(chan struct{}), make(chan struct{})
	a, b := r.ports[0].sock, r.ports[1].sock
	go func() {
		defer close(r.stopped)
		var burst frame.Burst
		for {
			select {
			case <-r.stop:
				return
			default:
			}
			if r.pass(&burst, a, b)+r.pass(&burst, b, a) == 0 {
				waitFor(a, b)
			}
		}
	}()
}

// halt stops the forwarder.
func (r *rig) halt() {
	if r.stop != nil {
		close(r.stop)
		<-r.stopped
		r.stop = nil
	}
}

func (r *rig) pass(burst *frame.Burst, from, to *Socket) int {
	burst.Reset()
	n := from.Recv(burst)
	if n == 0 {
		return 0
	}
	frames := burst.Frames[:n]
	for i := range frames {
		if !r.spoil.Load() {
			markPartial(r.pool, &frames[i])
		}
		r.frames.Add(1)
		if len(frames[i].Rest) > 0 {
			r.chains.Add(1)
		}
		if frames[i].Flags&frame.CsumPartial != 0 {
			r.partial.Add(1)
		}
		r.longest.Store(max(r.longest.Load(), uint64(frames[i].Total)))
	}
	sent := to.Send(frames)
	for i := sent; i < n; i++ {
		r.pool.FreeFrame(&frames[i])
		r.lost.Add(1)
	}
	return n
}

// waitFor sleeps until one of the sockets has input, for at most 5 ms.
func waitFor(socks ...*Socket) {
	var fds []unix.PollFd
	for _, s := range socks {
		fds = append(fds, unix.PollFd{Fd: int32(s.FD()), Events: unix.POLLIN})
	}
	unix.Poll(fds, 5)
}

// markPartial marks a TCP or UDP frame over IPv4 without options whose checksum
// field holds the folded pseudo-header sum, as the kernel leaves it.
func markPartial(p *frame.Pool, f *frame.Frame) {
	b := p.Bytes(f.Addr, f.Len)
	if len(b) < 14+20+8 || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[14] != 0x45 {
		return
	}
	offset := map[byte]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: udpChecksumOffset}[b[23]]
	if offset == 0 || len(b) < 34+offset+2 {
		return
	}
	length := binary.BigEndian.Uint16(b[16:]) - 20
	pseudo := fold16(uint64(sum16(b[26:34])) + uint64(b[23]) + uint64(length))
	if binary.BigEndian.Uint16(b[34+offset:]) == pseudo {
		f.Flags |= frame.CsumPartial
		f.CsumStart, f.CsumOffset = 34, uint16(offset)
	}
}

// ifindex finds a device of the calling thread's namespace.
func ifindex(t testing.TB, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatalf("finding %s: %v", name, err)
	}
	return i.Index
}

// pattern repeats itself every 256 bytes.
var pattern = func() []byte {
	b := make([]byte, 1<<18+256)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}()

// transfer sends n bytes over TCP from one pod to the other and checks them.
func transfer(t testing.TB, from, to *testnet.NS, addr string, n int) {
	t.Helper()
	var l net.Listener
	to.Do(t, func() {
		var err error
		if l, err = net.Listen("tcp", addr+":0"); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	done := make(chan error, 1)
	go func() { done <- receiveAll(l, n) }()
	from.Do(t, func() {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
		if err != nil {
			t.Fatalf("connecting through the sockets: %v", err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		data := pattern[:1<<18]
		for left := n; left > 0; left -= len(data) {
			if _, err := c.Write(data[:min(left, len(data))]); err != nil {
				t.Fatalf("sending with %d of %d bytes left: %v", left, n, err)
			}
		}
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func receiveAll(l net.Listener, n int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	got, buf := 0, make([]byte, 1<<18)
	for {
		m, err := c.Read(buf)
		if at := got % 256; !bytes.Equal(buf[:m], pattern[at:at+m]) {
			return fmt.Errorf("%d other bytes arrived after %d", m, got)
		}
		got += m
		if errors.Is(err, io.EOF) && got == n {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", got, n, err)
		}
	}
}

// receiveSome receives and frees at least n frames and returns the length of
// the last one.
func receiveSome(t testing.TB, r *rig, s *Socket, n int) (length int) {
	t.Helper()
	var burst frame.Burst
	waitUntil(t, "frames arrive", func() bool {
		burst.Reset()
		got := s.Recv(&burst)
		for i := range got {
			length = int(burst.Frames[i].Total)
			r.pool.FreeFrame(&burst.Frames[i])
		}
		n -= got
		return n <= 0
	})
	return length
}
