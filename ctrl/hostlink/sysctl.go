package hostlink

import (
	"errors"
	"log/slog"

	"culvert/internal/sysctl"
)

// sysctls let Linux take what comes by the device. It has the addresses of pods of
// this node as sources, and of others; what pods send out of the cluster by way of the
// node has its own address already when it arrives (accept_local).
var sysctls = [][2]string{
	{"net/ipv4/conf/" + Name + "/rp_filter", "0"},
	{"net/ipv4/conf/" + Name + "/accept_local", "1"},
	{"net/ipv4/conf/" + Name + "/forwarding", "1"},
	{"net/ipv4/conf/" + Name + "/send_redirects", "0"},
	{"net/ipv6/conf/" + Name + "/disable_ipv6", "0"},
	{"net/ipv6/conf/" + Name + "/addr_gen_mode", "1"}, // no link-local address, and no chatter about it
	{"net/ipv6/conf/" + Name + "/accept_ra", "0"},
	{"net/ipv6/conf/" + Name + "/accept_dad", "0"},
	{"net/ipv6/conf/" + Name + "/forwarding", "1"},
}

// setSysctls writes them in the thread's namespace. One that this kernel does not have is
// skipped, and one below a read-only /proc/sys that has the value already.
func setSysctls() error {
	for _, s := range sysctls {
		if err := sysctl.Set(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// forward makes the node a router, as Kubernetes wants it: kube-proxy sends to pods what
// comes for Services. As a router Linux takes no more router advertisements, unless
// it is told to all the same (accept_ra 2, Documentation/networking/ip-sysctl.rst): an
// uplink that has its default route of them keeps it.
func forward(log *slog.Logger, v4, v6 bool) error {
	var errs []error
	if v4 && sysctl.Get("net/ipv4/ip_forward") == "0" {
		log.Info("the node forwards IPv4 from now on", "sysctl", "net.ipv4.ip_forward=1")
		errs = append(errs, sysctl.Set("net/ipv4/ip_forward", "1"))
	}
	if v6 && sysctl.Get("net/ipv6/conf/all/forwarding") == "0" {
		log.Info("the node forwards IPv6 from now on", "sysctl", "net.ipv6.conf.all.forwarding=1")
		for _, name := range sysctl.Glob("net/ipv6/conf/*/accept_ra") {
			if sysctl.Get(name) == "1" {
				errs = append(errs, sysctl.Set(name, "2"))
			}
		}
		errs = append(errs, sysctl.Set("net/ipv6/conf/all/forwarding", "1"))
	}
	return errors.Join(errs...)
}
