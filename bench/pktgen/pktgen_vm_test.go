//go:build vm

package pktgen

import (
	"context"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/loadtest"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// vmSetup is a pod's load of the module's kind and the sink that it arrives at.
func vmSetup(t *testing.T) (*testbed.Bed, load.Config, *xdpgen.Sink) {
	t.Helper()
	bed := loadtest.Bed(t, 1)
	cfg := loadtest.FromPods(bed)
	cfg.Destinations = cfg.Destinations[:1]
	cfg.MaxFrames, cfg.MaxTime = 5000, 2*time.Minute
	far, err := bed.Node.Link(bed.Pods[0].Host)
	if err != nil {
		t.Fatal(err)
	}
	var sink *xdpgen.Sink
	err = bed.Node.Do(func() (err error) {
		sink, err = xdpgen.Attach(xdpgen.Match{Protocol: 17}, far.Index)
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
	return bed, cfg, sink
}

// TestVMPktgen sends some thousand frames in a namespace and looks at what
// arrives at the other end of a veth pair, in another one.
func TestVMPktgen(t *testing.T) {
	bed, cfg, sink := vmSetup(t)
	gen, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for gen.Running() {
		time.Sleep(10 * time.Millisecond)
	}
	generated, err := gen.Generated()
	if err != nil || generated != cfg.MaxFrames {
		t.Errorf("%d frames generated, want %d: %v", generated, cfg.MaxFrames, err)
	}
	if err := gen.Stop(); err != nil {
		t.Fatal(err)
	}
	if cpu, err := gen.CPU(); err != nil || cpu <= 0 {
		t.Errorf("it took %s: %v", cpu, err)
	}
	c, err := sink.Counts()
	for end := time.Now().Add(5 * time.Second); err == nil && c.Packets < generated && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		c, err = sink.Counts()
	}
	if err != nil || c.Packets > generated || c.Packets < generated*9/10 || c.Bytes != 64*c.Packets {
		t.Errorf("of %d frames %+v arrived: %v", generated, c, err)
	}
	checkSamples(t, bed, cfg, sink)
}

// checkSamples compares the headers of what arrived with those that package load
// describes.
func checkSamples(t *testing.T, bed *testbed.Bed, cfg load.Config, sink *xdpgen.Sink) {
	t.Helper()
	samples, err := sink.Samples()
	if err != nil {
		t.Fatal(err)
	}
	ports := make(map[layers.UDPPort]bool)
	for _, s := range samples {
		p := gopacket.NewPacket(s.Data, layers.LayerTypeEthernet, gopacket.Default)
		eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if eth == nil || ip == nil || udp == nil {
			t.Fatalf("not UDP: %s", p)
		}
		if eth.SrcMAC.String() != bed.Pods[0].MAC.String() || eth.DstMAC.String() != cfg.NextHop.String() ||
			!ip.SrcIP.Equal(cfg.Outs[0].Addr.AsSlice()) || !ip.DstIP.Equal(cfg.Destinations[0].AsSlice()) ||
			udp.DstPort != load.DestinationPort || udp.SrcPort < load.FirstPort || int(udp.SrcPort) >= load.FirstPort+cfg.Flows {
			t.Fatalf("not a frame of the load: %s", p)
		}
		if got := checksum(t, ip, udp); got != udp.Checksum {
			t.Fatalf("its checksum should be %#x: %s", got, p)
		}
		ports[udp.SrcPort] = true
	}
	if len(samples) < 100 || len(ports) != cfg.Flows {
		t.Errorf("%d samples of %d flows, want all %d", len(samples), len(ports), cfg.Flows)
	}
}

// checksum is the datagram's, as gopacket makes it, but for zero, which is sent as
// its complement (RFC 768).
func checksum(t *testing.T, ip *layers.IPv4, udp *layers.UDP) uint16 {
	t.Helper()
	again := &layers.UDP{SrcPort: udp.SrcPort, DstPort: udp.DstPort}
	if err := again.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, opts, again, gopacket.Payload(udp.Payload)); err != nil {
		t.Fatal(err)
	}
	if again.Checksum == 0 {
		return 0xffff
	}
	return again.Checksum
}

// TestVMPktgenStops ends a run in the middle, by hand and by its time, and begins
// another on the same device.
func TestVMPktgenStops(t *testing.T) {
	_, cfg, sink := vmSetup(t)
	cfg.MaxFrames, cfg.Rate = 1<<40, 1000
	gen, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if n, err := gen.Generated(); err != nil || n > 0 {
			break
		}
	}
	if !gen.Running() {
		t.Error("it came to an end by itself")
	}
	if err := gen.Stop(); err != nil || gen.Running() {
		t.Errorf("stopped: %v, running: %t", err, gen.Running())
	}
	first, err := gen.Generated()
	if err != nil || first == 0 {
		t.Errorf("%d frames generated: %v", first, err)
	}
	cfg.MaxTime = 300 * time.Millisecond
	second := toItsEnd(t, cfg)
	cfg.MaxTime, cfg.MaxFrames, cfg.Rate, cfg.Sizes = 2*time.Minute, 500, 10000, load.IMIX(1400)
	third := toItsEnd(t, cfg)
	if third != cfg.MaxFrames {
		t.Errorf("%d frames of different lengths generated, want %d", third, cfg.MaxFrames)
	}
	c, err := sink.Counts()
	for end := time.Now().Add(5 * time.Second); err == nil && c.Packets < first+second+third && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		c, err = sink.Counts()
	}
	if err != nil || c.Packets < third*9/10 || c.Packets > first+second+third || c.Bytes <= 64*c.Packets {
		t.Errorf("%d, %d and %d frames generated, %+v arrived: %v", first, second, third, c, err)
	}
}

// toItsEnd runs a generator until its bounds end it.
func toItsEnd(t *testing.T, cfg load.Config) (generated uint64) {
	t.Helper()
	gen, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Minute); gen.Running() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if gen.Running() {
		t.Error("its bounds do not end it")
	}
	if err := gen.Stop(); err != nil {
		t.Error(err)
	}
	if generated, err = gen.Generated(); err != nil {
		t.Error(err)
	}
	return generated
}
