package xskgen_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/loadtest"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"
	"culvert/bench/xskgen"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
)

func viaXSK(ctx context.Context, cfg load.Config) (load.Generator, error) {
	return xskgen.Start(ctx, cfg)
}
func viaXDP(ctx context.Context, cfg load.Config) (load.Generator, error) {
	return xdpgen.Start(ctx, cfg)
}

// arrivals runs a generator to its end and returns what arrives in the node.
func arrivals(t *testing.T, bed *testbed.Bed, cfg load.Config, start func(context.Context, load.Config) (load.Generator, error)) map[int][][]byte {
	t.Helper()
	capture := loadtest.Listen(t, bed)
	gen, err := start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for gen.Running() {
		time.Sleep(time.Millisecond)
	}
	if n, err := gen.Generated(); err != nil || n != cfg.MaxFrames {
		t.Errorf("%d frames generated, want %d: %v", n, cfg.MaxFrames, err)
	}
	if err := gen.Stop(); err != nil {
		t.Fatal(err)
	}
	return capture.Frames(int(cfg.MaxFrames))
}

// loads are one plain load and one with everything.
func loads(t *testing.T, bed *testbed.Bed) map[string]load.Config {
	plain := loadtest.FromPods(bed)
	plain.Outs, plain.Destinations = plain.Outs[:1], plain.Destinations[:1]
	all := map[string]load.Config{
		"plain": plain, "pods": loadtest.FromPods(bed),
		"vxlan": loadtest.FromWire(t, bed, load.VXLAN), "ipip": loadtest.FromWire(t, bed, load.IPIP),
	}
	for name, c := range all {
		if name != "plain" {
			c.Sizes, c.Flows, c.Zipf, c.Draws, c.NewEvery = load.IMIX(1400), 30, 1.1, 500, 7
		}
		all[name] = c
	}
	return all
}

// TestSendsThePlan compares every byte of what arrives with what package load
// says.
func TestSendsThePlan(t *testing.T) {
	bed := loadtest.Bed(t, 3)
	for name, cfg := range loads(t, bed) {
		t.Run(name, func(t *testing.T) { loadtest.Check(t, bed, cfg, arrivals(t, bed, cfg, viaXSK)) })
	}
}

// TestSendsWhatXDPSends compares the frames of both generators, and makes each
// anew from its fields by gopacket.
func TestSendsWhatXDPSends(t *testing.T) {
	layers.RegisterUDPPortLayerType(testbed.Port, layers.LayerTypeVXLAN)
	bed := loadtest.Bed(t, 3)
	for name, cfg := range loads(t, bed) {
		cfg.MaxFrames = 300
		ours, theirs := arrivals(t, bed, cfg, viaXSK), arrivals(t, bed, cfg, viaXDP)
		compared := 0
		for device, list := range ours {
			seen := make(map[string]bool)
			for _, f := range theirs[device] {
				seen[string(f)] = true
			}
			for _, f := range list {
				if !seen[string(f)] && len(theirs[device]) == len(list) { // else that one may have been lost
					t.Fatalf("%s: only one generator sends\n% x", name, f)
				}
				if again := encoded(t, f); !bytes.Equal(again, f) {
					t.Fatalf("%s: from its fields gopacket makes\n% x of\n% x", name, again, f)
				}
				compared++
			}
		}
		if compared < 270 {
			t.Errorf("%s: only %d of 300 frames arrived", name, compared)
		}
	}
}

// encoded decodes a frame and encodes its layers, with lengths and checksums
// worked out anew but for that of VXLAN's datagram, which has none.
func encoded(t *testing.T, frame []byte) []byte {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("%v\n% x", e.Error(), frame)
	}
	b := gopacket.NewSerializeBuffer()
	all := p.Layers()
	for i := len(all) - 1; i >= 0; i-- {
		layer, ok := all[i].(gopacket.SerializableLayer)
		if !ok {
			t.Fatalf("%s cannot be encoded", all[i].LayerType())
		}
		opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		if udp, ok := layer.(*layers.UDP); ok {
			opts.ComputeChecksums = all[i+1].LayerType() != layers.LayerTypeVXLAN
			if err := udp.SetNetworkLayerForChecksum(all[i-1].(*layers.IPv4)); err != nil {
				t.Fatal(err)
			}
		}
		if err := layer.SerializeTo(b, opts); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestSleeps: at a low rate it takes little of its processor.
func TestSleeps(t *testing.T) {
	bed := loadtest.Bed(t, 1)
	cfg := loadtest.FromPods(bed)
	cfg.Rate, cfg.MaxFrames = 1000, 300
	start := time.Now()
	gen, err := xskgen.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for gen.Running() {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(start)
	if err := gen.Stop(); err != nil {
		t.Fatal(err)
	}
	cpu, err := gen.CPU()
	t.Logf("300 frames in %s, %s of processor time", took, cpu)
	if err != nil || cpu <= 0 || cpu > took/2 || took < 290*time.Millisecond {
		t.Errorf("300 frames at 1000 a second: %s of processor time in %s: %v", cpu, took, err)
	}
}

// TestFullSpeed sends more frames than the rings of all have places, to two
// devices, and stops in the middle.
func TestFullSpeed(t *testing.T) {
	bed := loadtest.Bed(t, 2)
	cfg := loadtest.FromPods(bed)
	cfg.Rate, cfg.MaxFrames = 0, 1<<40
	gen, err := xskgen.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if n, _ := gen.Generated(); n > 20000 {
			break
		}
	}
	if n, err := gen.Generated(); err != nil || n <= 20000 || !gen.Running() {
		t.Errorf("%d frames generated, running: %t: %v", n, gen.Running(), err)
	}
	if err := gen.Stop(); err != nil || gen.Running() {
		t.Errorf("stopped: %v, running: %t", err, gen.Running())
	}
}

// TestLeavesNothing opens the same queue twice in turn and looks for what the
// library leaves.
func TestLeavesNothing(t *testing.T) {
	bed := loadtest.Bed(t, 1)
	cfg := loadtest.FromPods(bed)
	cfg.MaxFrames = 10
	before := sockets(t)
	for range 2 {
		arrivals(t, bed, cfg, viaXSK)
	}
	bad := cfg
	bad.Outs = []load.Out{cfg.Outs[0], cfg.Outs[0]}
	bad.Outs[1].Device = 1 << 20
	if _, err := xskgen.Start(context.Background(), bad); err == nil {
		t.Error("a device that is not there is there")
	}
	if n := sockets(t); n > before {
		t.Errorf("%d mappings of sockets are left, there were %d", n, before)
	}
}

// sockets counts this process's mappings of sockets.
func sockets(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "socket:[")
}

func TestErrors(t *testing.T) {
	bed := loadtest.Bed(t, 1)
	cfg := loadtest.FromPods(bed)
	bad := cfg
	bad.Outs = []load.Out{cfg.Outs[0], cfg.Outs[0]}
	bad.Outs[1].Device = 1 << 20
	if _, err := xskgen.Start(context.Background(), bad); err == nil || !strings.Contains(err.Error(), "device 1048576") {
		t.Errorf("a device that is not there: %v", err)
	}
	bad = cfg
	bad.Enter = func() error { return nil }
	if _, err := xskgen.Start(context.Background(), bad); err == nil || !strings.Contains(err.Error(), "caller's own") {
		t.Errorf("the caller's namespace: %v", err)
	}
	cfg.MaxFrames = 1 << 40
	gen, err := xskgen.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := bed.Pod.Do(func() error {
		l, err := netlink.LinkByName(bed.Pods[0].Device)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); gen.Running() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := gen.Stop(); err == nil || !strings.Contains(err.Error(), "sendto") {
		t.Errorf("the device went down: %v", err)
	}
}
