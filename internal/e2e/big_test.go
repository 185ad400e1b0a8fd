package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// mixed is a node's pods, the first two on veths, the other two on taps.
var mixedPods = lab.Options{Pods: 4, Interfaces: []string{"veth", "veth", "tap", "tap"}}

// way is one direction of traffic between two pods.
type way struct{ from, to *lab.Pod }

func (w way) String() string {
	kind := func(p *lab.Pod) string {
		if p.Interface == "" {
			return "kernel"
		}
		return p.Interface
	}
	where := "on one node"
	if w.from.Node != w.to.Node {
		where = "across"
	}
	return fmt.Sprintf("%s to %s %s", kind(w.from), kind(w.to), where)
}

// ways are all pairs of kinds, in both directions, on one node and across two.
func ways(c *cluster) (all []way) {
	veth, veth2, tap, tap2 := c.Nodes[0].Pods[0], c.Nodes[0].Pods[1], c.Nodes[0].Pods[2], c.Nodes[0].Pods[3]
	all = []way{{veth, veth2}, {veth, tap}, {tap, veth}, {tap, tap2}}
	far := []*lab.Pod{c.Nodes[1].Pods[0]}
	if c.Nodes[1].Kind == lab.Culvert {
		far = append(far, c.Nodes[1].Pods[2])
	}
	for _, f := range far {
		all = append(all, way{veth, f}, way{f, veth}, way{tap, f}, way{f, tap})
	}
	return all
}

// Whatever two pods are on, everything arrives as it was sent, small and big.
func TestEveryPairOfInterfaces(t *testing.T) {
	for _, peer := range []lab.Kind{lab.Culvert, lab.Flannel} {
		t.Run(string(peer), func(t *testing.T) {
			opts := mixedPods
			opts.Peer = peer
			c := up(t, opts)
			for _, w := range ways(c) {
				if peer != lab.Culvert && w.from.Node == w.to.Node {
					continue // as in the other lab
				}
				t.Run(w.String(), func(t *testing.T) {
					from, to, addr := w.from.Netns, w.to.Netns, w.to.Addr.String()
					must(t, from, "ping", "-n", "-c", "2", "-i", "0.05", "-W", "2", "-M", "do", "-s", "1422", addr)
					transfer(t, from, to, addr, 1, bulk/2)
					transfer(t, from, to, addr, 64, bulk/200)
					echoUDP(t, from, to, addr, 1, 1422, 1423, 9000, 65000)
				})
			}
			for _, n := range c.Nodes {
				if n.Kind == lab.Culvert && dropped(t, n, "cannot_segment")+dropped(t, n, "tx_invalid")+dropped(t, n, "bug") != 0 {
					t.Errorf("%s: drops that only a defect makes", n.Name)
				}
			}
		})
	}
}

// A wire that passes nothing beyond its MTU: big frames are cut on the way out and
// merged on the way in.
func TestBigFramesOverAPlainWire(t *testing.T) {
	for _, peer := range []lab.Kind{lab.Culvert, lab.Calico} {
		t.Run(string(peer), func(t *testing.T) {
			opts := mixedPods
			opts.Peer = peer
			c := up(t, opts)
			for _, n := range c.Nodes {
				must(t, n.Netns, "ethtool", "-K", "eth0", "tso", "off", "gso", "off", "tx-udp_tnl-segmentation", "off",
					"tx-udp_tnl-csum-segmentation", "off", "tx-udp-segmentation", "off")
			}
			for _, w := range ways(c)[4:] {
				transfer(t, w.from.Netns, w.to.Netns, w.to.Addr.String(), 1, bulk/2)
				transfer(t, w.from.Netns, w.to.Netns, w.to.Addr.String(), 64, bulk/200)
				sendSegmented(t, w.from, w.to)
			}
		})
	}
}

// One packet in a hundred is lost in front of the receivers, segment or big frame:
// what arrives is what was sent.
func TestBigFramesWithLoss(t *testing.T) {
	c := up(t, mixedPods)
	lose := func(ns string, device string) {
		t.Helper()
		rules := "table netdev loss { chain in { type filter hook ingress device " + device +
			" priority 0; policy accept; numgen random mod 100 == 0 drop; }; }"
		cmd := exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	for _, p := range c.AllPods() {
		lose(p.Netns, "eth0")
	}
	var g errgroup.Group
	for _, w := range ways(c) {
		transfer(t, w.from.Netns, w.to.Netns, w.to.Addr.String(), 4, bulk/100)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// flood is bulk TCP in the background until the test ends it: it may break.
func flood(from, to *lab.Pod) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	server := command(ctx, to.Netns, "iperf3", "-s", "-p", "5301")
	client := command(ctx, from.Netns, "sh", "-c", "while :; do iperf3 -c "+to.Addr.String()+" -p 5301 -t 30 -P 4; sleep 0.1; done")
	for _, cmd := range []*exec.Cmd{server, client} {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		_ = cmd.Start() // a flood that does not start fails the test elsewhere: nothing is counted
	}
	return func() {
		cancel()
		_ = server.Wait()
		_ = client.Wait()
	}
}

// Big frames that meet a change: a pod that goes away, a device that goes down, a
// route that changes, an agent that starts anew. The agents verify the owner of
// every frame, and say at their end if one was lost.
func TestBigFramesMeetChanges(t *testing.T) {
	opts := mixedPods
	opts.Pods, opts.Interfaces = 6, []string{"veth", "veth", "tap", "tap", "veth", "tap"}
	c := up(t, opts)
	n, far := c.Nodes[0], c.Nodes[1]
	veth, tap := n.Pods[4], n.Pods[5]
	var stops []func()
	for _, w := range []way{{n.Pods[0], n.Pods[1]}, {n.Pods[0], n.Pods[2]}, {far.Pods[0], n.Pods[3]}, {n.Pods[1], far.Pods[2]}} {
		stops = append(stops, flood(w.from, w.to))
	}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	moved := func() (bytes uint64) {
		for _, p := range culvertJSON[[]api.Port](t, n, "port") {
			bytes += p.Rx.Bytes
		}
		return bytes
	}
	still := func(what string) {
		t.Helper()
		transfer(t, veth.Netns, tap.Netns, tap.Addr.String(), 2, 1<<20)
		transfer(t, tap.Netns, far.Pods[4].Netns, far.Pods[4].Addr.String(), 2, 1<<20)
		t.Logf("%s: %d MB so far", what, moved()>>20)
	}
	time.Sleep(time.Second)
	if moved() < 10<<20 {
		t.Fatalf("only %d bytes were moved in a second of floods", moved())
	}
	must(t, n.Pods[1].Netns, "ip", "link", "set", "eth0", "down")
	still("a veth is down")
	must(t, n.Pods[1].Netns, "ip", "link", "set", "eth0", "up")
	must(t, n.Pods[2].Netns, "ip", "link", "set", "eth0", "down")
	still("a tap is down")
	must(t, n.Pods[2].Netns, "ip", "link", "set", "eth0", "up")
	for _, mtu := range []int{1400, 1500} {
		must(t, n.Netns, "ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
		eventually(t, "the agent has noticed", func() error {
			var s api.Status
			err := api.NewClient(n.Socket).Get(t.Context(), "/v1/status", &s)
			if err == nil && s.Uplinks[0].MTU != mtu {
				err = fmt.Errorf("the uplink's MTU is %d, not %d", s.Uplinks[0].MTU, mtu)
			}
			return err
		})
	}
	eventually(t, "the uplink is back", func() error {
		_, err := netns(veth.Netns, "ping", "-n", "-c", "1", "-W", "1", far.Pods[0].Addr.String())
		return err
	})
	still("the uplink changed")
	if err := c.StopAgent(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAgent(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	still("the agent was killed and is back")
	for _, p := range n.Pods[1:4] {
		must(t, p.Netns, "ip", "link", "del", "eth0")
	}
	still("three pods lost their devices")
}
