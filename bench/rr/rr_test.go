package rr

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/bench/result"
	"culvert/bench/testbed"

	"golang.org/x/sys/unix"
)

var serverAddr = netip.MustParseAddr("10.0.0.2")

// spaces are two namespaces and a veth pair between them.
func spaces(t *testing.T) (client, server *testbed.Space) {
	t.Helper()
	var all [2]*testbed.Space
	for i := range all {
		s, err := testbed.NewSpace()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		all[i] = s
	}
	client, server = all[0], all[1]
	err := errors.Join(
		testbed.Veth(testbed.End{Space: client, Name: "c0"}, testbed.End{Space: server, Name: "s0"}, 1500),
		client.AddAddr("c0", netip.MustParsePrefix("10.0.0.1/24")),
		server.AddAddr("s0", netip.PrefixFrom(serverAddr, 24)))
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func options(client, server *testbed.Space) Options {
	return Options{
		Client: client, Server: server, Addr: netip.AddrPortFrom(serverAddr, 0),
		WarmUp: 20 * time.Millisecond, Duration: 200 * time.Millisecond,
	}
}

// sane checks what must be true of every result.
func sane(t *testing.T, r Result, o Options) {
	t.Helper()
	o = o.full()
	if r.Count == 0 || r.PerSecond != float64(r.Count)/o.Duration.Seconds() {
		t.Errorf("%d in %s are %g a second", r.Count, o.Duration, r.PerSecond)
	}
	if r.P50 <= 0 || !slices.IsSorted([]float64{r.P50, r.P99, r.P999, r.Max}) || r.Mean > r.Max {
		t.Errorf("times are out of order: %+v", r)
	}
	if n := len(r.Latency); n < 8 || n > 80 || r.Latency[n-1] != (result.Quantile{Q: 1, Micros: r.Max}) {
		t.Errorf("distribution of %d points, which ends with %v", n, r.Latency[n-1])
	}
	for i, q := range r.Latency[1:] {
		if before := r.Latency[i]; q.Q <= before.Q || q.Micros < before.Micros {
			t.Errorf("the distribution goes back: %v, %v", before, q)
		}
	}
	if v := r.Values(result.Transactions); v[result.Transactions] != r.PerSecond || v[result.P99] != r.P99 {
		t.Errorf("values are %v", v)
	}
}

func TestRun(t *testing.T) {
	client, server := spaces(t)
	for name, change := range map[string]func(*Options){
		"tcp":       func(*Options) {},
		"tcp, many": func(o *Options) { o.Connections, o.Request, o.Response = 8, 1, 20000 },
		"udp":       func(o *Options) { o.Network = "udp" },
		"udp, many": func(o *Options) {
			o.Network, o.Connections, o.Request, o.Response, o.Addr = "udp", 3, 1000, 8, netip.AddrPortFrom(serverAddr, 5201)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(client, server)
			change(&o)
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			sane(t, r, o)
			// Each connection has a request outstanding all the time.
			if all := r.Mean * float64(r.Count) / 1e6 / float64(o.full().Connections); all < o.Duration.Seconds()/2 {
				t.Errorf("%d times of %.1f µs are %.3f s a connection, want %s", r.Count, r.Mean, all, o.Duration)
			}
			t.Logf("%d, lost %d, p50 %.1f, p99 %.1f, max %.1f µs", r.Count, r.Lost, r.P50, r.P99, r.Max)
		})
	}
}

func TestConnect(t *testing.T) {
	client, server := spaces(t)
	for _, n := range []int{1, 4} {
		o := options(client, server)
		o.Connections = n
		r, err := Connect(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		sane(t, r, o)
		t.Logf("%d at a time: %.0f a second, p50 %.1f, p99 %.1f, max %.1f µs", n, r.PerSecond, r.P50, r.P99, r.Max)
	}
}

func TestRate(t *testing.T) {
	client, server := spaces(t)
	o := options(client, server)
	o.Connections, o.Rate = 2, 200
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	sane(t, r, o)
	if r.Count > 40 {
		t.Errorf("%d requests in %s at %g a second", r.Count, o.Duration, o.Rate)
	}
}

// TestSlowAnswerDelaysOthers has one answer of ten take six intervals: those that
// were due meanwhile waited, too.
func TestSlowAnswerDelaysOthers(t *testing.T) {
	const interval = 10 * time.Millisecond
	c := newCrew(t.Context(), 1)
	defer c.cancel(nil)
	a := newClient(c, &Options{Connections: 1, Rate: float64(time.Second / interval)}, 0, netip.AddrPort{})
	asked := 0
	a.ask = func() error {
		if asked++; asked == 2 {
			time.Sleep(6 * interval)
		}
		return nil
	}
	c.started = time.Now()
	c.from, c.until = c.started, c.started.Add(10*interval)
	if err := a.paced(); err != nil {
		t.Fatal(err)
	}
	slow := int64(0)
	for _, b := range a.times.Distribution() {
		if b.From >= int64(interval/2) {
			slow += b.Count
		}
	}
	if slow < 5 {
		t.Errorf("%d of %d requests waited, want 6", slow, a.times.TotalCount())
	}
}

// TestNoAnswer asks an address whose frames nobody takes.
func TestNoAnswer(t *testing.T) {
	client, server := spaces(t)
	if err := client.AddNeighbour("c0", serverAddr, net.HardwareAddr{2, 0, 0, 0, 0, 9}); err != nil {
		t.Fatal(err)
	}
	o := options(client, server)
	o.Patience = 150 * time.Millisecond
	udp := o
	udp.Network = "udp"
	for name, run := range map[string]func() (Result, error){
		"tcp":     func() (Result, error) { return Run(t.Context(), o) },
		"udp":     func() (Result, error) { return Run(t.Context(), udp) },
		"connect": func() (Result, error) { return Connect(t.Context(), o) },
	} {
		_, err := run()
		if err == nil || !strings.Contains(err.Error(), "no answer from 10.0.0.2") || !strings.Contains(err.Error(), "ping 10.0.0.2") {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	// The end of ctx comes first.
	o.Patience = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the run ended with %v", err)
	}
}

// TestEnd ends runs in their middle and looks for what may be left.
func TestEnd(t *testing.T) {
	before := left(t)
	client, err := testbed.NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.AddAddr("lo", netip.PrefixFrom(serverAddr, 32)); err != nil {
		t.Fatal(err)
	}
	o := options(client, client)
	o.Connections, o.Duration = 3, time.Hour
	paced, udp := o, o
	paced.Rate, udp.Network = 0.1, "udp"
	for name, run := range map[string]func(context.Context) (Result, error){
		"tcp":     func(ctx context.Context) (Result, error) { return Run(ctx, o) },
		"udp":     func(ctx context.Context) (Result, error) { return Run(ctx, udp) },
		"paced":   func(ctx context.Context) (Result, error) { return Run(ctx, paced) },
		"connect": func(ctx context.Context) (Result, error) { return Connect(ctx, o) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var ended time.Time
		time.AfterFunc(100*time.Millisecond, func() {
			ended = time.Now()
			cancel()
		})
		if _, err := run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: ended with %v", name, err)
		}
		took := time.Since(ended)
		if t.Logf("%s: ended after %s", name, took); took > time.Second {
			t.Errorf("%s: took %s to end", name, took)
		}
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	// A thread ends a moment after its goroutine.
	for end := time.Now().Add(5 * time.Second); left(t).more(before); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("left: %+v, before: %+v\n%s", left(t), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// leftovers are what a run might leave behind.
type leftovers struct{ goroutines, sockets, elsewhere int }

// more reports whether there is something that was not there before.
func (l leftovers) more(before leftovers) bool {
	return l.goroutines > before.goroutines || l.sockets > before.sockets || l.elsewhere > before.elsewhere
}

func left(t *testing.T) (l leftovers) {
	t.Helper()
	l.goroutines = runtime.NumGoroutine()
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for pattern, count := range map[string]func(target string) bool{
		"/proc/self/fd/*":          func(s string) bool { return strings.HasPrefix(s, "socket:") },
		"/proc/self/task/*/ns/net": func(s string) bool { return s != home },
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			target, err := os.Readlink(path)
			if err != nil || !count(target) {
				continue // it has ended, or is of no interest
			}
			if strings.HasPrefix(target, "socket:") {
				l.sockets++
			} else {
				l.elsewhere++
			}
		}
	}
	return l
}

func TestRefusals(t *testing.T) {
	client, server := spaces(t)
	for name, change := range map[string]func(*Options){
		"a namespace each":  func(o *Options) { o.Server = nil },
		"one of the server": func(o *Options) { o.Addr = netip.AddrPort{} },
		`network "sctp"`:    func(o *Options) { o.Network = "sctp" },
		"1001 connections":  func(o *Options) { o.Connections = MaxConnections + 1 },
		"request of 7":      func(o *Options) { o.Network, o.Request = "udp", 7 },
		"response of -1":    func(o *Options) { o.Response = -1 },
		"duration 0s":       func(o *Options) { o.Duration = 0 },
		"rate -1":           func(o *Options) { o.Rate = -1 },
		"needs the address": func(o *Options) { o.Addr = netip.MustParseAddrPort("10.0.0.3:1") },
	} {
		o := options(client, server)
		change(&o)
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	o := options(client, server)
	o.Network = "udp"
	if _, err := Connect(t.Context(), o); err == nil {
		t.Error("connections over UDP: accepted")
	}
}

// TestLost answers each request at its second sending only, and then twice.
func TestLost(t *testing.T) {
	client, server := spaces(t)
	o := options(client, server).full()
	o.Network = "udp"
	servers, err := openServers(&o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeServers(servers)
	c := newCrew(t.Context(), 1)
	c.thread(server, func() error {
		buf := make([]byte, o.Request)
		for n := 0; !c.stop.Load(); {
			_, from, err := unix.Recvfrom(servers[0].fd, buf, 0)
			if again(err) {
				continue
			}
			if n++; err == nil && n%2 == 0 {
				err = errors.Join(unix.Sendto(servers[0].fd, buf, 0, from), unix.Sendto(servers[0].fd, buf, 0, from))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	a := newClient(c, &o, 0, servers[0].at)
	c.thread(client, func() error {
		defer c.cancel(nil)
		err := a.open()
		defer unix.Close(a.fd)
		for range 3 {
			err = errors.Join(err, a.ask())
		}
		return err
	})
	c.threads.Wait()
	if err := context.Cause(c.ctx); !errors.Is(err, context.Canceled) || a.lost < 3 || a.number != 3 {
		t.Errorf("lost %d of %d: %v", a.lost, a.number, err)
	}
}

// TestNoAllocations counts those of both ends.
func TestNoAllocations(t *testing.T) {
	client, server := spaces(t)
	for _, name := range []string{"tcp", "udp", "connect"} {
		t.Run(name, func(t *testing.T) {
			o := options(client, server).full()
			if name == "udp" {
				o.Network = name
			}
			servers, err := openServers(&o)
			if err != nil {
				t.Fatal(err)
			}
			defer closeServers(servers)
			c := newCrew(t.Context(), 1)
			answer := map[string]func(int, *Options) error{"tcp": c.answerTCP, "udp": c.answerUDP, "connect": c.serveEach}[name]
			c.thread(server, func() error { return stopped(answer(servers[0].fd, &o)) })
			k := &connector{client: newClient(c, &o, 0, servers[0].at), to: sockaddr(servers[0].at)}
			c.thread(client, func() error {
				defer c.cancel(nil)
				if name == "connect" {
					k.ask = k.once
					return allocations(t, k.client)
				}
				if err := k.open(); err != nil {
					return err
				}
				defer unix.Close(k.fd)
				return allocations(t, k.client)
			})
			c.threads.Wait()
			if err := context.Cause(c.ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

// allocations asks some hundred times and counts what it takes.
func allocations(t *testing.T, a *client) (err error) {
	n := testing.AllocsPerRun(100, func() {
		start := time.Now()
		err = errors.Join(err, a.ask())
		a.note(time.Since(start))
	})
	if n != 0 {
		t.Errorf("%g allocations a request", n)
	}
	return err
}

// TestQuantiles compares the distribution with that of the numbers 1 to n.
func TestQuantiles(t *testing.T) {
	for _, n := range []int64{1, 10, 1e5} {
		r := newRecorder()
		for i := range n {
			r.note(time.Duration(1+i) * time.Microsecond)
		}
		sum, err := summarize([]*recorder{r, newRecorder()}, time.Second)
		if err != nil || sum.Count != uint64(n) {
			t.Fatalf("%+v, %v", sum, err)
		}
		for _, q := range sum.Latency {
			if want := q.Q * float64(n); q.Micros < want*0.998-1 || q.Micros > want*1.002+1 {
				t.Errorf("of %d, %g are at most %g", n, q.Q, q.Micros)
			}
		}
		t.Logf("%d points of %d", len(sum.Latency), n)
	}
	if _, err := summarize([]*recorder{newRecorder()}, time.Second); err == nil {
		t.Error("a result of nothing")
	}
	r := newRecorder()
	r.note(-1)
	r.note(time.Hour)
	if r.times.TotalCount() != 2 || r.times.Max() < int64(longest) {
		t.Errorf("what is out of range is lost: %d, at most %d", r.times.TotalCount(), r.times.Max())
	}
}
