package xsk

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"

	"golang.org/x/sys/unix"
)

// The first socket registered the memory; others join it while it is open and
// go on, and new ones still join, after it was closed.
func TestFirstSocketCloses(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeGeneric), r.addPod(ModeGeneric)
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	r.halt()

	a.close(t, r.pool)
	r.open(a, ModeGeneric)
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	r.halt()

	// None left: the memory is registered afresh.
	a.close(t, r.pool)
	b.close(t, r.pool)
	r.open(a, ModeGeneric)
	r.open(b, ModeGeneric)
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	checkClean(t, a.sock, b.sock)
}

// The anchor's device disappears while its socket is still open: the kernel
// refuses it as an anchor, and a new socket must not need it.
func TestAnchorDeviceRemoved(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeGeneric), r.addVeth()
	r.node.Delete(t, a.name)
	r.open(b, ModeGeneric)
	c := r.addVeth()
	r.open(c, ModeGeneric)
	if n := len(r.umem.members[b.sock.class]); n != 3 {
		t.Errorf("the class has %d members, want 3", n)
	}
}

// Removing a device in the middle of traffic costs its frames and nothing else.
func TestDeviceRemovedUnderTraffic(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeGeneric), r.addPod(ModeGeneric)
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	done := flood(t, a.pod, "10.0.0.2:9")
	defer done()
	waitUntil(t, "traffic flows", func() bool { return r.frames.Load() > 500 })
	r.node.Delete(t, b.name)
	waitUntil(t, "the socket notices", func() bool { return b.sock.State() == StateGone })
	before := r.frames.Load()
	waitUntil(t, "the other port goes on", func() bool { return r.frames.Load() > before+100 })
	var s frame.DeviceStats
	b.sock.Stats(&s)
	if s.TxLinkDown == 0 {
		t.Error("frames for a removed device were not counted as link down")
	}
	r.halt()
	if held := r.pool.Held(frame.OwnerWorker); held != 0 {
		t.Errorf("the worker holds %d chunks after the forwarder stopped", held)
	}
}

func TestLinkDownAndUp(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeGeneric), r.addPod(ModeGeneric)
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	done := flood(t, a.pod, "10.0.0.2:9")
	defer done()
	r.node.Down(t, b.name)
	waitUntil(t, "the socket notices", func() bool { return b.sock.State() == StateDown })
	r.node.Up(t, b.name)
	a.pod.MustPing(t, "10.0.0.2")
	if got := b.sock.State(); got != StateUp {
		t.Errorf("state %s after the link came back", got)
	}
	// No carrier: the kernel takes each frame and drops it (EBUSY).
	b.pod.Down(t, "eth0")
	waitUntil(t, "refused frames are counted", func() bool {
		var s frame.DeviceStats
		b.sock.Stats(&s)
		return s.TxRefused > 10
	})
	b.pod.Up(t, "eth0")
	a.pod.MustPing(t, "10.0.0.2")
}

// A queue is busy for a moment after its socket was closed.
func TestRebind(t *testing.T) {
	r := newRig(t, 4096)
	p := r.addVeth()
	r.node.Do(t, func() {
		cfg := SocketConfig{Ifindex: ifindex(t, p.name), Ifname: p.name, RingSize: 64, SG: true}
		for range 20 {
			s, err := r.umem.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A queue that stays busy is an error that says so, after about a second.
func TestBusyQueue(t *testing.T) {
	r := newRig(t, 4096)
	p := r.addPod(ModeGeneric)
	r.node.Do(t, func() {
		start := time.Now()
		_, err := NewUmem(r.pool).Open(SocketConfig{Ifindex: ifindex(t, p.name), Ifname: p.name, RingSize: 64})
		if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), p.name+" queue 0") {
			t.Errorf("opening a busy queue: %v", err)
		}
		if took := time.Since(start); took < busyTotal/2 || took > 3*busyTotal {
			t.Errorf("gave up after %v, want about %v", took, busyTotal)
		}
	})
}

// Opens that fail, at every step that can be made to, leave nothing behind.
func TestFailedOpensLeakNothing(t *testing.T) {
	r := newRig(t, 4096)
	p := r.addVeth()
	r.node.Do(t, func() {
		good := SocketConfig{Ifindex: ifindex(t, p.name), Ifname: p.name, RingSize: 64, SG: true, ZeroCopy: ZeroCopyOff}
		bad := []SocketConfig{good, good, good, good, good, good}
		bad[0].Queue = 99
		bad[1].Ifindex = 9999
		bad[2].RingSize = 100
		bad[3].ZeroCopy = ZeroCopyOn
		bad[4].ZeroCopy = "maybe"
		bad[5].RingSize = 1 << 20
		before := openFiles(t)
		for i := range 200 {
			if s, err := r.umem.Open(bad[i%len(bad)]); err == nil {
				t.Fatalf("%+v opened: %v", bad[i%len(bad)], s)
			}
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
		if maps := anonXDPMappings(t); maps != 0 {
			t.Errorf("%d ring mappings are left", maps)
		}
		for range 50 {
			if _, err := AttachPod(9999, "nothing", ModeAuto); err == nil {
				t.Fatal("attached to nothing")
			}
			if _, err := AttachPod(good.Ifindex, p.name, "fast"); err == nil {
				t.Fatal("attached in a mode that is none")
			}
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors before, %d after failed attachments", before, after)
		}
		s, err := r.umem.Open(good)
		if err != nil {
			t.Fatalf("a good open after the bad ones: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An attachment that is there already is not pushed aside.
func TestSecondProgramIsRefused(t *testing.T) {
	r := newRig(t, 4096)
	p := r.addPod(ModeGeneric)
	r.node.Do(t, func() {
		for _, mode := range []Mode{ModeAuto, ModeGeneric, ModeNative} {
			_, err := AttachUplink(ifindex(t, p.name), p.name, mode, nil)
			if err == nil || !strings.Contains(err.Error(), "another XDP program") {
				t.Errorf("attaching a second program, mode %s: %v", mode, err)
			}
		}
	})
}

// A driver without native XDP gets generic mode, unless native was ordered.
func TestAttachFallsBackToGeneric(t *testing.T) {
	testnet.NewNS(t).Do(t, func() {
		index := ifindex(t, "lo")
		if _, err := AttachUplink(index, "lo", ModeNative, nil); err == nil || !strings.Contains(err.Error(), "set the mode to generic") {
			t.Errorf("attaching natively to a driver that cannot: %v", err)
		}
		a, err := AttachUplink(index, "lo", ModeAuto, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Mode() != ModeGeneric {
			t.Errorf("mode %s, want generic", a.Mode())
		}
		for range 2 {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		if a, err = AttachPod(index, "lo", ModeAuto); err != nil { // the first one is gone
			t.Fatal(err)
		}
		a.Close()
	})
}

// Every queue of a device has a socket of its own. In native mode a veth's
// peer spreads flows over the queues; in generic mode the kernel does not
// record the queue (drivers/net/veth.c, veth_xmit; net/core/dev.c,
// netif_get_rxqueue), and all frames arrive at queue 0: whoever spreads pods
// over workers must know.
func TestTwoQueues(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) { testTwoQueues(t, mode) })
	}
}

func testTwoQueues(t *testing.T, mode Mode) {
	r := newRig(t, 4096)
	first := r.addPod(mode, testnet.Queues(2))
	second := &port{name: first.name}
	r.ports = append(r.ports, second)
	r.node.Do(t, func() {
		var err error
		second.sock, err = r.umem.Open(SocketConfig{Ifindex: ifindex(t, first.name), Ifname: first.name, Queue: 1, RingSize: 64, SG: true})
		if err != nil {
			t.Fatal(err)
		}
	})
	second.owner = r.pool.NewOwner()
	if err := second.sock.Start(second.owner, 128); err != nil {
		t.Fatal(err)
	}
	if err := first.attach.SetSocket(1, second.sock); err != nil {
		t.Fatal(err)
	}
	staticNeighbour(t, first.pod, "10.0.0.9")
	for i := range 16 { // of which all choose one queue once in 30,000 times
		stop := flood(t, first.pod, fmt.Sprintf("10.0.0.9:%d", 1000+i))
		defer stop()
	}
	receiveSome(t, r, first.sock, 2000)
	if mode == ModeNative {
		receiveSome(t, r, second.sock, 10)
	} else if n := second.sock.rx.ready(); n != 0 {
		t.Errorf("%d frames at queue 1: this kernel spreads flows in generic mode as well", n)
	}
}

const crashEnv = "XSK_TEST_CRASH_DEVICE"

// A process that is killed leaves a plain device.
func TestKilledProcessLeavesUplinkClean(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	name := testnet.Name("u")
	testnet.Veth(t, a, name, b, "eth0")
	a.AddAddr(t, name, "10.8.0.1/24")
	b.AddAddr(t, "eth0", "10.8.0.2/24")
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashHelper$", "-test.v")
	cmd.Env = append(os.Environ(), crashEnv+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.Do(t, func() { // the child inherits the thread's namespace
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "attached"; {
		t.Log(lines.Text())
	}
	attrs := a.Attrs(t, name)
	if attrs.Xdp == nil || !attrs.Xdp.Attached {
		t.Error("the helper process did not attach its program")
	}
	b.MustPing(t, "10.8.0.1") // not ours: the kernel answers
	cmd.Process.Kill()
	cmd.Wait()
	waitUntil(t, "the program is gone", func() bool {
		attrs := a.Attrs(t, name)
		return attrs.Xdp == nil || !attrs.Xdp.Attached
	})
	b.MustPing(t, "10.8.0.1")
}

// TestCrashHelper is the process that TestKilledProcessLeavesUplinkClean kills.
func TestCrashHelper(t *testing.T) {
	name := os.Getenv(crashEnv)
	if name == "" {
		return
	}
	pool, err := frame.NewPool(512, 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	index := ifindex(t, name)
	at, err := AttachUplink(index, name, ModeAuto, []Endpoint{{netip.MustParseAddr("10.8.0.1"), 8472}})
	if err != nil {
		t.Fatal(err)
	}
	if at.Mode() != ModeGeneric {
		t.Errorf("mode auto on a veth uplink is %s, want generic", at.Mode())
	}
	s, err := NewUmem(pool).Open(SocketConfig{Ifindex: index, Ifname: name, RingSize: 64})
	if err != nil {
		t.Fatal(err)
	}
	if err := at.SetSocket(0, s); err != nil {
		t.Fatal(err)
	}
	fmt.Println("\nattached")
	select {} // until it is killed
}
