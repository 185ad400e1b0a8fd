package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// pinger pings in the background until stopped, and tells how many were lost.
type pinger struct {
	out  chan string
	stop context.CancelFunc
}

// startPing pings addr every 20 ms.
func startPing(ns, addr string) *pinger {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pinger{out: make(chan string, 1), stop: cancel}
	go func() {
		cmd := command(ctx, ns, "ping", "-n", "-i", "0.02", "-W", "1", addr)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		out, _ := cmd.CombinedOutput()
		p.out <- string(out)
	}()
	return p
}

// lost ends the pinging and returns the number sent and received.
func (p *pinger) result(t *testing.T) (sent, received int) {
	t.Helper()
	p.stop()
	out := <-p.out
	for line := range strings.Lines(out) {
		if n, _ := fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &received); n == 2 {
			return sent, received
		}
	}
	t.Fatalf("ping said nothing of packets:\n%s", out)
	return 0, 0
}

// A killed agent leaves the NIC to the kernel at once, its program gone; the
// next one finds the pods again.
func TestKilledAgentLeavesACleanNodeAndComesBack(t *testing.T) {
	for _, how := range []struct {
		sig        syscall.Signal
		mode, mark string // what `ip link` shows while culvertd runs
	}{
		{syscall.SIGKILL, "auto", "cvi"}, {syscall.SIGTERM, "auto", "cvi"},
		{syscall.SIGKILL, "generic", "xdpgeneric"}, {syscall.SIGTERM, "native", "xdp"},
	} {
		t.Run(how.mode+" "+how.sig.String(), func(t *testing.T) {
			sig := how.sig
			c := up(t, lab.Options{Config: "xdp: {mode: " + how.mode + "}\n"})
			n, b := c.Nodes[0], c.Nodes[1].Pods[0]
			a := n.Pods[0]
			must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
			if out := must(t, n.Netns, "ip", "link", "show"); !strings.Contains(out, how.mark) {
				t.Fatalf("nothing of culvertd shows while it runs:\n%s", out)
			}
			if err := c.StopAgent(n, sig); err != nil {
				t.Fatal(err)
			}
			must(t, n.Netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", c.Nodes[1].Addr.String())
			eventually(t, "what was culvertd's is gone", func() error {
				out := must(t, n.Netns, "ip", "link", "show")
				if strings.Contains(out, "xdp") || strings.Contains(out, "cvi") || strings.Contains(out, "cvg") {
					return fmt.Errorf("it is still there:\n%s", out)
				}
				return nil
			})
			if err := c.StartAgent(context.Background(), n); err != nil {
				t.Fatal(err)
			}
			must(t, a.Netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", b.Addr.String())
			must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", n.Pods[1].Addr.String())
			transfer(t, b.Netns, a.Netns, a.Addr.String(), 2, 1<<20)
		})
	}
}

// A pod whose namespace or veth goes away under traffic costs only itself.
func TestVanishedPodCostsOnlyItself(t *testing.T) {
	c := up(t, lab.Options{Pods: 4})
	n, b := c.Nodes[0], c.Nodes[1].Pods[0]
	steady := startPing(n.Pods[0].Netns, b.Addr.String())
	noise := startPing(n.Pods[1].Netns, b.Addr.String())
	more := startPing(n.Pods[2].Netns, b.Addr.String())
	time.Sleep(300 * time.Millisecond)
	if out := culvert(t, n, "ipam", "check"); !strings.Contains(out, "compared: 4 records of pods, 4 owners of addresses, 4 links") {
		t.Errorf("ipam check of a node in order: %s", out)
	}
	var gone string
	for _, p := range culvertJSON[[]api.Pod](t, n, "pod") {
		if p.Addrs[0] == n.Pods[1].Addr.String() {
			gone = p.Port
		}
	}
	must(t, n.Netns, "ip", "link", "del", gone)
	must(t, n.Pods[2].Netns, "ip", "link", "del", "eth0")
	eventually(t, "the ports are gone", func() error {
		if ports := culvertJSON[[]api.Port](t, n, "port"); len(ports) != 4 { // uplink, host and two pods
			return fmt.Errorf("%d ports", len(ports))
		}
		return nil
	})
	time.Sleep(300 * time.Millisecond)
	noise.stop()
	more.stop()
	if sent, received := steady.result(t); received < sent-1 || received < 10 {
		t.Errorf("the pod next to them got %d of %d pings answered", received, sent)
	}
	transfer(t, n.Pods[3].Netns, b.Netns, b.Addr.String(), 1, 1<<20)
	addressesOfTheVanished(t, n)
	for _, w := range culvertJSON[api.Status](t, n, "status").Workers {
		if w.Frames.Free > w.Frames.Total {
			t.Errorf("worker %d has %d of %d frames free", w.ID, w.Frames.Free, w.Frames.Total)
		}
	}
}

// addressesOfTheVanished: the pods whose links are gone keep their addresses; that of the
// one whose namespace is gone, too, is nobody's, and cools down when it is taken back.
func addressesOfTheVanished(t *testing.T, n *lab.Node) {
	t.Helper()
	check := func(want map[string]string, args ...string) {
		t.Helper()
		out, err := exec.Command(filepath.Join(binDir, "culvert"), append([]string{"--socket", n.Socket, "ipam", "check", "-o", "json"}, args...)...).Output()
		var v api.IPAMCheck
		var exit *exec.ExitError
		if bad := json.Unmarshal(out, &v); bad != nil || !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("ipam check: %v: %s", err, out)
		}
		got := map[string]string{}
		for _, f := range v.Findings {
			if got[f.Address] = f.Kind; f.Repaired {
				got[f.Address] += " repaired"
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("ipam check %v finds %v, want %v", args, got, want)
		}
	}
	first, second := n.Pods[1].Addr.String(), n.Pods[2].Addr.String()
	check(map[string]string{first: "no_link", second: "no_link"}, "--repair")
	if out, err := exec.Command("ip", "netns", "del", n.Pods[1].Netns).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check(map[string]string{first: "no_netns", second: "no_link"})
	check(map[string]string{first: "no_netns repaired", second: "no_link"}, "--repair")
	for addr, want := range map[string]string{n.Pods[0].Addr.String(): "used", first: "cooling", second: "used", n.PodCIDR.Addr().String(): "tunnel"} {
		if a := culvertJSON[api.IPAMAddress](t, n, "ipam", "show", addr); a.State != want || (a.Port != "") != (want == "used") {
			t.Errorf("%s: %+v, want %s", addr, a, want)
		}
	}
	if p := culvertJSON[api.IPAM](t, n, "ipam").Pools; len(p) != 1 || p[0].Used != 3 || p[0].Cooling != 1 {
		t.Errorf("pools %+v", p)
	}
}

// Traffic between the nodes themselves passes the steering program untouched
// and at its full rate.
func TestNodeTrafficKeepsItsRate(t *testing.T) {
	c := up(t, lab.Options{})
	n1, n2 := c.Nodes[0], c.Nodes[1]
	rate := func() float64 { return iperf(t, n1.Netns, n2.Netns, n2.Addr.String(), 2) }
	rate() // warm
	var ratios []float64
	for range 3 { // in turn, so that the machine's moods meet both
		with := rate()
		for _, n := range c.Nodes {
			if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		without := rate()
		for _, n := range c.Nodes {
			if err := c.StartAgent(context.Background(), n); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("with Culvert %.1f Gbit/s, without %.1f", with, without)
		ratios = append(ratios, with/without)
	}
	if ratio := median(ratios); ratio < 0.7 {
		t.Errorf("node to node TCP runs at %.2f of its rate while Culvert holds the uplink", ratio)
	}
}

// A bad edit of a manifest changes nothing and is reported with its place; the
// next good one takes effect within a second.
func TestManifestEdits(t *testing.T) {
	c := up(t, lab.Options{})
	n, b := c.Nodes[0], c.Nodes[1].Pods[0]
	a := n.Pods[0]
	file := filepath.Join(c.ManifestDir(), "extra.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	node3 := "apiVersion: v1\nkind: Node\nmetadata: {name: node-z}\nspec: {podCIDRs: [10.244.200.0/24]}\n" +
		"status:\n  addresses: [{type: InternalIP, address: %s}]\n"
	write(fmt.Sprintf(node3, "192.0.2.77"))
	eventually(t, "a new node is a peer", func() error {
		if s := culvertJSON[api.Status](t, n, "status"); s.Peers != 2 {
			return fmt.Errorf("%d peers", s.Peers)
		}
		return nil
	})
	if u := culvertJSON[api.Status](t, n, "status").Uplinks[0]; u.Merging == nil || !*u.Merging {
		t.Errorf("the kernel does not merge what uplink %s receives", u.Name)
	}
	before := culvert(t, n, "route")
	write(strings.Replace(fmt.Sprintf(node3, "192.0.2.78"), "podCIDRs", "podCidrs", 1))
	eventually(t, "the mistake is reported", func() error {
		s := culvertJSON[api.Status](t, n, "status")
		if !s.Stale || !strings.Contains(strings.Join(s.Degraded, "\n"), "extra.yaml:4") {
			return fmt.Errorf("stale %v, degraded %q", s.Stale, s.Degraded)
		}
		return nil
	})
	if after := culvert(t, n, "route"); after != before {
		t.Errorf("a bad manifest changed the routes from\n%s to\n%s", before, after)
	}
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
	write(fmt.Sprintf(node3, "192.0.2.79"))
	eventually(t, "the good manifest is in force", func() error {
		r := culvertJSON[api.Route](t, n, "route", "get", "10.244.200.9")
		if r.Via != "192.0.2.79" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if s := culvertJSON[api.Status](t, n, "status"); s.Stale {
		t.Error("still stale after the file was mended")
	}
}

// A node full of pods leaves every one of them memory to receive into, and the
// worker some for itself.
func TestHundredPods(t *testing.T) {
	const pods = 100 / slower // under the race detector an ADD takes a second
	c := up(t, lab.Options{Nodes: 1, Pods: pods})
	n := c.Nodes[0]
	first, last := n.Pods[0], n.Pods[pods-1]
	must(t, first.Netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", last.Addr.String())
	transfer(t, last.Netns, first.Netns, first.Addr.String(), 8, bulk/20)
	s := culvertJSON[api.Status](t, n, "status")
	if s.Pods != pods {
		t.Errorf("%d pods", s.Pods)
	}
	for _, w := range s.Workers {
		if w.Frames.Free < w.Frames.Total/16 {
			t.Errorf("worker %d has %d of %d frames free", w.ID, w.Frames.Free, w.Frames.Total)
		}
	}
}

// Who demands zero copy of an uplink that has none is told so, in one line, and gets
// no slower way instead.
func TestZeroCopyDemanded(t *testing.T) {
	for _, mode := range []string{"auto", "native"} {
		l, err := lab.Up(context.Background(), lab.Options{Nodes: 1, Pods: 1, BinDir: binDir, Config: "xdp: {mode: " + mode + ", zeroCopy: on}\n"})
		if err == nil {
			l.Down()
			t.Fatalf("mode %s: culvertd runs", mode)
		}
		lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
		last := lines[len(lines)-1]
		if !strings.HasSuffix(last, "xdp.zeroCopy: on is not to be had on uplink eth0: the driver has no AF_XDP zero-copy mode; set zeroCopy to auto or off") {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}
