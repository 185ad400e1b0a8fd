package peer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"culvert/bench/testbed"
)

// Names of the bridges, which are also those of their internal ports.
const (
	ovsInner = "cvbint" // pods and tunnels
	ovsOuter = "cvbphy" // the uplink
)

// ovsTunnel is the number of the tunnels' port on the inner bridge. Pod n has
// n+1 there, and the uplink 1 on the outer one.
const ovsTunnel = 1000

// Times that the switch may take to open its ports: a port more costs it more
// the more there are.
const (
	ovsReady    = 15 * time.Second
	ovsReadyPod = time.Second
)

// configure makes the two bridges that Open vSwitch's userspace tunnelling
// needs (Documentation/howto/userspace-tunneling.rst): one with the pods and the
// tunnels, one with the uplink, whose internal port has the underlay address.
func (r *ovsRun) configure() error {
	b := r.i.Bed
	if err := r.vsctl(r.bridges()...); err != nil {
		return err
	}
	limit := ovsReady + time.Duration(len(b.Pods))*ovsReadyPod
	if err := r.daemon.Await(r.ctx, limit, r.portsOpen); err != nil {
		return err
	}
	if err := b.AddUnderlay(ovsOuter); err != nil {
		return err
	}
	if err := r.addFlows(ovsInner, r.innerFlows()); err != nil {
		return err
	}
	if err := r.addFlows(ovsOuter, []byte("in_port=LOCAL,actions=output:1\nin_port=1,actions=LOCAL\n")); err != nil {
		return err
	}
	// The switch learns of the address over netlink; then the routes are there.
	err := r.daemon.Await(r.ctx, 10*time.Second, func() error {
		out, err := r.appctl("ovs/route/show")
		if err == nil && !strings.Contains(out, ovsOuter) {
			err = errors.New("no route over " + ovsOuter)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range b.NextHops() {
		if _, err := r.appctl("tnl/arp/set", ovsOuter, n.Addr.String(), n.MAC.String()); err != nil {
			return err
		}
	}
	r.i.Note = "afxdp xdp-mode=" + r.Mode + ", 1 PMD, tx checksum offload off in pods and on the wire"
	return nil
}

// bridges is the transaction that makes the bridges and their ports. The tunnel's
// far end is the flows' to say.
func (r *ovsRun) bridges() []string {
	args := []string{
		"add-br", ovsInner, "--", "set", "bridge", ovsInner, "datapath_type=netdev", "fail_mode=secure",
		"--", "add-br", ovsOuter, "--", "set", "bridge", ovsOuter, "datapath_type=netdev", "fail_mode=secure",
		"other-config:hwaddr=" + testbed.UplinkMAC.String(),
		"--", "add-port", ovsInner, "vx", "--", "set", "interface", "vx", "type=vxlan", fmt.Sprintf("ofport_request=%d", ovsTunnel),
		"options:remote_ip=flow", fmt.Sprintf("options:key=%d", testbed.VNI), fmt.Sprintf("options:dst_port=%d", testbed.Port),
	}
	afxdp := func(bridge, device string, port int) {
		args = append(args, "--", "add-port", bridge, device, "--", "set", "interface", device, "type=afxdp",
			"options:xdp-mode="+r.Mode, fmt.Sprintf("ofport_request=%d", port))
	}
	for n, p := range r.i.Bed.Pods {
		afxdp(ovsInner, p.Host, n+1)
	}
	afxdp(ovsOuter, testbed.Uplink, 1)
	return args
}

// portsOpen checks that every port has its number and that the AF_XDP ports
// are in the mode that was asked for: Open vSwitch falls back silently otherwise.
func (r *ovsRun) portsOpen() error {
	want := map[string]int{"vx": ovsTunnel, testbed.Uplink: 1}
	for n, p := range r.i.Bed.Pods {
		want[p.Host] = n + 1
	}
	out, err := r.run("ovs-vsctl", "--no-wait", "--db=unix:"+r.path("db.sock"), "--format=json",
		"--columns=name,ofport,error", "list", "interface")
	if err != nil {
		return err
	}
	var table struct{ Data [][]any }
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		return fmt.Errorf("list of interfaces: %w", err)
	}
	for _, row := range table.Data {
		name, _ := row[0].(string)
		port, isNumber := row[1].(float64) // an empty set until the port is open
		if n, ours := want[name]; ours && (!isNumber || int(port) != n) {
			return fmt.Errorf("port %s is not open: it has the number %v, error %v", name, row[1], row[2])
		}
	}
	links, err := r.i.Bed.Node.Links()
	if err != nil {
		return err
	}
	for name := range want {
		if name == "vx" {
			continue
		}
		if mode := testbed.XDPModeOf(links[name]); mode != r.Mode {
			return fmt.Errorf("port %s has an XDP program in mode %q, not %s", name, mode, r.Mode)
		}
	}
	return nil
}

// innerFlows make the inner bridge route: a table that checks where packets
// come from, and one that does the work of a FIB lookup, a TTL decrement, new
// MACs and a tunnel's end. The switch caches what comes of both as one flow.
func (r *ovsRun) innerFlows() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "table=0,ip,in_port=%d,actions=goto_table:1\n", ovsTunnel)
	for n, p := range r.i.Bed.Pods {
		fmt.Fprintf(&b, "table=0,ip,in_port=%d,nw_src=%s,actions=goto_table:1\n", n+1, p.Addr)
		fmt.Fprintf(&b, "table=1,ip,nw_dst=%s,actions=dec_ttl,set_field:%s->eth_src,set_field:%s->eth_dst,output:%d\n",
			p.Addr, testbed.GatewayMAC, p.MAC, n+1)
	}
	for _, p := range r.i.Bed.Peers {
		fmt.Fprintf(&b, "table=1,ip,nw_dst=%s,actions=dec_ttl,set_field:%s->eth_src,set_field:%s->eth_dst,set_field:%s->tun_dst,output:%d\n",
			p.CIDR, testbed.NodeVTEP, p.VTEP, p.Addr, ovsTunnel)
	}
	return b.Bytes()
}

// addFlows gives a bridge its flows, all at once.
func (r *ovsRun) addFlows(bridge string, flows []byte) error {
	file := r.path(bridge + ".flows")
	if err := os.WriteFile(file, flows, 0o600); err != nil {
		return err
	}
	_, err := r.run("ovs-ofctl", "-O", "OpenFlow13", "add-flows", "unix:"+r.path(bridge+".mgmt"), file)
	return err
}
