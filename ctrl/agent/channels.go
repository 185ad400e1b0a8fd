package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"culvert/internal/ethtool"
)

// checkSpareQueues is an error for a device that would receive on queues of which no
// socket can be had, once a native XDP program is on it: what arrives there would reach
// nobody. So does virtio-net with queue pairs to spare. It takes one of them for each CPU,
// to send from XDP, and tells the host that it receives on those too
// (drivers/net/virtio_net.c, virtnet_xdp_set); to bind a socket to one is not safe
// (docs/vm-tests.md).
func checkSpareQueues(dev string) error {
	driver, err := ethtool.Driver(dev)
	if err != nil || driver != "virtio_net" {
		return nil //nolint:nilerr // who does not say its driver's name is not virtio-net
	}
	ch, err := ethtool.GetChannels(dev)
	if err != nil {
		return err
	}
	possible, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return fmt.Errorf("counting CPUs: %w", err)
	}
	return spareQueues(dev, ch, cpuIDs(string(possible)))
}

// spareQueues is checkSpareQueues for virtio-net with these channels on a machine with so
// many CPUs.
func spareQueues(dev string, ch ethtool.Channels, cpus int) error {
	if ch.Combined+cpus > ch.MaxCombined {
		return nil // it shares its queues with XDP
	}
	return fmt.Errorf("of its %d queue pairs, virtio-net uses %d and would take %d more for native XDP, one for each CPU, "+
		"and receive on those, which no socket can serve: use more of them with 'ethtool -L %s combined %d', or xdp.mode generic",
		ch.MaxCombined, ch.Combined, cpus, dev, ch.MaxCombined)
}

// cpuIDs is nr_cpu_ids of the kernel, by its list of possible CPUs: "0-3", "0,2-5".
func cpuIDs(possible string) int {
	list := strings.TrimSpace(possible)
	last, err := strconv.Atoi(list[strings.LastIndexAny(list, ",-")+1:])
	if err != nil {
		return 1
	}
	return last + 1
}
