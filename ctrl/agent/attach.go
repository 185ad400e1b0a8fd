package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"culvert/ctrl/podlink"
	"culvert/ctrl/pods"
	"culvert/ctrl/program"
	"culvert/dataplane"
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/dataplane/tap"
	"culvert/internal/packet"
)

// podPort is a pod's port in the engine.
type podPort struct {
	attach  steering // nil on a TAP
	index   uint16
	ifindex int // on the node, 0 of a TAP
}

// close takes the port out of the engine, then its program.
func (p *podPort) close(e *dataplane.Engine) error {
	err := e.RemovePort(p.index)
	if p.attach != nil {
		err = errors.Join(err, p.attach.Close())
	}
	return err
}

// Attach implements pods.Attacher: a port on the pod's link, and the routes to
// the pod.
func (a *Agent) Attach(rec pods.Record) error {
	mac, err := packet.ParseMAC(rec.MAC)
	if err != nil {
		return fmt.Errorf("pod %s: %w", rec.Name(), err)
	}
	spec := dataplane.PortSpec{
		Name: rec.HostName, MAC: dataplane.GatewayMAC, PeerMAC: mac, Addrs: rec.Addrs, MTU: rec.MTU,
		Queues: max(rec.Queues, 1), // a veth's are what it was made with, which may not be the workers' number
	}
	a.tune(&rec)
	var p *podPort
	if rec.Kind == podlink.TAP {
		p, err = a.addTAP(&rec, spec)
	} else {
		spec.Ifindex = rec.Ifindex
		p, err = a.addVeth(spec)
	}
	if err != nil {
		return err
	}
	ports := portMappings(&rec)
	err = a.program.AddPod(program.Pod{Dev: rec.HostName, Port: p.index, MAC: mac, Addrs: rec.Addrs, MTU: rec.MTU, Ports: ports})
	if err != nil {
		return errors.Join(err, p.close(a.engine))
	}
	if len(ports) > 0 {
		a.mapPorts(&rec, ports)
	}
	a.mu.Lock()
	a.ports[rec.HostName] = p
	a.mu.Unlock()
	return nil
}

// tune prepares a pod's link for what the dataplane takes from it and sends to it.
// A pod whose link cannot be tuned works all the same, if slower.
func (a *Agent) tune(rec *pods.Record) {
	size := legacyGSO
	if a.intake != nil && a.cfg.XDP.FrameSize == 4096 { // what frame.MaxChunks chunks hold
		size = bigGSO
	}
	if err := podlink.Tune(rec.Link(), size, a.intake != nil); err != nil {
		a.log.Warn("the pod's link cannot be tuned: bulk traffic may be slower", "pod", rec.Name(), "cause", err)
	}
}

// The longest GSO frames of pods' veths, in bytes.
const (
	legacyGSO = 65536                               // GSO_LEGACY_MAX_SIZE
	bigGSO    = frame.MaxBytes - packet.EthernetLen // with BIG TCP
)

// addTAP opens the queues of a pod's TAP, in the pod's namespace: they work from
// everywhere afterwards, and keep the namespace until they are closed.
func (a *Agent) addTAP(rec *pods.Record, spec dataplane.PortSpec) (*podPort, error) {
	ns, err := podlink.OpenNetns(rec.Netns)
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", rec.Name(), err)
	}
	defer ns.Close()
	spec.Kind = dataplane.PortTAP
	index, err := a.engine.AddPort(spec, func(worker, queue int) (dev frame.Device, err error) {
		err = ns.Do(func() error {
			q, err := tap.Open(rec.IfName, a.engine.Pool(worker), queue == 0)
			if err == nil {
				dev = q
			}
			return err
		})
		return dev, err
	})
	if err != nil {
		return nil, err
	}
	return &podPort{index: index}, nil
}

// Detach implements pods.Attacher: the routes first, then port and sockets, then
// the program.
func (a *Agent) Detach(rec pods.Record) error {
	a.mu.Lock()
	p := a.ports[rec.HostName]
	delete(a.ports, rec.HostName)
	a.mu.Unlock()
	if p == nil {
		return nil
	}
	a.program.RemovePod(rec.HostName)
	err := p.close(a.engine)
	a.forgetFlows(rec.Addrs)
	a.unmapPorts(&rec)
	return err
}

// forgetFlows ends the flows of a pod that is gone: the next pod with its address
// begins anew. An agent that stops forgets them all.
func (a *Agent) forgetFlows(addrs []netip.Addr) {
	a.mu.Lock()
	stopping := a.stopping
	a.mu.Unlock()
	if stopping {
		return
	}
	pod := make([]packet.Addr, len(addrs))
	for i, addr := range addrs {
		pod[i] = packet.AddrFrom(addr)
	}
	a.engine.FlowTable().Forget(func(v *flow.View) bool {
		return slices.ContainsFunc(pod, func(p packet.Addr) bool {
			return v.Orig.Src == p || v.Orig.Dst == p || v.Reply.Src == p || v.Reply.Dst == p
		})
	})
}

// linkGone follows the removal of a device: a pod's, or none of our business.
func (a *Agent) linkGone(ifindex int) {
	a.mu.Lock()
	ours := false
	for _, p := range a.ports {
		ours = ours || p.ifindex == ifindex
	}
	a.mu.Unlock()
	if ours {
		a.pods.LinkGone(ifindex)
	}
}
