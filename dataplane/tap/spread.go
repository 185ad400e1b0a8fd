package tap

import (
	"fmt"
	"math/big"
	"os"
	"strconv"
	"strings"

	"culvert/internal/sysctl"
)

// rpsDefault is the set of CPUs that new receive queues of the thread's network
// namespace spread their flows over (net/core/sysctl_net_core.c, since Linux 6.3).
const rpsDefault = "net/core/rps_default_mask"

// spreading calls attach, which makes receive queues in the thread's network
// namespace, such that the pod's stack receives on all CPUs, flow by flow (RPS).
// Without it the whole of TCP's receiving runs inside the worker's writev, and the
// worker's core is the limit of all its pods. A frame of a flow that is alone pays
// for the other CPU's wake-up; pods that mind have a veth.
//
// A kernel without the setting, or one CPU, leaves receiving where it is.
func spreading(attach func() (int, error)) (int, error) {
	before, err := os.ReadFile(sysctl.Path(rpsDefault))
	mask := onlineMask()
	if err == nil && mask != "" {
		if sysctl.Write(rpsDefault, mask) == nil {
			defer func() { _ = sysctl.Write(rpsDefault, string(before)) }()
		}
	}
	return attach()
}

// onlineMask is the set of CPUs that are there, as bitmap_parse of lib/bitmap-str.c
// reads it: groups of 32 bits. It is empty for a single CPU.
func onlineMask() string {
	list, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return ""
	}
	mask, err := parseCPUs(strings.TrimSpace(string(list)))
	if err != nil || mask.BitLen() < 2 {
		return ""
	}
	return formatMask(mask)
}

// parseCPUs reads a list such as 0-3,8.
func parseCPUs(list string) (*big.Int, error) {
	mask := new(big.Int)
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", list, err)
		}
		to, err := strconv.ParseUint(high, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", list, err)
		}
		for cpu := from; cpu <= to; cpu++ {
			mask.SetBit(mask, int(cpu), 1)
		}
	}
	return mask, nil
}

// formatMask writes a mask in hexadecimal groups of 32 bits.
func formatMask(mask *big.Int) string {
	digits := mask.Text(16)
	var groups []string
	for len(digits) > 8 {
		at := len(digits) - 8
		groups = append([]string{digits[at:]}, groups...)
		digits = digits[:at]
	}
	return strings.Join(append([]string{digits}, groups...), ",")
}
