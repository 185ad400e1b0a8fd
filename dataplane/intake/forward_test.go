package intake

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
	"culvert/dataplane/mixed"
	"culvert/dataplane/psock"
	"culvert/dataplane/xsk"
	"culvert/internal/testnet"
)

// wire is a forwarder between two pods of a rig, the first worker's: it gives each
// the other's frames.
type wire struct {
	r             *rig
	out           [2]*mixed.Device
	owners        [2]frame.Owner
	stop, stopped chan struct{}

	frames, big, lost atomic.Uint64
	longest           atomic.Uint64
}

// newWire opens the pods' devices for sending and starts the forwarder.
func newWire(r *rig) *wire {
	t := r.t
	t.Helper()
	w := &wire{r: r, stop: make(chan struct{}), stopped: make(chan struct{})}
	umem := xsk.NewUmem(r.pools[0])
	for i := range w.out {
		p := r.pods[i]
		r.node.Do(t, func() {
			index := ifindex(t, p.name)
			small, err := umem.Open(xsk.SocketConfig{Ifindex: index, Ifname: p.name, RingSize: ringSize, ZeroCopy: xsk.ZeroCopyOff, SG: true})
			if err != nil {
				t.Fatal(err)
			}
			big, err := psock.OpenSender(p.name, index, r.pools[0])
			if err != nil {
				t.Fatal(err)
			}
			if w.out[i], err = mixed.New(small, big, r.pools[0], true); err != nil {
				t.Fatal(err)
			}
		})
		w.owners[i] = r.pools[0].NewOwner()
		if err := w.out[i].Start(w.owners[i], 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.out[i].Close(); err != nil {
				t.Error(err)
			}
			r.pools[0].Reclaim(w.owners[i])
		})
	}
	t.Cleanup(func() { close(w.stop); <-w.stopped })
	go w.run()
	return w
}

func (w *wire) run() {
	defer close(w.stopped)
	q := w.r.in.Queue(0)
	var b frame.Burst
	var to [2][]frame.Frame
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		b.Reset()
		if n := q.Recv(&b); n == 0 && !q.Sending() && !w.out[0].Sending() && !w.out[1].Sending() {
			wait(q, 5)
			continue
		}
		for i := range b.N {
			if f := &b.Frames[i]; w.prepare(f) {
				side := 1 - w.port(f)
				to[side] = append(to[side], *f)
			} else {
				w.r.pools[0].FreeFrame(f)
			}
		}
		for side := range to {
			w.out[side].Recv(nil)
			for i := w.out[side].Send(to[side]); i < len(to[side]); i++ {
				w.r.pools[0].FreeFrame(&to[side][i])
				w.lost.Add(1)
			}
			to[side] = to[side][:0]
		}
	}
}

// port is the number of the pod that a prepared frame came from.
func (w *wire) port(f *frame.Frame) int {
	if [6]byte(w.r.pools[0].Bytes(f.Addr, 12)[6:]) == w.r.pods[0].mac {
		return 0
	}
	return 1
}

// prepare gives a frame its source address back, and what a worker's parser would
// know of it.
func (w *wire) prepare(f *frame.Frame) bool {
	h := w.r.pools[0].Bytes(f.Addr, f.Len)
	tag, ok := frame.ReadTag(h)
	if !ok || tag.Port < 100 || int(tag.Port) >= 100+len(w.r.pods) {
		return false
	}
	copy(h[6:], w.r.pods[tag.Port-100].mac[:])
	w.frames.Add(1)
	w.longest.Store(max(w.longest.Load(), uint64(f.Total)))
	if len(h) < 54 || h[12] != 8 || h[13] != 0 || h[14] != 0x45 || h[23] != 6 {
		return true
	}
	if f.SegSize != 0 {
		w.big.Add(1)
		f.HeaderLen = 34 + uint16(h[46]>>4)*4
		return true
	}
	pseudo := uint32(sum(h[26:34])) + 6 + uint32(binary.BigEndian.Uint16(h[16:])) - 20
	if pseudo = pseudo>>16 + pseudo&0xffff; uint16(pseudo>>16+pseudo) == binary.BigEndian.Uint16(h[50:]) {
		f.Flags, f.CsumStart, f.CsumOffset = frame.CsumPartial, 34, 16
	}
	return true
}

// twoPods are pods with addresses, on a wire.
func twoPods(t testing.TB, checked, bigTCP bool) (*rig, *wire) {
	t.Helper()
	r := newRigOf(t, 1, 8192, checked)
	for i := range 2 {
		p := r.addPod()
		if bigTCP {
			allowBig(t, p.ns, "eth0")
			allowBig(t, r.node, p.name)
		}
		p.ns.AddAddr(t, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1))
	}
	return r, newWire(r)
}

// TCP between pods, with and without packets beyond 64 KB, arrives as it was sent.
func TestTCP(t *testing.T) {
	for _, bigTCP := range []bool{false, true} {
		t.Run(fmt.Sprintf("beyond 64 KB %t", bigTCP), func(t *testing.T) {
			r, w := twoPods(t, true, bigTCP)
			r.pods[0].ns.MustPing(t, "10.0.0.2")
			const size = 64 << 20
			took := transfer(t, r.pods[0].ns, r.pods[1].ns, "10.0.0.2", size)
			t.Logf("%.1f Gbit/s; %d frames, %d big, the longest %d, %d lost; %+v", size*8/took.Seconds()/1e9,
				w.frames.Load(), w.big.Load(), w.longest.Load(), w.lost.Load(), r.stats())
			if least := map[bool]uint64{false: 60000, true: 100000}[bigTCP]; w.longest.Load() < least {
				t.Errorf("the longest frame had %d bytes, want %d or more", w.longest.Load(), least)
			}
			var s frame.DeviceStats
			for i := range w.out {
				w.out[i].Stats(&s)
			}
			if s.TxInvalid != 0 || s.TxErrors != 0 || s.TxRefused != 0 {
				t.Errorf("counters %+v", s)
			}
		})
	}
}

// BenchmarkTCP is pod to pod, beside dataplane/xsk's BenchmarkPodMode. Run it with
// -benchtime=1x on a quiet machine.
func BenchmarkTCP(b *testing.B) {
	for _, bigTCP := range []bool{false, true} {
		b.Run(fmt.Sprintf("beyond64K=%t", bigTCP), func(b *testing.B) {
			r, w := twoPods(b, false, bigTCP)
			r.pods[0].ns.MustPing(b, "10.0.0.2")
			const size = 4 << 30
			var took time.Duration
			for range b.N {
				took += transfer(b, r.pods[0].ns, r.pods[1].ns, "10.0.0.2", size)
			}
			b.ReportMetric(size*8*float64(b.N)/took.Seconds()/1e9, "Gbit/s")
			b.ReportMetric(float64(size)*float64(b.N)/float64(w.big.Load()), "B/big-frame")
			s := r.stats()
			b.ReportMetric(float64(s.RxDropped+s.RxRingFull+s.RxFillEmpty+w.lost.Load()), "lost")
		})
	}
}

// pattern repeats itself every 256 bytes.
var pattern = func() []byte {
	b := make([]byte, 1<<18+256)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}()

// transfer sends n bytes over TCP from one pod to the other, checks them, and
// returns how long it took.
func transfer(t testing.TB, from, to *testnet.NS, addr string, n int) time.Duration {
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
	var c net.Conn
	from.Do(t, func() {
		var err error
		if c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); err != nil {
			t.Fatalf("connecting through the intake: %v", err)
		}
	})
	start := time.Now()
	c.SetDeadline(start.Add(20 * time.Second))
	for left := n; left > 0; left -= 1 << 18 {
		if _, err := c.Write(pattern[:min(left, 1<<18)]); err != nil {
			t.Fatalf("sending with %d of %d bytes left: %v", left, n, err)
		}
	}
	c.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

func receiveAll(l net.Listener, n int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
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
