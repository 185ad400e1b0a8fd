package xsk

import (
	"testing"

	"culvert/internal/testnet"
)

// veth says that it has no zero-copy mode, so that nobody has to try.
func TestQueryFeatures(t *testing.T) {
	ns := testnet.NewNS(t)
	name := testnet.Name("f")
	testnet.Veth(t, ns, name, ns, testnet.Name("g"))
	ns.Do(t, func() {
		f := queryFeatures(ifindex(t, name))
		if !f.known || f.zeroCopy || f.txChecksum {
			t.Errorf("a veth has the features %+v", f)
		}
		if f := queryFeatures(9999); f.known {
			t.Errorf("a device that does not exist has the features %+v", f)
		}
	})
}
