package agent

import (
	"strings"
	"testing"

	"culvert/internal/ethtool"
)

// virtnet_xdp_set of drivers/net/virtio_net.c takes a queue pair for each CPU if as many
// are left, and none otherwise.
func TestSpareQueues(t *testing.T) {
	for _, tt := range []struct {
		most, used, cpus int
		spare            bool
	}{
		{4, 2, 2, true}, {4, 3, 2, false}, {4, 4, 2, false}, {4, 1, 2, true},
		{2, 2, 2, false}, {1, 1, 1, false}, {16, 8, 8, true}, {16, 8, 9, false},
	} {
		err := spareQueues("eth7", ethtool.Channels{MaxCombined: tt.most, Combined: tt.used}, tt.cpus)
		if (err != nil) != tt.spare {
			t.Errorf("%+v: %v", tt, err)
		}
		if err != nil && !strings.Contains(err.Error(), "ethtool -L eth7 combined") {
			t.Errorf("%+v: no advice: %v", tt, err)
		}
	}
}

func TestCPUIDs(t *testing.T) {
	for list, want := range map[string]int{"0-3\n": 4, "0\n": 1, "0,2-5\n": 6, "0-1,4": 5, "": 1} {
		if got := cpuIDs(list); got != want {
			t.Errorf("%q: %d, want %d", list, got, want)
		}
	}
}
