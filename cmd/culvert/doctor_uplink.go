package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/probe"
)

// overhead is what the encapsulation adds to a packet, over an IPv4 underlay.
var overhead = map[string]int{"vxlan": 50, "ipip": 20}

// checkUplinks checks the devices that tunnel packets leave by. encap and
// podMTU are empty and 0 when there is no agent to say them.
func (m *machine) checkUplinks(uplinks []api.Uplink, encap string, podMTU int) []finding {
	if len(uplinks) == 0 {
		return []finding{{"uplink", stateFail, "none: no device has a default route",
			"set 'uplinks' in the configuration"}}
	}
	var all []finding
	for i := range uplinks {
		all = append(all, checkUplink(&uplinks[i], encap, podMTU)...)
		if m.elsewhere == "" {
			all = append(all, m.checkDevice(&uplinks[i])...)
		}
	}
	if m.elsewhere != "" {
		all = append(all, finding{"uplink", stateWarn, "the agent runs in another network namespace: its devices were not looked at",
			"nsenter --net=" + m.elsewhere + " culvert doctor"})
	}
	return all
}

// checkUplink checks what the agent, or defaultUplinks, says of an uplink.
func checkUplink(u *api.Uplink, encap string, podMTU int) []finding {
	check := "uplink " + u.Name
	all := []finding{{check, stateOK, fmt.Sprintf("%s, mtu %d", u.State, u.MTU), ""}}
	if u.State == "DOWN" {
		all[0].State, all[0].Advice = stateFail, "ip link set "+u.Name+" up"
	}
	if need := podMTU + overhead[encap]; need > u.MTU {
		all = append(all, finding{check, stateFail,
			fmt.Sprintf("pod packets of %d bytes become %d, more than the uplink's mtu %d", podMTU, need, u.MTU),
			fmt.Sprintf("set 'mtu' to %d or less", u.MTU-overhead[encap])})
	}
	return all
}

// checkDevice checks what only the kernel says of an uplink.
func (m *machine) checkDevice(u *api.Uplink) []finding {
	check := "uplink " + u.Name
	if !m.exists("sys/class/net/" + u.Name) {
		return []finding{{check, stateFail, "there is no such device", "correct 'uplinks' in the configuration"}}
	}
	var all []finding
	nic, err := m.look(u.Name)
	if err != nil {
		return []finding{{check, stateFail, err.Error(), ""}}
	}
	all = append(all, finding{check, stateOK, describeNIC(nic), ""})
	if nic.Program != 0 && u.XDPMode == "" { // an agent that holds the device has its own there
		all = append(all, finding{check, stateFail, fmt.Sprintf("XDP program %d of somebody else is on the device", nic.Program),
			"a device has one: see 'bpftool net', and end its owner or 'ip link set dev " + u.Name + " xdp off'"})
	}
	if u.XDPMode == "generic" && m.exists("sys/class/net/"+u.Name+"/device") && (nic.NativeXDP || !nic.XDPKnown) {
		all = append(all, finding{check, stateWarn, "xdp mode generic on a real NIC",
			"its driver refused native XDP, or xdp.mode says generic: see the log of culvertd; jumbo frames and LRO are the usual reasons"})
	}
	if m.strictReversePath(u.Name) {
		all = append(all, finding{check, stateWarn, "rp_filter is strict",
			"with several uplinks the kernel drops what answers by another one: sysctl -w net.ipv4.conf." + u.Name + ".rp_filter=2"})
	}
	return all
}

// describeNIC is driver, queues and ways of XDP.
func describeNIC(n probe.NIC) string {
	text := "driver " + orNA(n.Driver)
	if n.MaxQueues > 0 {
		text += fmt.Sprintf(", %d of %d queues", n.Queues, n.MaxQueues)
	}
	switch {
	case !n.XDPKnown:
		return text + ", the kernel does not tell what XDP it has"
	case n.ZeroCopy:
		return text + ", native XDP with zero copy"
	case n.NativeXDP:
		return text + ", native XDP"
	}
	return text + ", no native XDP: frames are taken by tcx"
}

// strictReversePath follows the kernel: the larger of all and the device's own.
func (m *machine) strictReversePath(name string) bool {
	most := 0
	for _, dev := range []string{"all", name} {
		n, _ := strconv.Atoi(m.read("proc/sys/net/ipv4/conf/" + dev + "/rp_filter"))
		most = max(most, n)
	}
	return most == 1
}

// defaultUplinks are the devices of IPv4 default routes: what an agent would
// take unless told otherwise.
func (m *machine) defaultUplinks() []api.Uplink {
	var uplinks []api.Uplink
	lines := bufio.NewScanner(strings.NewReader(m.read("proc/net/route")))
	for lines.Scan() {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" ||
			slices.ContainsFunc(uplinks, func(u api.Uplink) bool { return u.Name == f[0] }) {
			continue
		}
		dir := "sys/class/net/" + f[0] + "/"
		mtu, _ := strconv.Atoi(m.read(dir + "mtu"))
		uplinks = append(uplinks, api.Uplink{Name: f[0], MTU: mtu, State: strings.ToUpper(m.read(dir + "operstate"))})
	}
	return uplinks
}

// otherNamespace is the path of the network namespace that the agent behind
// socket runs in, empty when it is ours or cannot be told.
func otherNamespace(socket string) string {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ""
	}
	var peer *syscall.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || peerErr != nil {
		return ""
	}
	path := fmt.Sprintf("/proc/%d/ns/net", peer.Pid)
	theirs, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	if ours, err := os.Readlink("/proc/self/ns/net"); err != nil || ours == theirs {
		return ""
	}
	return path
}
