package xdpgen_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// pair is two namespaces with a veth between them and a sink at its end.
func pair(t *testing.T, port uint16) (cfg load.Config, sink *xdpgen.Sink) {
	t.Helper()
	bed, err := testbed.New(context.Background(), testbed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	from, err := bed.Wire.Link(testbed.WireDevice)
	if err != nil {
		t.Fatal(err)
	}
	to, err := bed.Node.Link(testbed.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	err = bed.Node.Do(func() (err error) {
		sink, err = xdpgen.Attach(xdpgen.Match{Port: port}, to.Index)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	return load.Config{
		Outs:    []load.Out{{Device: from.Index, MAC: testbed.PodMAC, Addr: testbed.PodAddr}},
		NextHop: testbed.GatewayMAC, Destinations: []netip.Addr{testbed.PeerPod}, Sizes: load.Fixed(64),
		Flows: 40, MaxFrames: 10000, MaxTime: 10 * time.Second, CPU: -1, Enter: bed.Wire.Enter,
	}, sink
}

// finish runs a generator to its end and reads the sink.
func finish(t *testing.T, cfg load.Config, sink *xdpgen.Sink) (generated uint64, counts xdpgen.Counts) {
	t.Helper()
	start := time.Now()
	gen, err := xdpgen.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for gen.Running() {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(start)
	generated, err = gen.Generated()
	if err != nil {
		t.Error(err)
	}
	if err := gen.Stop(); err != nil {
		t.Fatal(err)
	}
	cpu, err := gen.CPU()
	if err != nil || cpu <= 0 || cpu > 2*took {
		t.Errorf("took %s of processor time in %s: %v", cpu, took, err)
	}
	time.Sleep(20 * time.Millisecond) // the last ones may wait for ksoftirqd
	if counts, err = sink.Counts(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d frames in %s, %s of processor time; %+v arrived", generated, took, cpu, counts)
	return generated, counts
}

func TestFramesAreWhatTheySay(t *testing.T) {
	for _, n := range []int{64, 65, 100, 128, 1514} {
		cfg, sink := pair(t, 0)
		cfg.Sizes = load.Fixed(n)
		generated, c := finish(t, cfg, sink)
		if generated != cfg.MaxFrames || c.Packets == 0 || c.Packets > generated || c.Bytes != c.Packets*uint64(n) {
			t.Errorf("%d frames of %d bytes generated, %+v arrived", generated, n, c)
		}
		samples, err := sink.Samples()
		if err != nil {
			t.Fatal(err)
		}
		ports := make(map[layers.UDPPort]bool)
		for _, s := range samples {
			p := gopacket.NewPacket(s.Data, layers.LayerTypeEthernet, gopacket.Default)
			udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if !ok {
				t.Fatalf("not UDP: %s", p)
			}
			ports[udp.SrcPort] = true
		}
		if len(ports) != min(len(samples), cfg.Flows) || len(samples) == 0 {
			t.Errorf("%d source ports of %d flows in %d samples", len(ports), cfg.Flows, len(samples))
		}
	}
}

func TestTunnelAndPort(t *testing.T) {
	cfg, sink := pair(t, 8472)
	cfg.Tunnel = &load.Tunnel{
		Kind: load.VXLAN, SrcMAC: testbed.WireMAC, DstMAC: testbed.UplinkMAC, Dst: testbed.NodeAddr, Port: 8472, VNI: 1,
	}
	cfg.Outs[0].Peer = testbed.PeerAddr
	if _, c := finish(t, cfg, sink); c.Packets == 0 || c.Bytes != c.Packets*114 || c.Other != 0 {
		t.Errorf("VXLAN frames: %+v arrived", c)
	}
	cfg.Tunnel = nil
	cfg.Outs[0].Peer = netip.Addr{}
	if _, c := finish(t, cfg, sink); c.Other == 0 {
		t.Errorf("frames that are not for the port: %+v arrived", c)
	}
}

func TestBounds(t *testing.T) {
	cfg, sink := pair(t, 0)
	cfg.MaxFrames, cfg.MaxTime = 1<<40, 200*time.Millisecond
	start := time.Now()
	if _, c := finish(t, cfg, sink); c.Packets == 0 {
		t.Error("nothing arrived")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("ran for %s", took)
	}
	cfg.Enter = nil
	if _, err := xdpgen.Start(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "Enter") {
		t.Errorf("sends into any namespace: %v", err)
	}
}

// TestSinkOnManyDevices checks that one sink counts what arrives at all its
// devices, tells them apart, and keeps only the protocol that it looks for.
func TestSinkOnManyDevices(t *testing.T) {
	bed, err := testbed.New(context.Background(), testbed.Options{Pods: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer bed.Close()
	if err := bed.ConnectPods(testbed.PodMTU); err != nil {
		t.Fatal(err)
	}
	for _, match := range []xdpgen.Match{{}, {Protocol: 17}, {Port: 5000}, {Protocol: 4}} {
		var sink *xdpgen.Sink
		err := bed.Pod.Do(func() (err error) {
			sink, err = xdpgen.Attach(match, bed.Pods[0].Ifindex, bed.Pods[1].Ifindex, bed.Pods[2].Ifindex)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		sum := manyDevices(t, bed, sink)
		if match.Protocol == 4 {
			sum.Packets, sum.Other = sum.Other, sum.Packets
		}
		if sum.Packets != 60 || sum.Other != 0 {
			t.Errorf("%+v: of 60 frames %+v arrived", match, sum)
		}
		samples, err := sink.Samples()
		if err != nil {
			t.Error(err)
		}
		seen := make(map[int]int)
		for _, s := range samples {
			seen[s.Ifindex]++
		}
		for _, p := range bed.Pods {
			if want := 20; match.Protocol != 4 && seen[p.Ifindex] != want || match.Protocol == 4 && len(seen) > 0 {
				t.Errorf("%+v: %d samples of %s, want %d", match, seen[p.Ifindex], p.Device, want)
			}
		}
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	}
}

// manyDevices sends 20 frames to each pod.
func manyDevices(t *testing.T, bed *testbed.Bed, sink *xdpgen.Sink) (sum xdpgen.Counts) {
	t.Helper()
	for _, p := range bed.Pods {
		host, err := bed.Node.Link(p.Host)
		if err != nil {
			t.Fatal(err)
		}
		_, sum = finish(t, load.Config{
			Outs:    []load.Out{{Device: host.Index, MAC: testbed.GatewayMAC, Addr: testbed.PeerPod}},
			NextHop: p.MAC, Destinations: []netip.Addr{p.Addr}, Sizes: load.Fixed(64),
			Flows: 5, MaxFrames: 20, MaxTime: 10 * time.Second, CPU: -1, Enter: bed.Node.Enter,
		}, sink)
	}
	return sum
}

// TestStop ends a generator in the middle, whether it has a pace or not.
func TestStop(t *testing.T) {
	for _, rate := range []float64{0, 1000} {
		cfg, _ := pair(t, 0)
		cfg.Rate, cfg.MaxFrames, cfg.MaxTime = rate, 1<<40, time.Hour
		gen, err := xdpgen.Start(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		if !gen.Running() {
			t.Error("it ended by itself")
		}
		start := time.Now()
		if err := gen.Stop(); err != nil || gen.Running() {
			t.Errorf("stopped: %v, running: %t", err, gen.Running())
		}
		if took := time.Since(start); took > 5*time.Second { // a run of the program to its end takes more than a minute
			t.Errorf("it took %s to stop", took)
		}
	}
}

// TestPace compares the time it takes with the rate: it may be late, not early.
func TestPace(t *testing.T) {
	cfg, sink := pair(t, 0)
	cfg.Rate, cfg.MaxFrames, cfg.MaxTime = 20000, 4000, 20*time.Second
	start := time.Now()
	generated, c := finish(t, cfg, sink)
	if took := time.Since(start); took < 190*time.Millisecond {
		t.Errorf("4000 frames at 20000 a second took %s", took)
	}
	if generated != cfg.MaxFrames || c.Packets < generated*9/10 {
		t.Errorf("%d frames generated, %+v arrived", generated, c)
	}
}
