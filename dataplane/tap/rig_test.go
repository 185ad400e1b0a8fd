package tap

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rig is two pods with a TAP each, and a forwarder that is a wire between them:
//
//	pod 0 eth0 ═(forwarder)═ eth0 pod 1
//	10.0.0.1                 10.0.0.2
type rig struct {
	t    testing.TB
	pool *frame.Pool
	pods []*pod

	stop, stopped chan struct{}
	frames        atomic.Uint64 // forwarded
	big           atomic.Uint64 // of the frames, with SegSize
	longest       atomic.Uint64
	lost          atomic.Uint64
	onFrame       func(*frame.Frame) // called for every frame, if not nil
}

type pod struct {
	ns    *testnet.NS
	q     *Queue
	owner frame.Owner
}

func newRig(t testing.TB, checked bool) *rig {
	t.Helper()
	pool, err := frame.NewPool(4096, 4096, checked)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, pool: pool}
	t.Cleanup(func() {
		r.halt()
		for _, p := range r.pods {
			p.close(t, pool)
		}
		if free := pool.FreeChunks(); free != pool.Chunks() {
			t.Errorf("%d of %d chunks are free at the end", free, pool.Chunks())
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// makeTAP makes eth0 in ns, with addr, and brings it up.
func makeTAP(t testing.TB, ns *testnet.NS, mtu int, addr string) {
	t.Helper()
	ns.Do(t, func() {
		m, err := Make("eth0")
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(netlink.LinkSetMTU(l, mtu), netlink.LinkSetTxQLen(l, 4096)); err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0)
	})
	ns.AddAddr(t, "eth0", addr)
	ns.Up(t, "eth0")
}

// addPod makes a pod of an MTU and opens its queue.
func (r *rig) addPod(mtu int, addr string) *pod {
	r.t.Helper()
	p := &pod{ns: testnet.NewNS(r.t)}
	makeTAP(r.t, p.ns, mtu, addr)
	p.open(r.t, r.pool)
	r.pods = append(r.pods, p)
	return p
}

func (p *pod) open(t testing.TB, pool *frame.Pool) {
	t.Helper()
	p.ns.Do(t, func() {
		var err error
		if p.q, err = Open("eth0", pool, true); err != nil {
			t.Fatal(err)
		}
	})
	p.owner = pool.NewOwner()
	if err := p.q.Start(p.owner, 96); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) close(t testing.TB, pool *frame.Pool) {
	if p.q == nil {
		return
	}
	if err := p.q.Close(); err != nil {
		t.Error(err)
	}
	pool.Reclaim(p.owner)
	p.q = nil
}

// run starts the forwarder.
func (r *rig) run() {
	r.stop, r.stopped = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(r.stopped)
		var b frame.Burst
		fds := []unix.PollFd{{Fd: int32(r.pods[0].q.FD()), Events: unix.POLLIN}, {Fd: int32(r.pods[1].q.FD()), Events: unix.POLLIN}}
		for {
			select {
			case <-r.stop:
				return
			default:
			}
			if r.forward(&b, 0, 1)+r.forward(&b, 1, 0) == 0 {
				_, _ = unix.Poll(fds, 10)
			}
		}
	}()
}

func (r *rig) halt() {
	if r.stop != nil {
		close(r.stop)
		<-r.stopped
		r.stop = nil
	}
}

// forward moves one burst.
func (r *rig) forward(b *frame.Burst, from, to int) int {
	b.Reset()
	n := r.pods[from].q.Recv(b)
	frames := b.Frames[:n]
	for i := range frames {
		f := &frames[i]
		bump(&r.frames, 1)
		if f.SegSize != 0 {
			bump(&r.big, 1)
		}
		if uint64(f.Total) > r.longest.Load() {
			r.longest.Store(uint64(f.Total))
		}
		if r.onFrame != nil {
			r.onFrame(f)
		}
		f.HeaderLen = f.CsumStart + 20
	}
	sent := r.pods[to].q.Send(frames)
	for i := sent; i < n; i++ {
		bump(&r.lost, 1)
		r.pool.FreeFrame(&frames[i])
	}
	return n
}

// transfer sends bytes of a pattern by TCP from one pod to the other, and
// returns how long it took. It fails when other bytes arrive.
func (r *rig) transfer(from, to int, addr string, bytes int) time.Duration {
	t := r.t
	t.Helper()
	var l net.Listener
	r.pods[to].ns.Do(t, func() {
		var err error
		if l, err = net.Listen("tcp", addr+":0"); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	result := make(chan error, 1)
	go func() { result <- receivePattern(l, bytes) }()
	var c net.Conn
	r.pods[from].ns.Do(t, func() {
		var err error
		if c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); err != nil {
			t.Fatal(err)
		}
	})
	start := time.Now()
	if err := sendPattern(c, bytes); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case err := <-result:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the transfer does not end")
	}
	return time.Since(start)
}

// pattern is what transfers consist of, over and over.
var pattern = func() []byte {
	b := make([]byte, 257*1024)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}()

func sendPattern(c net.Conn, n int) error {
	for n > 0 {
		k, err := c.Write(pattern[:min(n, len(pattern))])
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

func receivePattern(l net.Listener, want int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1<<20)
	at := 0
	for {
		n, err := c.Read(buf)
		for i := 0; i < n; {
			p := pattern[(at+i)%len(pattern):]
			k := min(len(p), n-i)
			if string(p[:k]) != string(buf[i:i+k]) {
				return errors.New("other bytes arrived than were sent")
			}
			i += k
		}
		at += n
		if err != nil {
			break
		}
	}
	if at != want {
		return errors.New("bytes are missing")
	}
	return nil
}
