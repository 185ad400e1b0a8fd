package forward

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/peer"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"
	"culvert/dataplane/xsk"
)

// workerCPU is where a device's polling thread runs: not with the generator.
func workerCPU() int { return 1 }

// shortly is a load that is long enough to see that frames come through right.
var shortly = Timing{Duration: 500 * time.Millisecond}

// quick loads a device for a moment.
func quick(t *testing.T, d peer.Device, dir Direction) {
	t.Helper()
	i, err := d.Start(stopped, peer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeInstance(t, i)
	m, err := Measure(stopped, shortly, Load{Direction: dir, Sizes: load.Fixed(64), Flows: 256}, i)
	if err != nil {
		t.Fatal(err)
	}
	if m.Packets == 0 || m.Packets > m.Offered+m.Offered/4 {
		t.Errorf("%d packets delivered of %d offered", m.Packets, m.Offered)
	}
	t.Logf("%.3f Mpps delivered of %.3f offered; %d others", m.Mpps(), m.OfferedMpps(), m.Other)
}

func closeInstance(t *testing.T, i *peer.Instance) {
	t.Helper()
	if err := i.Close(); err != nil {
		t.Error(err)
	}
}

// TestBareForwards checks the forwarder that knows one pod and one peer.
func TestBareForwards(t *testing.T) {
	for _, d := range []peer.Device{
		peer.Bare{Pod: xsk.ModeNative, Uplink: xsk.ModeGeneric, CPU: workerCPU()},
		peer.Bare{Pod: xsk.ModeGeneric, Uplink: xsk.ModeNative, CPU: workerCPU()},
		peer.Offload{},
	} {
		for _, dir := range []Direction{Encap, Decap} {
			t.Run(d.Name()+"/"+string(dir), func(t *testing.T) { quick(t, d, dir) })
		}
		if err := d.Check(peer.Options{Pods: 2}); err == nil {
			t.Errorf("%s says that it serves two pods", d.Name())
		}
	}
}

// several is a setup with pods and peers, two of them behind the router.
var several = peer.Options{Pods: 3, Peers: 202}

// TestPeersForward checks that every peer does its work with several pods and
// peers, in both directions.
func TestPeersForward(t *testing.T) {
	for _, d := range []peer.Device{
		peer.Kernel{}, peer.Kernel{RPS: true},
		peer.OVS{Mode: "native", CPU: workerCPU()}, peer.OVS{Mode: "generic", CPU: workerCPU()},
	} {
		t.Run(d.Name(), func(t *testing.T) { everyWay(t, d, several) })
	}
}

// TestCulvertForwards checks the same of Culvert's own programs, built anew, and
// with IPIP, too.
func TestCulvertForwards(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-pgo=off", "-o", dir+string(filepath.Separator), "../../cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, mode := range []string{"native", "generic"} {
		d := peer.Culvert{Bin: dir, Mode: mode, Poll: "adaptive"}
		overIPIP := several
		overIPIP.Encap, overIPIP.Wire = peer.IPIP, testbed.MTUWire
		t.Run(mode+"/vxlan", func(t *testing.T) { everyWay(t, d, several) })
		t.Run(mode+"/ipip", func(t *testing.T) { everyWay(t, d, overIPIP) })
	}
}

// TestCheckIPIP checks that what a device cannot put packets into is said before
// anything is built.
func TestCheckIPIP(t *testing.T) {
	setup := peer.Options{Encap: peer.IPIP}
	for _, d := range []peer.Device{peer.OVS{Mode: "native"}, peer.Bare{}} {
		if err := d.Check(setup); err == nil || !strings.Contains(err.Error(), "ipip") {
			t.Errorf("%s with IPIP: %v", d.Name(), err)
		}
		if i, err := d.Start(stopped, setup); err == nil {
			t.Errorf("%s started: %v", d.Name(), i.Close())
		}
	}
}

// everyWay sends some frames from every pod to some peer and back, and looks
// into what arrives.
func everyWay(t *testing.T, d peer.Device, setup peer.Options) {
	t.Helper()
	i, err := d.Start(stopped, setup)
	if err != nil {
		t.Fatal(err)
	}
	defer closeInstance(t, i)
	for _, dir := range []Direction{Encap, Decap} {
		some(t, Load{Direction: dir, Sizes: load.Fixed(64), Flows: 64}, i)
	}
	if m, err := i.Memory(); err != nil || len(i.CPU) > 0 && m.Processes < 1<<20 || m.MiB() > 4096 {
		t.Errorf("it takes %+v: %v", m, err)
	}
}

// some sends a frame of each flow. Those are few, but a device may lose those that
// come just when a sink was attached, which the kernel tells all who listen to its
// links: Open vSwitch with a hundred ports does.
func some(t *testing.T, l Load, i *peer.Instance) {
	t.Helper()
	all, err := ways(l.Direction, i)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{load: l, ttl: shortly.ttl(), ways: all}
	if err := b.attach(&all[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.end(); err != nil {
			t.Error(err)
		}
	}()
	cfg := all[0].config(l, shortly, i)
	cfg.MaxFrames = uint64(l.Flows)
	if n := len(i.Bed.Peers); n > 5 { // the first ones and the last ones, so that the samples have all of them
		if l.Direction == Decap {
			cfg.Outs = slices.Concat(cfg.Outs[:2], cfg.Outs[n-3:])
		} else {
			cfg.Destinations = slices.Concat(cfg.Destinations[:2], cfg.Destinations[n-3:])
		}
	}
	var c xdpgen.Counts
	for end := time.Now().Add(firstFrame); c.Packets < cfg.MaxFrames && time.Now().Before(end); {
		gen, err := xdpgen.Start(stopped, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for wait := time.Now().Add(time.Second); c.Packets < cfg.MaxFrames && time.Now().Before(wait); time.Sleep(time.Millisecond) {
			if c, err = b.least(); err != nil {
				t.Fatal(err)
			}
		}
		if err := gen.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if c.Packets < cfg.MaxFrames {
		t.Fatalf("%s: of %d frames %d arrived, and %d others\n%s", l.Direction, cfg.MaxFrames, c.Packets, c.Other, i.Log())
	}
	if err := b.check(i); err != nil {
		t.Error(err)
	}
}
