package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// The bound that a restart's gap has, of the best of restarts: the machine may be
// busy with other things in one of them.
const (
	restartGap = 300 * time.Millisecond
	restarts   = 4
)

// While culvertd is started anew on a node full of pods, what its pods send and are
// sent is missing for less than restartGap, and their connections live on.
func TestRestartGap(t *testing.T) {
	pods := 30
	if s := os.Getenv("RESTART_PODS"); s != "" {
		fmt.Sscan(s, &pods)
	}
	c := up(t, lab.Options{Pods: pods})
	n, far := c.Nodes[0], c.Nodes[1]
	last := n.Pods[len(n.Pods)-1]
	streams := []*stream{
		startStream(t, "out", n.Pods[0], far.Pods[0]), startStream(t, "in", far.Pods[1], last), startStream(t, "within", n.Pods[1], last),
	}
	conns := append(keepOpen(t, last, far.Pods[0], 1), keepOpen(t, far.Pods[1], n.Pods[0], 1)...)
	for _, how := range []struct {
		name   string
		signal syscall.Signal
	}{{"SIGTERM", syscall.SIGTERM}, {"SIGKILL", syscall.SIGKILL}} {
		best := time.Duration(0)
		for range restarts {
			for _, s := range streams {
				s.gap(t)
			}
			begin := time.Now()
			if err := c.StopAgent(n, how.signal); err != nil {
				t.Fatal(err)
			}
			ended := time.Since(begin)
			if err := c.StartAgent(context.Background(), n); err != nil {
				t.Fatal(err)
			}
			var widest time.Duration
			for _, s := range streams {
				gap := s.gap(t)
				t.Logf("%s with %d pods: %s: %v without a datagram; culvertd ended in %v, was ready in %v",
					how.name, pods, s.name, gap.Round(time.Millisecond), ended.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
				widest = max(widest, gap)
			}
			for _, conn := range conns {
				if err := answered(conn); err != nil {
					t.Fatalf("a connection of before the restart: %v", err)
				}
			}
			if best == 0 || widest < best {
				best = widest
			}
			if best < restartGap {
				break
			}
		}
		if best >= restartGap*slower {
			t.Errorf("%s: at the best of %d restarts nothing arrived for %v", how.name, restarts, best)
		}
	}
}
