package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"culvert/internal/lab"
)

// stream is a datagram a millisecond from one pod to another, and what its receiver
// saw of it.
type stream struct {
	name string
	stop chan struct{}
	done sync.WaitGroup

	sent, received atomic.Uint64
	widest         atomic.Int64 // ns between two arrivals, since the last call of gap
}

// startStream begins to send.
func startStream(t *testing.T, name string, from, to *lab.Pod) *stream {
	t.Helper()
	c, port := sink(t, to.Netns)
	s := &stream{name: name, stop: make(chan struct{})}
	var out net.Conn
	if err := inside(from.Netns, func() (err error) {
		out, err = net.Dial("udp4", netip.AddrPortFrom(to.Addr, uint16(port)).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer out.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			_, err := out.Write(binary.BigEndian.AppendUint64(nil, s.sent.Load()))
			if err == nil { // while nobody takes what the pod sends, it may hear of that
				s.sent.Add(1)
			}
		}
	}()
	go func() {
		var last time.Time
		for b := make([]byte, 64); ; {
			if _, _, err := c.ReadFrom(b); err != nil {
				return // the test is over
			}
			now := time.Now()
			if gap := int64(now.Sub(last)); !last.IsZero() && gap > s.widest.Load() {
				s.widest.Store(gap)
			}
			last = now
			s.received.Add(1)
		}
	}()
	t.Cleanup(s.end)
	eventually(t, "stream "+name+" arrives", func() error {
		if n := s.received.Load(); n < 20 {
			return fmt.Errorf("%d datagrams of %d", n, s.sent.Load())
		}
		return nil
	})
	return s
}

func (s *stream) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.done.Wait()
}

// gap is the longest time without an arrival since it was asked last, once the stream
// flows again.
func (s *stream) gap(t *testing.T) time.Duration {
	t.Helper()
	before := s.received.Load()
	eventually(t, "stream "+s.name+" goes on", func() error {
		if n := s.received.Load() - before; n < 20 {
			return fmt.Errorf("%d datagrams", n)
		}
		return nil
	})
	return time.Duration(s.widest.Swap(0))
}

// talk sends a few bytes over each connection and waits for them to come back, again
// and again, until stopped; then it tells what went wrong.
func talk(conns []net.Conn) (stop func() error) {
	var g errgroup.Group
	end := make(chan struct{})
	for _, c := range conns {
		g.Go(func() error {
			for {
				select {
				case <-end:
					return nil
				default:
				}
				if err := answered(c); err != nil {
					return err
				}
			}
		})
	}
	return func() error { close(end); return g.Wait() }
}

// restarts is how often culvertd is started anew until one is short enough: the machine
// may be busy with other things.
const restarts = 8

// While culvertd is started anew on a node of thirty pods, what they send and are sent is
// missing for less than 300 ms, and their connections live on. For a culvertd that was
// killed the kernel closes its sockets one after the other, two grace periods a pod,
// before anybody hears that it has ended.
func TestRestartGap(t *testing.T) {
	const pods = 30
	c := up(t, lab.Options{Pods: pods})
	n, far := c.Nodes[0], c.Nodes[1]
	last := n.Pods[pods-1]
	streams := []*stream{
		startStream(t, "out", n.Pods[0], far.Pods[0]), startStream(t, "in", far.Pods[1], last), startStream(t, "within", n.Pods[1], last),
	}
	stop := talk(append(keepOpen(t, last, far.Pods[0], 2), keepOpen(t, far.Pods[1], n.Pods[0], 2)...))
	for _, how := range []struct {
		signal syscall.Signal
		bound  time.Duration
	}{{syscall.SIGTERM, 300 * time.Millisecond}, {syscall.SIGKILL, 3 * time.Second}} {
		best := time.Duration(math.MaxInt64)
		for try := 0; try < restarts && best >= how.bound*slower; try++ {
			best = min(best, c.restartGap(n, how.signal, streams))
		}
		if best >= how.bound*slower {
			t.Errorf("%s: at the best of %d restarts nothing arrived for %v", how.signal, restarts, best)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("a connection of before the restarts: %v", err)
	}
}

// restartGap restarts a node's culvertd, and is the longest time that a stream did without a datagram.
func (c *cluster) restartGap(n *lab.Node, signal syscall.Signal, streams []*stream) (widest time.Duration) {
	c.t.Helper()
	for _, s := range streams {
		s.gap(c.t)
	}
	begin := time.Now()
	if err := c.StopAgent(n, signal); err != nil {
		c.t.Fatal(err)
	}
	ended := time.Since(begin)
	if err := c.StartAgent(context.Background(), n); err != nil {
		c.t.Fatal(err)
	}
	ready := time.Since(begin)
	for _, s := range streams {
		gap := s.gap(c.t)
		c.t.Logf("%s: %s: %v without a datagram; culvertd had ended after %v and was ready after %v",
			signal, s.name, gap.Round(time.Millisecond), ended.Round(time.Millisecond), ready.Round(time.Millisecond))
		widest = max(widest, gap)
	}
	return widest
}
