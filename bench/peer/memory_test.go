package peer

import (
	"context"
	"testing"

	"culvert/bench/testbed"
)

// TestMemoryOfPods checks that what the kernel has for a hundred pods is seen,
// and that a device without processes has nothing else.
func TestMemoryOfPods(t *testing.T) {
	i, err := Kernel{}.Start(context.Background(), Options{Pods: 100})
	if err != nil {
		t.Fatal(err)
	}
	m, err := i.Memory()
	if err != nil || m.Processes != 0 || m.Kernel < 3<<20 || m.Kernel > 300<<20 {
		t.Errorf("100 pods take %+v: %v", m, err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
}

func TestMemoryFields(t *testing.T) {
	n, err := fields("/proc/self/smaps_rollup", "Pss:")
	if err != nil || n < 1<<20 || n%1024 != 0 {
		t.Errorf("this process takes %d bytes: %v", n, err)
	}
	if n, err := fields("/proc/meminfo", "MemTotal:", "Nothing:"); err == nil {
		t.Errorf("a line that is not there has %d bytes", n)
	}
}

// TestOptions checks what zero values stand for, and that numbers out of range
// are refused before anything is built.
func TestOptions(t *testing.T) {
	if o := (Options{}).full(); o != (Options{Pods: 1, Peers: 1, Encap: VXLAN}) || o.podMTU() != testbed.PodMTU {
		t.Errorf("the zero value stands for %+v", o)
	}
	for _, o := range []Options{{Pods: testbed.MaxPods + 1}, {Peers: testbed.MaxPeers + 1}, {Encap: "gre"}} {
		if i, err := (Kernel{}).Start(context.Background(), o); err == nil {
			t.Errorf("%+v: accepted: %v", o, i.Close())
		}
	}
}
