package psock

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"

	"golang.org/x/sys/unix"
)

// receive waits for one frame and returns a copy of its bytes and what the header
// said. It is freed.
func receive(t testing.TB, r *Receiver) (b []byte, f frame.Frame) {
	t.Helper()
	var burst frame.Burst
	waitUntil(t, "a frame arrives", func() bool { n, _ := r.Recv(&burst); return n == 1 })
	f = burst.Frames[0]
	b = bytesOf(r.pool, &f)
	r.pool.FreeFrame(&f)
	return b, f
}

// Frames of every length arrive as they were sent, in chunks behind their headroom.
func TestReceive(t *testing.T) {
	r := newRig(t)
	for _, d := range []struct{ v6 bool }{{false}, {true}} {
		recv := r.openReceiver(r.pod, "eth0", r.pool)
		for _, n := range []int{1, 1000, 3840 - 74, 3840 - 73, 2 * 3840, 64000} {
			v6 := d.v6
			b := packet(v6, unix.IPPROTO_TCP, n)
			f := r.frameOf(b, 3840, 3840)
			if n > 1000 {
				offload(&f, v6, unix.IPPROTO_TCP, 1200)
			}
			if got := r.send.Send(&f); got != mixed.Sent {
				t.Fatalf("result %d", got)
			}
			r.pool.FreeFrame(&f)
			got, meta := receive(t, recv)
			if !bytes.Equal(got, b) {
				t.Errorf("%d bytes arrived, or others, of %d", len(got), len(b))
			}
			if meta.Addr-r.pool.Base(meta.Addr) != frame.Headroom || int(meta.Total) != len(b) ||
				len(meta.Rest) != (len(b)-1)/3840 {
				t.Errorf("%d bytes arrived as %+v", len(b), meta)
			}
			if f.HeaderLen = 0; meta.SegSize != f.SegSize || meta.Flags != f.Flags || meta.CsumStart != f.CsumStart || meta.CsumOffset != f.CsumOffset {
				t.Errorf("sent %+v, received %+v", f, meta)
			}
		}
	}
}

// The largest frame there is fits; a larger one is dropped whole and counted.
func TestReceiveLargest(t *testing.T) {
	r := newRig(t)
	allowBig(t, r.node, r.port, 400<<10)
	send := r.openSender(r.node, r.port)
	recv := r.openReceiver(r.pod, "eth0", r.pool)
	for _, n := range []int{frame.MaxBytes, frame.MaxChunks*3840 + 1, 2000} {
		b := packet(false, unix.IPPROTO_TCP, n-54)
		f := r.frameOf(b, 3840, 3840)
		offload(&f, false, unix.IPPROTO_TCP, 1448)
		if got := send.Send(&f); got != mixed.Sent {
			t.Fatalf("result %d", got)
		}
		r.pool.FreeFrame(&f)
		if n > frame.MaxBytes {
			continue
		}
		if got, _ := receive(t, recv); !bytes.Equal(got, b) {
			t.Errorf("%d bytes arrived, or others, of %d", len(got), n)
		}
	}
	var s frame.DeviceStats
	if recv.Stats(&s); s.RxTooLong != 1 || s.RxInvalid != 0 || s.RxFillEmpty != 0 {
		t.Errorf("counters %+v", s)
	}
}

// Without chunks to spare, what does not fit is dropped and counted, what fits is
// received, and nothing is lost of the memory.
func TestReceiveWithoutChunks(t *testing.T) {
	r := newRig(t)
	pool := newPool(t, frame.MaxChunks+3)
	pool.SetReserve(3)
	recv := r.openReceiver(r.pod, "eth0", pool)
	send := func(n int) {
		f := r.frameOf(packet(false, unix.IPPROTO_TCP, n), 3840, 3840)
		offload(&f, false, unix.IPPROTO_TCP, 1000)
		if got := r.send.Send(&f); got != mixed.Sent {
			t.Fatalf("result %d", got)
		}
		r.pool.FreeFrame(&f)
	}
	var held frame.Burst
	dropped := func() uint64 {
		var s frame.DeviceStats
		recv.Stats(&s)
		return s.RxFillEmpty
	}
	next := func(want int) {
		t.Helper()
		before := dropped()
		n := 0
		waitUntil(t, "a frame arrives", func() bool { n, _ = recv.Recv(&held); return n > 0 || dropped() != before })
		if n != want {
			t.Fatalf("got %d, want %d", n, want)
		}
	}
	for range 4 {
		send(60000)
		next(1) // 16 chunks each, of 69
	}
	send(60000)
	next(0)
	send(60) // a frame of one chunk, and four more
	next(1)
	for range 4 {
		send(1000)
		next(1)
	}
	send(1000)
	next(0) // nothing is left
	for i := range held.N {
		pool.FreeFrame(&held.Frames[i])
	}
	held.Reset()
	send(60000)
	next(1)
	pool.FreeFrame(&held.Frames[0])
	if held := pool.Held(frame.OwnerWorker); held != 0 {
		t.Errorf("the worker holds %d chunks", held)
	}
	var s frame.DeviceStats
	if recv.Stats(&s); s.RxFillEmpty != 2 || s.RxTooLong != 0 || s.RxInvalid != 0 {
		t.Errorf("counters %+v", s)
	}
}

// Several frames come with one call, in order, and the last call knows it is that.
func TestReceiveSeveral(t *testing.T) {
	r := newRig(t)
	recv := r.openReceiver(r.pod, "eth0", r.pool)
	n := 3 * recv.per
	if recv.per != perCall {
		t.Fatalf("%d frames a call of a pool of %d chunks", recv.per, r.pool.Chunks())
	}
	for i := range n {
		f := r.frameOf(packet(false, unix.IPPROTO_TCP, 3000+i), 3840, 3840)
		offload(&f, false, unix.IPPROTO_TCP, 1000)
		r.send.Send(&f)
		r.pool.FreeFrame(&f)
	}
	var b frame.Burst
	for calls := 1; ; calls++ {
		got, empty := recv.Recv(&b)
		if empty != (got < perCall) || empty != (b.N == n && calls == 4) {
			t.Fatalf("call %d: %d frames, empty: %t", calls, got, empty)
		}
		if empty {
			break
		}
	}
	for i := range b.N {
		if got := int(b.Frames[i].Total); got != 54+3000+i {
			t.Errorf("frame %d has %d bytes", i, got)
		}
		r.pool.FreeFrame(&b.Frames[i])
	}
}

// A burst that might not hold the next frame is left alone.
func TestReceiveNeedsRoom(t *testing.T) {
	r := newRig(t)
	recv := r.openReceiver(r.pod, "eth0", r.pool)
	var b frame.Burst
	for b.ChainRoom() >= frame.MaxChunks-1 {
		b.Add(frame.Desc{})
		for range frame.MaxSegments - 1 {
			b.Chain(frame.Desc{})
		}
	}
	if n, empty := recv.Recv(&b); n != 0 || empty {
		t.Errorf("got %d, empty %t, with room for %d chunks", n, empty, b.ChainRoom())
	}
	b.Reset()
	if n, empty := recv.Recv(&b); n != 0 || !empty {
		t.Errorf("got %d, empty %t, of an empty socket", n, empty)
	}
	b.N = frame.BurstSize
	if n, empty := recv.Recv(&b); n != 0 || empty {
		t.Errorf("got %d, empty %t, with a full burst", n, empty)
	}
}

// Frames that the kernel had no room for are counted, also when somebody else
// looks at the counters in between, and after Close.
func TestReceiveOverflow(t *testing.T) {
	r := newRig(t)
	recv := r.openReceiver(r.pod, "eth0", r.pool)
	unix.SetsockoptInt(recv.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<18)
	const n = 100
	f := r.frameOf(packet(false, unix.IPPROTO_TCP, 60000), 3840, 3840)
	offload(&f, false, unix.IPPROTO_TCP, 1000)
	for range n {
		if got := r.send.Send(&f); got != mixed.Sent {
			t.Fatalf("result %d", got)
		}
		recv.Stats(new(frame.DeviceStats))
	}
	r.pool.FreeFrame(&f)
	received := uint64(0)
	waitUntil(t, "all frames are accounted for", func() bool {
		var b frame.Burst
		for n, _ := recv.Recv(&b); n > 0; n, _ = recv.Recv(&b) {
			for i := range n {
				r.pool.FreeFrame(&b.Frames[i])
			}
			received += uint64(n)
			b.Reset()
		}
		var s frame.DeviceStats
		recv.Stats(&s)
		return received+s.RxRingFull == n
	})
	if received == 0 || received == n {
		t.Errorf("%d of %d frames were received", received, n)
	}
	if err := recv.Close(); err != nil {
		t.Error(err)
	}
	var s frame.DeviceStats
	if recv.Stats(&s); s.RxRingFull != n-received {
		t.Errorf("%d frames lost after Close, %d before", s.RxRingFull, n-received)
	}
}

// A device that goes down, or away, ends nothing but the frames.
func TestReceiveFromDeviceThatGoes(t *testing.T) {
	r := newRig(t)
	recv := r.openReceiver(r.pod, "eth0", r.pool)
	var b frame.Burst
	r.pod.Down(t, "eth0")
	if n, empty := recv.Recv(&b); n != 0 || !empty {
		t.Errorf("got %d, empty %t, when the device is down", n, empty)
	}
	r.pod.Up(t, "eth0")
	f := r.frameOf(packet(false, unix.IPPROTO_TCP, 3000), 3840, 3840)
	offload(&f, false, unix.IPPROTO_TCP, 1000)
	waitUntil(t, "frames arrive again", func() bool {
		r.send.Send(&f)
		n, _ := recv.Recv(&b)
		return n > 0
	})
	r.pool.FreeFrame(&f)
	r.node.Delete(t, r.port)
	for range 3 {
		recv.Recv(&b)
	}
	for i := range b.N {
		r.pool.FreeFrame(&b.Frames[i])
	}
	fds := []unix.PollFd{{Fd: int32(recv.FD()), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 50); n != 0 {
		t.Errorf("the socket of a removed device is ready: events %#x", fds[0].Revents)
	}
}

func TestReceiveDoesNotAllocate(t *testing.T) {
	r := newRig(t)
	recv := r.openReceiver(r.pod, "eth0", r.pool)
	f := r.frameOf(packet(false, unix.IPPROTO_TCP, 64000), 3840, 3840)
	offload(&f, false, unix.IPPROTO_TCP, 1448)
	var b frame.Burst
	got := 0
	n := testing.AllocsPerRun(100, func() {
		r.send.Send(&f)
		b.Reset()
		recv.Recv(&b)
		got += b.N
		for i := range b.N {
			r.pool.FreeFrame(&b.Frames[i])
		}
	})
	if r.pool.FreeFrame(&f); n != 0 || got < 50 {
		t.Errorf("%v allocations a frame, %d frames", n, got)
	}
}

// What one frame costs to send and receive: less BenchmarkSend, to receive.
func BenchmarkReceive(b *testing.B) {
	for _, n := range []int{1000, 64000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b)
			recv := r.openReceiver(r.pod, "eth0", r.pool)
			f := r.frameOf(packet(false, unix.IPPROTO_TCP, n), 3840, 3840)
			offload(&f, false, unix.IPPROTO_TCP, 900)
			defer r.pool.FreeFrame(&f)
			var burst frame.Burst
			var took time.Duration
			for b.Loop() {
				r.send.Send(&f)
				burst.Reset()
				start := time.Now()
				recv.Recv(&burst)
				took += time.Since(start)
				for i := range burst.N {
					r.pool.FreeFrame(&burst.Frames[i])
				}
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/receive")
		})
	}
}
