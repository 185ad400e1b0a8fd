package bench

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/bench/peer"
	"culvert/dataplane/xsk"
)

// Flags of the measurement. It is run by "make bench-forward" only: other
// tests at the same time would be measured, too.
var (
	forward   = flag.Bool("forward", false, "run TestForwardingRate")
	rounds    = flag.Int("rounds", 5, "rounds of TestForwardingRate")
	seconds   = flag.Float64("seconds", 3, "seconds of each device and round")
	flows     = flag.Int("flows", 256, "number of flows")
	frameLen  = flag.Int("frame-len", 64, "length of frames")
	direction = flag.String("direction", "encap", "encap or decap")
	devices   = flag.String("devices", "", "comma-separated subset of the devices")
	patience  = flag.Duration("patience", 10*time.Second, "how long to wait for a quiet machine before each measurement")
	bin       = flag.String("bin", "../bin", "directory of culvertd, culvert and culvert-cni")
	jsonFile  = flag.String("report", "out/forward.json", "where the report goes")
	assert    = flag.Bool("assert", true, "fail if Culvert is slower than Open vSwitch on AF_XDP")
)

// standard are the devices of a run, in their order.
func standard(bin string) []peer.Device {
	last := workerCPU()
	return []peer.Device{
		peer.Culvert{Bin: bin, Mode: "auto", Poll: "adaptive"},
		peer.OVS{Mode: "native", CPU: last},
		peer.OVS{Mode: "generic", CPU: last},
		peer.Kernel{},
		peer.Kernel{RPS: true},
	}
}

// extra are devices that run only when -devices names them.
func extra(bin string) []peer.Device {
	return []peer.Device{
		peer.Culvert{Bin: bin, Mode: "native", Poll: "adaptive"},
		peer.Culvert{Bin: bin, Mode: "generic", Poll: "adaptive"},
		peer.Culvert{Bin: bin, Mode: "auto", Poll: "busy"},
		peer.Culvert{Bin: bin, Mode: "native", Poll: "busy"},
		peer.Bare{Pod: xsk.ModeNative, Uplink: xsk.ModeNative, CPU: workerCPU()},
		peer.Bare{Pod: xsk.ModeNative, Uplink: xsk.ModeGeneric, CPU: workerCPU()},
		peer.Bare{Pod: xsk.ModeGeneric, Uplink: xsk.ModeNative, CPU: workerCPU()},
		peer.Bare{Pod: xsk.ModeGeneric, Uplink: xsk.ModeGeneric, CPU: workerCPU()},
	}
}

// choose picks the devices that names lists, the standard ones without names.
func choose(bin, names string) ([]peer.Device, error) {
	if names == "" {
		return standard(bin), nil
	}
	all := append(standard(bin), extra(bin)...)
	var chosen []peer.Device
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(d peer.Device) bool { return d.Name() == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown device %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// TestForwardingRate is the measurement: with one worker, Culvert delivers at
// least as many 64-byte packets as Open vSwitch on AF_XDP in its better mode.
func TestForwardingRate(t *testing.T) {
	if !*forward {
		t.Skip("a measurement needs the machine for itself: make bench-forward")
	}
	path, err := filepath.Abs(*bin)
	if err != nil {
		t.Fatal(err)
	}
	list, err := choose(path, *devices)
	if err != nil {
		t.Fatal(err)
	}
	o := Default(list...)
	o.Rounds, o.Duration = *rounds, time.Duration(*seconds*float64(time.Second))
	o.Flows, o.FrameLen, o.Direction = *flows, *frameLen, Direction(*direction)
	o.Patience = *patience
	o.Progress = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	report, err := Run(stopped, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.WriteTable(os.Stdout); err != nil {
		t.Error(err)
	}
	if err := report.WriteJSON(*jsonFile); err != nil {
		t.Error(err)
	}
	if !*assert {
		return
	}
	us, ok := report.Of("culvert")
	for _, name := range []string{"ovs-native", "ovs-generic"} {
		if ovs, both := report.Of(name); ok && both && us.Mpps < ovs.Mpps {
			t.Errorf("culvert delivers %.3f Mpps, %s %.3f", us.Mpps, name, ovs.Mpps)
		}
	}
}
