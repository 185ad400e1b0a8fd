package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"culvert/bench/testbed"
)

// Names of the bridges, which are also those of their internal ports.
const (
	ovsInner = "cvbint" // pods and tunnels
	ovsOuter = "cvbphy" // the uplink
)

// configure makes the two bridges that Open vSwitch's userspace tunnelling
// needs (Documentation/howto/userspace-tunneling.rst): one with the pod and the
// tunnel, one with the uplink, whose internal port has the underlay address.
func (r *ovsRun) configure() error {
	err := r.vsctl(
		"add-br", ovsInner, "--", "set", "bridge", ovsInner, "datapath_type=netdev", "fail_mode=secure",
		"--", "add-br", ovsOuter, "--", "set", "bridge", ovsOuter, "datapath_type=netdev", "fail_mode=secure",
		"other-config:hwaddr="+testbed.UplinkMAC.String(),
		"--", "add-port", ovsInner, testbed.HostDevice, "--", "set", "interface", testbed.HostDevice, "type=afxdp",
		"options:xdp-mode="+r.Mode, "ofport_request=1",
		"--", "add-port", ovsInner, "vx", "--", "set", "interface", "vx", "type=vxlan", "ofport_request=2",
		"options:remote_ip="+testbed.PeerAddr.String(), fmt.Sprintf("options:key=%d", testbed.VNI),
		fmt.Sprintf("options:dst_port=%d", testbed.Port),
		"--", "add-port", ovsOuter, testbed.Uplink, "--", "set", "interface", testbed.Uplink, "type=afxdp",
		"options:xdp-mode="+r.Mode, "ofport_request=1")
	if err != nil {
		return err
	}
	if err := r.daemon.Await(r.ctx, 10*time.Second, r.portsOpen); err != nil {
		return err
	}
	if err := r.i.Bed.Node.AddAddr(ovsOuter, netip.PrefixFrom(testbed.NodeAddr, 24)); err != nil {
		return err
	}
	if err := r.i.Bed.Node.Up(ovsOuter); err != nil {
		return err
	}
	if err := r.addFlows(); err != nil {
		return err
	}
	// The switch learns of the address over netlink; then the route is there.
	err = r.daemon.Await(r.ctx, 5*time.Second, func() error {
		out, err := r.appctl("ovs/route/show")
		if err == nil && !strings.Contains(out, ovsOuter) {
			err = errors.New("no route over " + ovsOuter)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = r.appctl("tnl/arp/set", ovsOuter, testbed.PeerAddr.String(), testbed.WireMAC.String())
	r.i.Note = "afxdp xdp-mode=" + r.Mode + ", 1 PMD"
	return err
}

// portsOpen checks that every port has its number and that the AF_XDP ports
// are in the mode that was asked for: Open vSwitch falls back silently otherwise.
func (r *ovsRun) portsOpen() error {
	for _, port := range []string{testbed.HostDevice, testbed.Uplink, "vx"} {
		out, err := r.run("ovs-vsctl", "--no-wait", "--db=unix:"+r.path("db.sock"), "get", "interface", port, "ofport", "error")
		if err != nil {
			return err
		}
		if n, _, _ := strings.Cut(out, "\n"); n != "1" && n != "2" {
			return fmt.Errorf("port %s is not open: %s", port, strings.TrimSpace(out))
		}
	}
	for _, port := range []string{testbed.HostDevice, testbed.Uplink} {
		mode, err := r.i.Bed.Node.XDPMode(port)
		if err != nil {
			return err
		}
		if mode != r.Mode {
			return fmt.Errorf("port %s has an XDP program in mode %q, not %s", port, mode, r.Mode)
		}
	}
	return nil
}

// addFlows makes the bridges route: the same work as a FIB lookup, a TTL
// decrement and new MACs.
func (r *ovsRun) addFlows() error {
	flows := map[string][]string{
		ovsInner: {
			fmt.Sprintf("ip,in_port=1,nw_src=%s,nw_dst=%s,actions=dec_ttl,set_field:%s->eth_src,set_field:%s->eth_dst,output:2",
				testbed.PodAddr, testbed.PeerCIDR, testbed.NodeVTEP, testbed.PeerVTEP),
			fmt.Sprintf("ip,in_port=2,nw_dst=%s,actions=dec_ttl,set_field:%s->eth_src,set_field:%s->eth_dst,output:1",
				testbed.PodAddr, testbed.GatewayMAC, testbed.PodMAC),
		},
		ovsOuter: {"in_port=LOCAL,actions=output:1", "in_port=1,actions=LOCAL"},
	}
	for bridge, list := range flows {
		for _, flow := range list {
			if _, err := r.run("ovs-ofctl", "-O", "OpenFlow13", "add-flow", "unix:"+r.path(bridge+".mgmt"), flow); err != nil {
				return err
			}
		}
	}
	return nil
}
