package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sync/errgroup"

	"culvert/ctrl/api"
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

// busy is by how much the machine is slower than one that does nothing else, where
// culvertd tells its version in less than quick.
func busy(t *testing.T) float64 {
	t.Helper()
	const quick, times = 25 * time.Millisecond, 4
	begin := time.Now()
	for range times {
		if out, err := exec.Command(filepath.Join(binDir, "culvertd"), "--version").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return max(1, float64(time.Since(begin))/float64(times*quick))
}

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
		for try := 0; try < restarts && best >= how.bound; try++ {
			before := busy(t)
			gap := c.restartGap(n, how.signal, streams)
			best = min(best, time.Duration(float64(gap)/((before+busy(t))/2)))
		}
		if best >= how.bound {
			t.Errorf("%s: at the best of %d restarts nothing arrived for %v of a quiet machine's time", how.signal, restarts, best)
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

// tcxPrograms are the names of the programs at the ingress of a node's devices, sorted.
func tcxPrograms(t *testing.T, n *lab.Node) (names []string) {
	t.Helper()
	if err := inside(n.Netns, func() error {
		devices, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, d := range devices {
			all, err := link.QueryPrograms(link.QueryOptions{Target: d.Index, Attach: ebpf.AttachTCXIngress})
			if err != nil {
				continue // it has gone meanwhile
			}
			for _, at := range all.Programs {
				p, err := ebpf.NewProgramFromID(at.ID)
				if err != nil {
					continue
				}
				info, err := p.Info()
				if err := errors.Join(err, p.Close()); err != nil {
					return err
				}
				names = append(names, info.Name)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// A culvertd that is killed leaves nothing that another one does not find, use again or
// see removed: links, namespaces and programs do not grow in number.
func TestKilledManyTimes(t *testing.T) {
	c := up(t, lab.Options{Pods: 2, Interfaces: []string{"veth", "tap"}})
	n := c.Nodes[0]
	look := func() string { // without what changes with every process
		links := strings.Fields(must(t, n.Netns, "ls", "/sys/class/net"))
		for i, name := range links {
			if strings.HasPrefix(name, "cvi") || strings.HasPrefix(name, "cvg") {
				links[i] = name[:3]
			}
		}
		return fmt.Sprintf("links %v, programs %v, ports %d", slices.Sorted(slices.Values(links)), tcxPrograms(t, n),
			len(culvertJSON[[]api.Port](t, n, "port")))
	}
	before := look()
	for round := range 6 {
		if err := c.StopAgent(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("after round %d the node looks the same", round), func() error {
			if after := look(); after != before {
				return fmt.Errorf("before: %s; after: %s", before, after)
			}
			return nil
		})
	}
	transfer(t, n.Pods[0].Netns, c.Nodes[1].Pods[0].Netns, c.Nodes[1].Pods[0].Addr.String(), 1, 1<<20)
	transfer(t, c.Nodes[1].Pods[0].Netns, n.Pods[1].Netns, n.Pods[1].Addr.String(), 1, 1<<20)
}

// A pod whose frames came by the intake before the restart loses nothing when they are to
// come by an XDP program of its own, and back.
func TestRestartInAnotherMode(t *testing.T) {
	c := up(t, lab.Options{})
	n, far := c.Nodes[0], c.Nodes[1].Pods[0]
	for _, mode := range []string{"generic", "auto"} {
		if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CULVERT_XDP_MODE", mode)
		if err := c.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		left := slices.DeleteFunc(tcxPrograms(t, n), func(name string) bool { return name != "culvert_pod" })
		if want := map[string]int{"auto": len(n.Pods)}[mode]; len(left) != want {
			t.Errorf("mode %s: %d pods have the intake's program, want %d", mode, len(left), want)
		}
		transfer(t, n.Pods[0].Netns, far.Netns, far.Addr.String(), 1, 1<<20)
		must(t, n.Pods[0].Netns, "ping", "-n", "-c", "1", "-W", "2", n.Pods[1].Addr.String())
	}
}

// A second culvertd with the state directory of one that runs ends at once, says why, and
// has touched nothing.
func TestSecondCulvertdIsRefused(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Pods: 2})
	n := c.Nodes[0]
	before := must(t, n.Netns, "ip", "-o", "link")
	config := filepath.Join(filepath.Dir(n.Socket), "culvertd.yaml")
	for _, env := range []string{"A=B", "CULVERT_SOCKET=" + n.Socket + "2"} {
		out, err := netns(n.Netns, "env", env, filepath.Join(binDir, "culvertd"), "--config", config)
		if err == nil || strings.Count(strings.TrimSpace(out), "\n") != 0 || !strings.Contains(out, fmt.Sprintf("another culvertd (process %d) works with it", n.PID)) {
			t.Errorf("with %q: %v, it said\n%s", env, err, out)
		}
	}
	if after := must(t, n.Netns, "ip", "-o", "link"); after != before {
		t.Errorf("links were\n%s and are\n%s", before, after)
	}
	must(t, n.Pods[0].Netns, "ping", "-n", "-c", "1", "-W", "2", n.Pods[1].Addr.String())
}
