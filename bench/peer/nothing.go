package peer

import (
	"context"

	"culvert/bench/testbed"
)

// Nothing is no device: pods and wire are there, and nobody forwards between
// them. It shows what the load alone costs.
type Nothing struct{}

// Name implements Device.
func (Nothing) Name() string { return "nothing" }

// Check implements Device.
func (Nothing) Check(Options) error { return nil }

// Start implements Device.
func (n Nothing) Start(ctx context.Context, o Options) (*Instance, error) {
	return start(ctx, n, o, func(i *Instance) error {
		if err := i.Bed.AddUnderlay(testbed.Uplink); err != nil {
			return err
		}
		return i.Bed.ConnectPods(o.full().podMTU())
	})
}
