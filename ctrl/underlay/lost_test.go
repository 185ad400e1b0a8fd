package underlay

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"culvert/internal/testnet"
)

// Not parallel: it counts descriptors and goroutines of the process.
func TestNothingIsLeftBehind(t *testing.T) {
	b := newBed(t)
	fds := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	b.watch(brisk, "10.77.0.2").stop() // what the runtime opens for itself
	before := fds()
	for range 3 {
		b.watch(brisk, "10.77.0.2")
		b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
		b.event(Changed, "") // it is in the mirror
		b.stop()
	}
	b.node.Do(t, func() {
		if _, err := New(b.w.log, []string{"cvunosuch"}); err == nil {
			t.Error("an uplink that is missing was found")
		}
	})
	if after := fds(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	stacks := make([]byte, 1<<20)
	for _, s := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(s, "underlay.(*") {
			t.Errorf("a goroutine is left:\n%s", s)
		}
	}
	if nh := b.hop("10.77.0.2"); !nh.Resolved {
		t.Errorf("what was last known is lost: %+v", nh)
	}
	if _, err := b.w.NextHop(netip.MustParseAddr("10.77.0.3")); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("after Run, the kernel is asked: %v", err)
	}
	if err := b.w.Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
}

func TestOverflowLosesNoEvent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var pods []string
	for range 4 {
		pods = append(pods, name("h"))
		testnet.Veth(t, b.node, pods[len(pods)-1], b.peer, name("i"))
	}
	b.w = open(t, b.node, b.dev)
	b.track("10.77.0.2")
	if err := b.w.first.socket.SetReceiveBufferSize(1, false); err != nil { // the least there is
		t.Fatal(err)
	}
	// Nobody reads yet: these fill the socket, and what follows is lost.
	change(t, b.node, b.dev, func(l netlink.Link) error {
		for mtu := range 60 {
			if err := netlink.LinkSetMTU(l, 1400+mtu); err != nil {
				return err
			}
		}
		return nil
	})
	b.node.Delete(t, pods[0])
	b.node.Down(t, pods[1])
	b.node.Down(t, pods[2])
	b.node.Up(t, pods[2])
	b.run(brisk)
	b.event(LinkGone, pods[0])
	b.event(LinkDown, pods[1])
	b.until(2*time.Second, "the last MTU", func() (bool, any) { l := b.w.Uplinks()[0]; return l.MTU == 1459, l })
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	select {
	case <-b.sub.done:
	default:
		t.Error("nothing was lost: the test tests nothing")
	}
	if n := b.events.count(func(e Event) bool { return e.Name == pods[3] }); n > 0 {
		t.Errorf("%d events of a device that did not change", n)
	}
	b.node.Delete(t, pods[1])
	b.event(LinkGone, pods[1])
}

func TestBrokenSocketIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(brisk, "10.77.0.2")
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
	b.sub.socket.Close()
	change(t, b.node, b.dev, func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1470) })
	b.until(2*time.Second, "the MTU", func() (bool, any) { l := b.w.Uplinks()[0]; return l.MTU == 1470, l })
	change(t, b.node, b.dev, func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1480) })
	b.until(2*time.Second, "the next MTU", func() (bool, any) { l := b.w.Uplinks()[0]; return l.MTU == 1480, l })
}

func TestSlowConsumerGetsEveryDevice(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.w = open(t, b.node, b.dev)
	done := make(chan error, 1)
	go func() { done <- b.w.Run(t.Context()) }()
	var gone []string
	for range 20 { // many changes of the uplink and many devices; nobody takes an event
		d := name("g")
		change(t, b.node, b.dev, func(l netlink.Link) error {
			v := netlink.NewVeth(netlink.LinkAttrs{Name: d, TxQLen: -1})
			v.PeerName = name("j")
			if err := netlink.LinkAdd(v); err != nil {
				return err
			}
			if err := netlink.LinkSetMTU(l, 1300+len(gone)); err != nil {
				return err
			}
			return netlink.LinkDel(v)
		})
		gone = append(gone, d)
	}
	time.Sleep(100 * time.Millisecond)
	changed, seen := 0, map[string]int{}
	for idle := false; !idle; {
		select {
		case e := <-b.w.Events():
			switch e.Kind {
			case Changed:
				changed++
			case LinkGone:
				seen[e.Name]++
			}
		case <-time.After(200 * time.Millisecond):
			idle = true
		}
	}
	for _, d := range gone {
		if seen[d] != 1 {
			t.Errorf("the end of %s was told %d times", d, seen[d])
		}
	}
	// One has waited; on a busy machine the last changes are read behind it.
	if changed < 1 || changed > 2 {
		t.Errorf("%d Changed events for 20 changes, want 1", changed)
	}
}

func TestManyDestinations(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	addRoute(t, b.node, b.dev, "10.90.0.0/16", "10.77.0.2")
	b.watch(brisk)
	var dsts []string
	for i := range 2000 {
		dsts = append(dsts, fmt.Sprintf("10.90.%d.%d", i/250, i%250))
	}
	start := time.Now()
	b.track(dsts...)
	b.resolved(3*time.Second, "10.90.7.1", b.peerMAC())
	t.Logf("2000 destinations after %v", time.Since(start))
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	b := newBed(t).watch(brisk)
	var g sync.WaitGroup
	end := time.Now().Add(700 * time.Millisecond)
	for i := range 3 {
		g.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				switch (n + i) % 5 {
				case 0:
					b.track("10.77.0.2", fmt.Sprintf("10.77.0.%d", 50+n%9))
				case 1:
					b.track("10.77.0.2", "fd77::2")
				case 2:
					b.w.Uplinks()[0].Addrs = nil
				case 3:
					b.w.Neighbours()
				}
				if _, err := b.w.NextHop(netip.MustParseAddr("10.77.0.2")); err != nil {
					t.Errorf("next hop: %v", err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for mtu := 1400; time.Now().Before(end); mtu++ {
		change(t, b.node, b.dev, func(l netlink.Link) error { return netlink.LinkSetMTU(l, mtu) })
		time.Sleep(5 * time.Millisecond)
	}
	g.Wait()
	b.resolved(2*time.Second, "10.77.0.2", b.peerMAC())
}
