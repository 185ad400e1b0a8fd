package podlink

import (
	"fmt"

	"culvert/internal/sysctl"
)

// hostSysctls keep the node's IP stack out of the host end: no IPv6 of its
// own (no router solicitations, no MLD into the pod), and nothing that a pod
// sends is forwarded or accepted while no XDP program takes it.
var hostSysctls = [][2]string{
	{"net/ipv6/conf/%s/disable_ipv6", "1"},
	{"net/ipv4/conf/%s/forwarding", "0"},
	{"net/ipv4/conf/%s/rp_filter", "1"},
}

// podSysctls6 are for pods with an IPv6 address: usable at once, without
// duplicate address detection, and only by what ADD configured.
var podSysctls6 = [][2]string{
	{"net/ipv6/conf/%s/disable_ipv6", "0"},
	{"net/ipv6/conf/%s/accept_dad", "0"},
	{"net/ipv6/conf/%s/accept_ra", "0"},
}

// setSysctls writes the settings of one device in the thread's namespace. A
// setting that this kernel does not have is skipped; so is one below a
// read-only /proc/sys that has the value already.
func setSysctls(dev string, settings [][2]string) error {
	for _, s := range settings {
		if err := sysctl.Set(fmt.Sprintf(s[0], dev), s[1]); err != nil {
			return err
		}
	}
	return nil
}
