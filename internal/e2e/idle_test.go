package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// ticksPerSecond is the unit of /proc/*/stat: USER_HZ, 100 on every architecture
// that Go knows.
const ticksPerSecond = 100

// processorTime is what a process has used, in user and kernel mode (proc(5)).
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), ") ") // a command's name may have spaces
	fields := strings.Fields(after)
	sum := 0
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticksPerSecond
}

// An agent whose fifty pods are silent leaves the core to others.
func TestIdleAgentSleeps(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Pods: 50})
	n := c.Nodes[0]
	time.Sleep(2 * time.Second) // what ADD has left to do
	const window = 5 * time.Second
	before := processorTime(t, n.PID)
	time.Sleep(window)
	share := float64(processorTime(t, n.PID)-before) / float64(window)
	t.Logf("%.2f %% of a core", 100*share)
	if share >= 0.03*slower {
		t.Errorf("an idle agent with %d pods takes %.1f %% of a core, want less than 3", len(n.Pods), 100*share)
	}
}

// The first packet after a silence waits for the agent to wake up: there and back,
// as the pods' own two threads are woken, too. What waking a thread costs on this
// machine, with its processor asleep, is seen at the kernel's node, whose round trip
// wakes the pods' two alone. Beyond that, the agent takes some 40 µs where nothing else
// runs, and 120 where hosts have much to do; a timer or a sleep in its way would be
// milliseconds.
func TestFirstPacketAfterSilence(t *testing.T) {
	c := up(t, lab.Options{Peer: lab.Flannel})
	// Whatever else the machine does makes it longer, never shorter: one of three is enough.
	var own time.Duration
	for range 3 {
		var more [2]time.Duration
		for i, n := range c.Nodes {
			from, to := n.Pods[0], n.Pods[1]
			busy, idle := roundTrips(t, from, to, 400, 0), roundTrips(t, from, to, 60, 30*time.Millisecond)
			t.Logf("%s: round trips take %v, %v after a silence", n.Kind, busy, idle)
			more[i] = idle - busy
		}
		own = (more[0] - 2*more[1]) / 2
		if own <= 200*time.Microsecond*slower {
			return
		}
	}
	t.Errorf("waking the agent takes %v more than waking a thread", own)
}

// roundTrips is the median round trip of n datagrams, each sent that long after the
// answer to the last one.
func roundTrips(t *testing.T, from, to *lab.Pod, n int, pause time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := echo(ctx, t, from, to)
	var trips []time.Duration
	b := make([]byte, 64)
	for range n {
		time.Sleep(pause)
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(start.Add(2 * time.Second))
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		trips = append(trips, time.Since(start))
	}
	slices.Sort(trips)
	return trips[len(trips)/2]
}

// echo is a socket in from's namespace, connected to one in to's that sends
// everything back until ctx ends.
func echo(ctx context.Context, t *testing.T, from, to *lab.Pod) net.Conn {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	err := inside(to.Netns, func() (err error) {
		server, err = net.ListenPacket("udp4", ":0")
		return err
	})
	if err == nil {
		err = inside(from.Netns, func() (err error) {
			client, err = net.Dial("udp4", net.JoinHostPort(to.Addr.String(), fmt.Sprint(server.LocalAddr().(*net.UDPAddr).Port)))
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { server.Close(); client.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, peer, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], peer)
		}
	}()
	return client
}
