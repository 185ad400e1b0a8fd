// Package peer has the devices under test: Culvert, what people use today, and
// reference points. Each stands on the node of a testbed and forwards between
// the pods and the tunnels to the nodes beyond the wire.
//
// All do the same work: take a packet from a pod's veth, look up its route,
// decrement its TTL, push a tunnel's headers, for VXLAN with a source port that
// depends on the flow, and send it out of the uplink, and the same backwards.
package peer

import (
	"context"
	"errors"
	"fmt"

	"culvert/bench/testbed"
)

// Device is a device under test that can be put into a testbed of its own.
type Device interface {
	// Name tells it apart in reports.
	Name() string
	// Check says what is missing on this machine to run it like that, or that it
	// cannot be run like that at all.
	Check(o Options) error
	// Start builds a testbed and the device in it, ready to forward.
	Start(ctx context.Context, o Options) (*Instance, error)
}

// Encap is what packets to other nodes are put into.
type Encap string

// The encapsulations.
const (
	VXLAN Encap = "vxlan" // with Flannel's VNI and port
	IPIP  Encap = "ipip"  // IPv4 in IPv4, as Calico has it
)

// Overhead is the length of the encapsulation's headers, in bytes: outer IPv4,
// and for VXLAN UDP, VXLAN and the inner Ethernet header.
func (e Encap) Overhead() uint64 {
	if e == IPIP {
		return 20
	}
	return 50
}

// Options say what a device has to deal with. The zero value is one pod, one
// peer, VXLAN, and a wire that passes GSO.
type Options struct {
	// Pods and Peers are their numbers, to testbed.MaxPods and MaxPeers; 0 is 1.
	Pods, Peers int
	// Encap is VXLAN if it is empty.
	Encap Encap
	Wire  testbed.Wire
	// Flows is how many that nobody answers a pod is going to have at once, where that
	// takes a larger table than usual; 0 where it does not.
	Flows int
}

// full has the numbers and the encapsulation that its zero values stand for.
func (o Options) full() Options {
	o.Pods, o.Peers = max(o.Pods, 1), max(o.Peers, 1)
	if o.Encap == "" {
		o.Encap = VXLAN
	}
	return o
}

// podMTU is the MTU of pods behind the encapsulation.
func (o Options) podMTU() int {
	if o.Encap == IPIP {
		return testbed.PodMTUIPIP
	}
	return testbed.PodMTU
}

// Instance is a running device under test. Its creator closes it.
type Instance struct {
	// Bed has the pods and the peers: names, interface indexes, MACs, addresses.
	Bed *testbed.Bed
	// Options are those that it was started with, no field zero but Wire and Flows.
	Options Options
	// CPU are the device's processes and threads, as testbed.CPUTime wants
	// them; none for the kernel.
	CPU []string
	// Note says how the device was really set up, where that can vary.
	Note string
	// Log is what the device says about itself, for error messages.
	Log func() string

	closers   []func() error
	processes []string // the device's own, in /proc
	own       uint64   // bytes that a device in this process has
	kernel    uint64   // bytes that the kernel had before the device
}

// onClose adds what Close does before it takes the testbed down. What was
// added last is done first.
func (i *Instance) onClose(f func() error) { i.closers = append(i.closers, f) }

// runs notes a process of the device.
func (i *Instance) runs(p *testbed.Process) {
	i.onClose(p.Stop)
	i.processes = append(i.processes, p.Proc())
}

// Close ends the device and its testbed.
func (i *Instance) Close() error {
	var errs []error
	for n := len(i.closers) - 1; n >= 0; n-- {
		errs = append(errs, i.closers[n]())
	}
	i.closers = nil
	return errors.Join(append(errs, i.Bed.Close())...)
}

// start makes a testbed and lets build put a device into it, the underlay's
// address included; if that fails, it takes everything down again.
func start(ctx context.Context, d Device, o Options, build func(*Instance) error) (*Instance, error) {
	o = o.full()
	if o.Encap != VXLAN && o.Encap != IPIP {
		return nil, fmt.Errorf("encapsulation %q: must be %s or %s", o.Encap, VXLAN, IPIP)
	}
	if err := d.Check(o); err != nil {
		return nil, err
	}
	bed, err := testbed.New(ctx, testbed.Options{Pods: o.Pods, Peers: o.Peers, Wire: o.Wire, NoUnderlay: true})
	if err != nil {
		return nil, err
	}
	i := &Instance{Bed: bed, Options: o, Log: func() string { return "" }}
	if i.kernel, err = settledKernelMemory(ctx); err == nil {
		err = build(i)
	}
	if err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}
