// Package peer has the devices under test: Culvert, what people use today, and
// reference points. Each stands on the node of a testbed and forwards between
// the pod and the VXLAN tunnel to the node beyond the wire.
//
// All do the same work: take a packet from the pod's veth, look up its route,
// decrement its TTL, push a VXLAN header whose source port depends on the flow,
// and send it out of the uplink, and the same backwards.
package peer

import (
	"context"
	"errors"
	"net"

	"culvert/bench/testbed"
)

// Device is a device under test that can be put into a testbed of its own.
type Device interface {
	// Name tells it apart in reports.
	Name() string
	// Check says what is missing on this machine to run it.
	Check() error
	// Start builds a testbed and the device in it, ready to forward.
	Start(ctx context.Context) (*Instance, error)
}

// Instance is a running device under test. Its creator closes it.
type Instance struct {
	Bed *testbed.Bed
	// PodMAC is the MAC of the pod's device.
	PodMAC net.HardwareAddr
	// CPU are the device's processes and threads, as testbed.CPUTime wants
	// them; none for the kernel.
	CPU []string
	// Note says how the device was really set up, where that can vary.
	Note string
	// Log is what the device says about itself, for error messages.
	Log func() string

	closers []func() error
}

// onClose adds what Close does before it takes the testbed down. What was
// added last is done first.
func (i *Instance) onClose(f func() error) { i.closers = append(i.closers, f) }

// Close ends the device and its testbed.
func (i *Instance) Close() error {
	var errs []error
	for n := len(i.closers) - 1; n >= 0; n-- {
		errs = append(errs, i.closers[n]())
	}
	i.closers = nil
	return errors.Join(append(errs, i.Bed.Close())...)
}

// start makes a testbed and lets build put a device into it; if that fails, it
// takes everything down again.
func start(underlayAddr bool, build func(*Instance) error) (*Instance, error) {
	bed, err := testbed.New(underlayAddr)
	if err != nil {
		return nil, err
	}
	i := &Instance{Bed: bed, PodMAC: testbed.PodMAC, Log: func() string { return "" }}
	if err := build(i); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}
