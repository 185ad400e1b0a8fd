package xdpgen_test

import (
	"context"
	"testing"
	"time"

	"culvert/bench/testbed"
	"culvert/bench/xdpgen"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// pair is two namespaces with a veth between them and a sink at its end.
func pair(t *testing.T, port uint16) (cfg xdpgen.Config, sink *xdpgen.Sink) {
	t.Helper()
	bed, err := testbed.New(true)
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
		sink, err = xdpgen.Attach(to.Index, port)
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
	return xdpgen.Config{
		Ifindex: from.Index, Flows: 40, MaxFrames: 10000, MaxTime: 10 * time.Second, CPU: -1, Enter: bed.Wire.Enter,
		Flow: xdpgen.Flow{
			SrcMAC: testbed.PodMAC, DstMAC: testbed.GatewayMAC, Src: testbed.PodAddr, Dst: testbed.PeerPod, Len: 64,
		},
	}, sink
}

// finish runs a generator to its end and reads the sink.
func finish(t *testing.T, cfg xdpgen.Config, sink *xdpgen.Sink) (generated uint64, counts xdpgen.Counts) {
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
	cpu, err := gen.Stop()
	if err != nil {
		t.Fatal(err)
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
		cfg.Flow.Len = n
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
			p := gopacket.NewPacket(s, layers.LayerTypeEthernet, gopacket.Default)
			udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if !ok {
				t.Fatalf("not UDP: %s", p)
			}
			ports[udp.SrcPort] = true
		}
		if len(ports) != len(samples) || len(samples) == 0 {
			t.Errorf("%d source ports in %d samples, want different ones", len(ports), len(samples))
		}
	}
}

func TestTunnelAndPort(t *testing.T) {
	cfg, sink := pair(t, 8472)
	cfg.Tunnel = &xdpgen.Tunnel{
		SrcMAC: testbed.WireMAC, DstMAC: testbed.UplinkMAC, Src: testbed.PeerAddr, Dst: testbed.NodeAddr, Port: 8472, VNI: 1,
	}
	if _, c := finish(t, cfg, sink); c.Packets == 0 || c.Bytes != c.Packets*114 || c.Other != 0 {
		t.Errorf("VXLAN frames: %+v arrived", c)
	}
	cfg.Tunnel = nil
	cfg.Flow.Len = 64
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
	for name, change := range map[string]func(*xdpgen.Config){
		"no frames":    func(c *xdpgen.Config) { c.MaxFrames = 0 },
		"no time":      func(c *xdpgen.Config) { c.MaxTime = 0 },
		"no device":    func(c *xdpgen.Config) { c.Ifindex = 0 },
		"no namespace": func(c *xdpgen.Config) { c.Enter = nil },
		"no flows":     func(c *xdpgen.Config) { c.Flows = 0 },
		"short frame":  func(c *xdpgen.Config) { c.Flow.Len = 63 },
	} {
		bad := cfg
		change(&bad)
		if _, err := xdpgen.Start(context.Background(), bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
