package tap

import (
	"fmt"
	"io"

	"github.com/songgao/water"
)

// MakePlain makes the TAP device of the node's own stack in the network namespace of the
// calling thread, or takes the one of that name: persistent, with several queues. It
// has carrier until Close, and then while a Queue of it is open.
func MakePlain(name string) (io.Closer, error) {
	dev, err := water.New(water.Config{DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{
		Name: name, Persist: true, MultiQueue: true, Permissions: &water.DevicePermissions{Owner: noOwner, Group: noOwner},
	}})
	if err != nil {
		return nil, fmt.Errorf("tap: making %s: %w%s", name, err, advice(err))
	}
	return dev, nil
}
