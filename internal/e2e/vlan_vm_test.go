//go:build vm

package e2e

import "testing"

// The same with VLAN devices, on kernels that have them: those of the virtual machines.
func TestVMTaggedUplink(t *testing.T) { testStacked(t, "vlan", "id", "100") }
