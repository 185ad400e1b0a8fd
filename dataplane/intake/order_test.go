package intake

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// Flows of small and GSO frames, mixed at random and sent as fast as pods can, come
// out of the queues each in its order and each of one queue.
func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name                  string
		workers, pods, flows  int
		frames, gso, pauseFor int
	}{
		{"one flow", 1, 1, 1, 100000, 50, 0},
		{"one flow, few big", 1, 1, 1, 50000, 2, 0},
		{"two pods", 1, 2, 3, 50000, 30, 0},
		{"two workers", 2, 2, 4, 50000, 50, 0},
		{"a slow worker", 1, 2, 3, 20000, 40, 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRigOf(t, c.workers, 8192, true)
			var senders sync.WaitGroup
			var done atomic.Bool
			for i := range c.pods {
				p := r.addPod()
				senders.Go(func() { sendFlows(p, uint16(10*i), c.flows, c.frames, c.gso) })
			}
			go func() { senders.Wait(); done.Store(true) }()
			var readers sync.WaitGroup
			var checks []*orderCheck
			for w := range c.workers {
				k := &orderCheck{t: t, last: make(map[uint16]uint32), pause: time.Duration(c.pauseFor) * time.Microsecond}
				checks = append(checks, k)
				readers.Go(func() { k.read(r, w, &done) })
			}
			readers.Wait()
			got, flows := uint64(0), 0
			for _, k := range checks {
				got += k.small + k.big
				flows += len(k.last)
				if k.big == 0 || k.small == 0 {
					t.Errorf("%d small and %d big frames", k.small, k.big)
				}
			}
			s := r.stats()
			lost := s.RxRingFull + s.RxFillEmpty + s.RxShare
			t.Logf("%d frames in order, %d lost: %+v", got, lost, s)
			if sent := uint64(c.pods * c.frames); got+lost != sent {
				t.Errorf("of %d frames came %d and %d were lost", sent, got, lost)
			}
			if want := c.pods * c.flows; flows != want {
				t.Errorf("%d flows at the queues, want %d: a flow has one queue", flows, want)
			}
			if s.RxInvalid != 0 || s.RxTooLong != 0 {
				t.Errorf("counters %+v", s)
			}
		})
	}
}

// sendFlows sends frames of some flows, numbered in each, so many of 100 to be cut.
// It stays on one CPU, as the kernel's own order is one for each CPU (net/core/dev.c,
// enqueue_to_backlog).
func sendFlows(p *pod, first uint16, flows, frames, gso int) {
	runtime.LockOSThread() // never unlocked: the thread ends
	var cpu unix.CPUSet
	cpu.Set(int(first/10) % runtime.NumCPU())
	_ = unix.SchedSetaffinity(0, &cpu)
	rnd := rand.New(rand.NewPCG(1, uint64(first)))
	var small, big [][]byte
	for i := range flows {
		small = append(small, segment(p.mac, first+uint16(i), 0, 20, 0))
		big = append(big, segment(p.mac, first+uint16(i), 0, 4000, 1000))
	}
	numbers := make([]uint32, flows)
	for range frames {
		i := rnd.IntN(flows)
		b := small[i]
		if rnd.IntN(100) < gso {
			b = big[i]
		}
		numbers[i]++
		binary.BigEndian.PutUint32(b[10+38:], numbers[i])
		for _, err := unix.Write(p.sock, b); err != nil; _, err = unix.Write(p.sock, b) {
		}
	}
}

// orderCheck reads a queue and checks the numbers of every flow.
type orderCheck struct {
	t          *testing.T
	last       map[uint16]uint32
	small, big uint64
	pause      time.Duration
}

func (k *orderCheck) read(r *rig, w int, done *atomic.Bool) {
	q, pool := r.in.Queue(w), r.pools[w]
	var b frame.Burst
	for idle := 0; idle < 3; {
		if done.Load() {
			idle++
		}
		b.Reset()
		if q.Recv(&b) == 0 && !q.Sending() {
			wait(q, 5)
			continue
		}
		if idle = 0; k.pause > 0 {
			time.Sleep(k.pause)
		}
		for i := range b.N {
			k.check(pool, &b.Frames[i])
			pool.FreeFrame(&b.Frames[i])
		}
	}
}

func (k *orderCheck) check(pool *frame.Pool, f *frame.Frame) {
	h := pool.Bytes(f.Addr, f.Len)
	flow, number := binary.BigEndian.Uint16(h[34:]), binary.BigEndian.Uint32(h[38:])
	if number <= k.last[flow] {
		k.t.Errorf("flow %d: frame %d came after %d", flow, number, k.last[flow])
	}
	k.last[flow] = number
	if f.SegSize != 0 {
		k.big++
	} else {
		k.small++
	}
}

// wait sleeps until a queue has frames, for so many milliseconds at most.
func wait(q *Queue, ms int) {
	fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}, {Fd: int32(q.BulkFD()), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, ms)
}
