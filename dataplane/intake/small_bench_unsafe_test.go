package intake

import (
	"testing"
	"time"
	"unsafe"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"

	"golang.org/x/sys/unix"
)

// BenchmarkSmall is what a small frame costs to receive by the intake, beside an
// AF_XDP socket and a generic XDP program at the pod's veth itself. The pod's side
// sends by a packet socket that bypasses the queueing discipline, on one thread with
// the receiver: what the kernel does for the receiver happens within the send.
//
//	ns/send   the kernel's part: veth, tcx, redirect, XDP, copy into the memory
//	ns/recv   Recv and freeing
func BenchmarkSmall(b *testing.B) {
	b.Run("intake", func(b *testing.B) {
		r := newRigOf(b, 1, 4096, false)
		p := r.addPod()
		benchSmall(b, r, p, r.in.Queue(0))
	})
	b.Run("direct", func(b *testing.B) {
		r := newRigOf(b, 1, 4096, false)
		p := r.addVeth()
		var sock *xsk.Socket
		r.node.Do(b, func() {
			index := ifindex(b, p.name)
			at, err := xsk.AttachPod(index, p.name, xsk.ModeGeneric)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { at.Close() })
			sock, err = xsk.NewUmem(r.pools[0]).Open(xsk.SocketConfig{Ifindex: index, Ifname: p.name, RingSize: ringSize, ZeroCopy: xsk.ZeroCopyOff, SG: true})
			if err != nil {
				b.Fatal(err)
			}
			if err := at.SetSocket(0, sock); err != nil {
				b.Fatal(err)
			}
		})
		owner := r.pools[0].NewOwner()
		if err := sock.Start(owner, ringSize); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { sock.Close(); r.pools[0].Reclaim(owner) })
		benchSmall(b, r, p, sock)
	})
}

func benchSmall(b *testing.B, r *rig, p *pod, dev frame.Device) {
	if err := unix.SetsockoptInt(p.sock, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		b.Fatal(err)
	}
	const batch = 32
	send := newBatch(segment(p.mac, 1, 1, 10, 0), batch)
	var burst frame.Burst
	var sending, receiving time.Duration
	frames := 0
	for b.Loop() {
		t0 := time.Now()
		if n := send.to(p.sock); n != batch {
			b.Fatalf("%d of %d frames were sent", n, batch)
		}
		t1 := time.Now()
		burst.Reset()
		frames += dev.Recv(&burst)
		for i := range burst.N {
			r.pools[0].FreeFrame(&burst.Frames[i])
		}
		sending += t1.Sub(t0)
		receiving += time.Since(t1)
	}
	if frames < b.N*batch*9/10 {
		b.Errorf("%d of %d frames came", frames, b.N*batch)
	}
	b.ReportMetric(float64(sending.Nanoseconds())/float64(frames), "ns/send")
	b.ReportMetric(float64(receiving.Nanoseconds())/float64(frames), "ns/recv")
}

// batch is a frame to be sent several times with one system call.
type batch struct {
	frame []byte
	iov   unix.Iovec
	msgs  []struct {
		unix.Msghdr
		n uint32
	}
}

func newBatch(frame []byte, n int) *batch {
	s := &batch{frame: frame}
	s.iov.Base, s.iov.Len = &frame[0], uint64(len(frame))
	s.msgs = make([]struct {
		unix.Msghdr
		n uint32
	}, n)
	for i := range s.msgs {
		s.msgs[i].Iov, s.msgs[i].Iovlen = &s.iov, 1
	}
	return s
}

func (s *batch) to(fd int) int {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msgs[0])), uintptr(len(s.msgs)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
