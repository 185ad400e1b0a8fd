package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/bench/peer"
	"culvert/bench/sample"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"
)

// Measurement is one device in one round.
type Measurement struct {
	Device  string  `json:"device"`
	Round   int     `json:"round"`
	Note    string  `json:"note,omitempty"`
	Seconds float64 `json:"seconds"`
	Packets uint64  `json:"packets"` // delivered
	Bytes   uint64  `json:"bytes"`
	Other   uint64  `json:"other"`   // frames at the sink that are not the load
	Offered uint64  `json:"offered"` // generated in the same time
	Mpps    float64 `json:"mpps"`
	// CoresBusy is the processor time of the whole machine, the generator's
	// included, DeviceCores that of the device's processes.
	CoresBusy   float64 `json:"coresBusy"`
	DeviceCores float64 `json:"deviceCores"`
	// Background is what kept the machine busy just before: with more than a few
	// hundredths of a core, the round measured something else, too.
	Background float64 `json:"background"`
	// NanosPerPacket is the machine's processor time for each delivered packet.
	NanosPerPacket float64 `json:"nanosPerPacket"`
}

// firstFrame is how long a device may take to deliver the first frame.
const firstFrame = 5 * time.Second

// ends are where the load comes from and where it arrives.
func ends(o Options, i *peer.Instance) (from, to *testbed.Space, fromDevice, toDevice string, port uint16) {
	if o.Direction == Decap {
		return i.Bed.Wire, i.Bed.Pod, testbed.WireDevice, testbed.PodDevice, 0
	}
	return i.Bed.Pod, i.Bed.Wire, testbed.PodDevice, testbed.WireDevice, testbed.Port
}

// load is the generator's configuration for an instance.
func load(o Options, i *peer.Instance) (xdpgen.Config, error) {
	from, _, device, _, _ := ends(o, i)
	link, err := from.Link(device)
	if err != nil {
		return xdpgen.Config{}, err
	}
	cfg := xdpgen.Config{
		Ifindex: link.Index, Flows: o.Flows, CPU: o.GeneratorCPU, Enter: from.Enter,
		MaxTime: firstFrame + o.WarmUp + o.Duration + 5*time.Second, MaxFrames: 1 << 30,
		Flow: xdpgen.Flow{SrcMAC: i.PodMAC, DstMAC: testbed.GatewayMAC, Src: testbed.PodAddr, Dst: testbed.PeerPod, Len: o.FrameLen},
	}
	if o.Direction == Decap {
		cfg.Flow = xdpgen.Flow{
			SrcMAC: testbed.PeerVTEP, DstMAC: testbed.NodeVTEP, Src: testbed.PeerPod, Dst: testbed.PodAddr, Len: o.FrameLen,
		}
		cfg.Tunnel = &xdpgen.Tunnel{
			SrcMAC: testbed.WireMAC, DstMAC: testbed.UplinkMAC, Src: testbed.PeerAddr, Dst: testbed.NodeAddr,
			Port: testbed.Port, VNI: testbed.VNI,
		}
	}
	return cfg, nil
}

// measure loads a running device and reads what arrives.
func measure(ctx context.Context, o Options, i *peer.Instance) (m Measurement, err error) {
	_, to, _, device, port := ends(o, i)
	link, err := to.Link(device)
	if err != nil {
		return m, err
	}
	var sink *xdpgen.Sink
	err = to.Do(func() (err error) {
		sink, err = xdpgen.Attach(link.Index, port)
		return err
	})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	cfg, err := load(o, i)
	if err != nil {
		return m, err
	}
	gen, err := xdpgen.Start(ctx, cfg)
	if err != nil {
		return m, err
	}
	m, err = between(ctx, o, i, gen, sink)
	if _, stopErr := gen.Stop(); stopErr != nil {
		return m, errors.Join(err, stopErr)
	}
	if err != nil {
		return m, err
	}
	samples, err := sink.Samples()
	if err != nil {
		return m, err
	}
	return m, checkSamples(o, i.PodMAC, samples)
}

// between waits for the first frame and the warm-up, and takes the difference
// of two readings.
func between(ctx context.Context, o Options, i *peer.Instance, gen *xdpgen.Generator, sink *xdpgen.Sink) (Measurement, error) {
	for end := time.Now().Add(firstFrame); ; {
		c, err := sink.Counts()
		if err != nil {
			return Measurement{}, err
		}
		if c.Packets > 0 {
			break
		}
		if time.Now().After(end) {
			n, err := gen.Generated()
			return Measurement{}, errors.Join(fmt.Errorf("of %d frames none arrived within %s, but %d others", n, firstFrame, c.Other), err)
		}
		if err := sample.Sleep(ctx, 10*time.Millisecond); err != nil {
			return Measurement{}, err
		}
	}
	if err := sample.Sleep(ctx, o.WarmUp); err != nil {
		return Measurement{}, err
	}
	before, err := read(i, gen, sink)
	if err != nil {
		return Measurement{}, err
	}
	if err := sample.Sleep(ctx, o.Duration); err != nil {
		return Measurement{}, err
	}
	after, err := read(i, gen, sink)
	if err != nil {
		return Measurement{}, err
	}
	if !gen.Running() {
		return Measurement{}, errors.New("the generator came to its bounds within the measurement")
	}
	return after.since(before), nil
}
