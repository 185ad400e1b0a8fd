package suite

import (
	"maps"
	"runtime"
	"slices"

	"culvert/bench/peer"
	"culvert/dataplane/xsk"
)

// workerCPU is where polling threads of devices that are told run: not with the
// generator.
func (o *Options) workerCPU() int { return (o.Timing.GeneratorCPU + 1) % runtime.NumCPU() }

// culvert is Culvert as it is by default, this build and the others.
func (o *Options) culvert() (all []peer.Device) {
	all = append(all, peer.Culvert{Bin: o.Bin, Mode: "auto", Poll: "adaptive"})
	for _, name := range slices.Sorted(maps.Keys(o.Builds)) {
		all = append(all, peer.Culvert{Bin: o.Builds[name], Mode: "auto", Poll: "adaptive", Label: "@" + name})
	}
	return all
}

// ovs is Open vSwitch in both of its modes.
func (o *Options) ovs() []peer.Device {
	return []peer.Device{peer.OVS{Mode: "native", CPU: o.workerCPU()}, peer.OVS{Mode: "generic", CPU: o.workerCPU()}}
}

// standard are Culvert and all peers; the quick set has one of each kind.
func (o *Options) standard() []peer.Device {
	if o.quick() {
		return append(o.culvert(), o.ovs()[1], peer.Kernel{})
	}
	return slices.Concat(o.culvert(), o.ovs(), []peer.Device{peer.Kernel{}, peer.Kernel{RPS: true}})
}

// few are Culvert and the better peer of each kind.
func (o *Options) few() []peer.Device {
	return append(o.culvert(), o.ovs()[1], peer.Kernel{})
}

// lanes are the ways that Culvert itself has, the least that a forwarder on its sockets,
// or inside the kernel, can be, and the kernel itself.
func (o *Options) lanes() []peer.Device {
	all := []peer.Device{
		peer.Culvert{Bin: o.Bin, Mode: "auto", Poll: "adaptive"},
		peer.Culvert{Bin: o.Bin, Mode: "generic", Poll: "adaptive"},
		peer.Culvert{Bin: o.Bin, Mode: "native", Poll: "adaptive"},
		peer.Culvert{Bin: o.Bin, Mode: "auto", Poll: "busy"},
	}
	for _, mode := range []xsk.Mode{xsk.ModeGeneric, xsk.ModeNative} {
		all = append(all, peer.Bare{Pod: mode, Uplink: mode, CPU: o.workerCPU()})
	}
	return append(all, peer.Offload{}, peer.Kernel{})
}
