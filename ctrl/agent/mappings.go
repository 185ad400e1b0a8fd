package agent

import (
	"net/netip"
	"slices"

	"culvert/ctrl/pods"
	"culvert/ctrl/program"
	"culvert/dataplane/flow"
	"culvert/internal/packet"
)

// portMappings are the ports of the node that lead to a pod, as the tables have them.
func portMappings(rec *pods.Record) (all []program.PortMapping) {
	protos := map[string]uint8{"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "sctp": packet.ProtoSCTP}
	for _, m := range rec.PortMappings {
		addr, _ := netip.ParseAddr(m.HostIP) // the manager has looked at it; empty is every one
		all = append(all, program.PortMapping{Proto: protos[m.Protocol], Port: m.HostPort, ToPort: m.ContainerPort, Addr: addr})
	}
	return all
}

// mapPorts makes a pod's mapped ports known where frames come from, once the tables have
// them. Who has been talking to the node by them before begins anew.
func (a *Agent) mapPorts(rec *pods.Record, ports []program.PortMapping) {
	node := a.program.Snapshot().Node()
	known := node.Addr4 != (packet.Addr{}) || node.Addr6 != (packet.Addr{})
	for i, m := range ports {
		if known && m.Addr.IsValid() && !m.Addr.IsUnspecified() && node.Addr4 != packet.AddrFrom(m.Addr) && node.Addr6 != packet.AddrFrom(m.Addr) {
			a.log.Warn("a port mapping leads nowhere: it is not for the node's address in the cluster",
				"pod", rec.Name(), "mapping", rec.PortMappings[i].String(), "node", node.Addr4, "node6", node.Addr6)
		}
	}
	a.steer(true)
	a.engine.FlowTable().Forget(func(v *flow.View) bool {
		return v.Orig == v.Reply.Reverse() && (v.Orig.Dst == node.Addr4 || v.Orig.Dst == node.Addr6) &&
			slices.ContainsFunc(ports, func(m program.PortMapping) bool { return m.Proto == v.Orig.Proto && m.Port == v.Orig.DstPort })
	})
}

// unmapPorts gives a pod's mapped ports back to the node, once the tables have them no more. An
// agent that stops leaves its uplinks as they are until it lets go of them.
func (a *Agent) unmapPorts(rec *pods.Record) {
	a.mu.Lock()
	stopping := a.stopping
	a.mu.Unlock()
	if !stopping && len(rec.PortMappings) > 0 {
		a.steer(true)
	}
}
