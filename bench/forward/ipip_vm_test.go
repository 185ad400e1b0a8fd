//go:build vm

package forward

import (
	"testing"

	"culvert/bench/peer"
)

// TestVMKernelForwardsIPIP runs inside a virtual machine (make test-vm), whose
// kernel has IPIP.
func TestVMKernelForwardsIPIP(t *testing.T) {
	d, setup := peer.Kernel{}, peer.Options{Pods: 3, Peers: 202, Encap: peer.IPIP}
	if err := d.Check(setup); err != nil {
		t.Fatal(err)
	}
	everyWay(t, d, setup)
}
