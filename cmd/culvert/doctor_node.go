package main

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"culvert/ctrl/api"
	"culvert/ctrl/cniconf"
	"culvert/internal/probe"
)

// checkForwarding: kube-proxy on the node sends to pods what comes for Services.
func (m *machine) checkForwarding(s *api.Status) []finding {
	v := m.read("proc/sys/net/ipv4/ip_forward")
	switch {
	case v != "0":
		return []finding{{"ip_forward", stateOK, "the node forwards", ""}}
	case s == nil:
		return []finding{{"ip_forward", stateOK, "off; culvertd switches it on", ""}}
	}
	return []finding{{"ip_forward", stateFail, "off: what comes to the node for Services does not get to pods",
		"sysctl -w net.ipv4.ip_forward=1, and see what switched it off: culvertd does so at its start (/etc/sysctl.d)"}}
}

// checkPorts: the ports that pods leave the cluster by are not to be chosen by the node's
// own stack.
func (m *machine) checkPorts(ours string) []finding {
	var low, high, first, last int
	if n, _ := fmt.Sscanf(ours, "%d-%d", &low, &high); n != 2 {
		return nil
	}
	chosen := m.read("proc/sys/net/ipv4/ip_local_port_range")
	if n, _ := fmt.Sscan(chosen, &first, &last); n != 2 || last < low || high < first {
		return []finding{{"nat ports", stateOK, ours + ", which the node does not choose of", ""}}
	}
	if reserved(m.read("proc/sys/net/ipv4/ip_local_reserved_ports"), max(low, first), min(high, last)) {
		return []finding{{"nat ports", stateOK, ours + ", reserved", ""}}
	}
	return []finding{{"nat ports", stateWarn, fmt.Sprintf("the node chooses its own ports from %d to %d, and pods leave the cluster by %s", first, last, ours),
		"sysctl -w net.ipv4.ip_local_reserved_ports=" + ours + ", or set nat.ports to others: a connection of both would be one"}}
}

// reserved reports whether a list such as 80,6000-6010 has all ports from low to high in one
// of its ranges.
func reserved(list string, low, high int) bool {
	for part := range strings.SplitSeq(list, ",") {
		var from, to int
		if n, _ := fmt.Sscanf(part, "%d-%d", &from, &to); n == 2 && from <= low && high <= to {
			return true
		}
	}
	return false
}

// otherNetworks are devices of other network agents, by pattern.
var otherNetworks = []struct{ pattern, owner string }{
	{"flannel.*", "flannel"}, {"flannel-v6.*", "flannel"}, {"cni0", "flannel or another bridge"}, {"vxlan.calico", "Calico"}, {"vxlan-v6.calico", "Calico"},
	{"cali*", "Calico"}, {"cilium_*", "Cilium"}, {"lxc_health", "Cilium"}, {"weave", "Weave Net"}, {"antrea-gw0", "Antrea"}, {"ovn-k8s-mp0", "OVN-Kubernetes"}, {"kube-bridge", "kube-router"},
}

// checkDevices finds devices of other network agents on the node.
func (m *machine) checkDevices(s *api.Status) (all []finding) {
	devices, err := m.devices()
	if err != nil {
		return []finding{{"other networks", stateWarn, err.Error(), ""}}
	}
	owners := map[string][]string{}
	var order []string
	for _, d := range devices {
		if sameTunnel(&d, s) {
			all = append(all, finding{"other networks", stateFail, fmt.Sprintf("%s is a VXLAN device of the same VNI %d and port %d", d.Name, d.VNI, d.Port),
				"two ends of one tunnel on a node: end its owner, then 'ip link del " + d.Name + "'"})
			continue
		}
		owner := ownerOf(d.Name, s)
		if owner == "" {
			continue
		}
		if owners[owner] == nil {
			order = append(order, owner)
		}
		owners[owner] = append(owners[owner], d.Name)
	}
	for _, owner := range order {
		names := owners[owner]
		all = append(all, finding{"other networks", stateWarn, owner + " is or was here: " + shortList(names, 4),
			"a node has one network: remove " + owner + " from it and restart its pods, then 'ip link del " + names[0] + "' and the like, or reboot"})
	}
	if all == nil {
		return []finding{{"other networks", stateOK, "no devices of others", ""}}
	}
	return all
}

// sameTunnel reports whether a device has the tunnel that the agent has.
func sameTunnel(d *probe.Device, s *api.Status) bool {
	return d.Kind == "vxlan" && s != nil && s.VTEP != nil && s.VTEP.VNI != 0 && d.VNI == int(s.VTEP.VNI) && d.Port == int(s.VTEP.Port)
}

// ownerOf is whose a device is by its name; empty: nobody's, or ours. In calico mode the
// pods' devices are called as Calico's.
func ownerOf(name string, s *api.Status) string {
	for _, o := range otherNetworks {
		if ok, _ := path.Match(o.pattern, name); ok && (o.pattern != "cali*" || s == nil || s.Mode != "calico") {
			return o.owner
		}
	}
	return ""
}

// shortList is the first words of many.
func shortList(words []string, most int) string {
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
}

// checkCNI looks at what the container runtime is told.
func (m *machine) checkCNI(e *examined) []finding {
	dir := filepath.Join(m.root, e.confDir)
	others, err := cniconf.Others(dir, "")
	if err != nil {
		return []finding{{"cni", stateWarn, err.Error(), "in a container, mount the node's " + defaultConfDir + "; --cni-conf-dir says where"}}
	}
	missing := e.conf != "" && e.status != nil && e.status.Ready
	for _, o := range others {
		missing = missing && o.Name != e.conf
	}
	switch {
	case missing:
		return []finding{{"cni", stateFail, fmt.Sprintf("%s has no %s, although the agent is ready", e.confDir, e.conf), "'culvert status' says why"}}
	case len(others) == 0 && e.status == nil:
		return []finding{{"cni", stateOK, e.confDir + " is empty", ""}}
	case len(others) == 0:
		return []finding{{"cni", stateWarn, e.confDir + " is empty: the container runtime knows no network", "set cni.confDir, or put a configuration of type culvert-cni there"}}
	case others[0].Ours:
		return []finding{{"cni", stateOK, "the container runtime takes " + others[0].Name, ""}}
	case e.status == nil:
		return []finding{{"cni", stateWarn, "the node has a network: " + filepath.Join(e.confDir, others[0].Name),
			"remove it when Culvert takes over: the container runtime takes the first file by name"}}
	}
	return []finding{{"cni", stateFail, "the container runtime takes " + filepath.Join(e.confDir, others[0].Name) + ", which is not Culvert's",
		"remove it: new pods get another network as long as it is there"}}
}
