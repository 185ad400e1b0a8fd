package agent

import (
	"errors"
	"fmt"

	"culvert/ctrl/podlink"
	"culvert/ctrl/pods"
	"culvert/ctrl/program"
	"culvert/dataplane"
	"culvert/dataplane/xsk"
	"culvert/internal/packet"
)

// podPort is a pod's port in the engine.
type podPort struct {
	attach  *xsk.Attachment
	index   uint16
	ifindex int
}

// Attach implements pods.Attacher: program and sockets on the host's end of the
// pod's link, a port, and the routes to the pod.
func (a *Agent) Attach(rec pods.Record) (err error) {
	ifindex, ok, err := podlink.Find(rec.HostName)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("device %s of pod %s does not exist", rec.HostName, rec.Name())
	}
	mac, err := packet.ParseMAC(rec.MAC)
	if err != nil {
		return fmt.Errorf("pod %s: %w", rec.Name(), err)
	}
	at, err := xsk.AttachPod(ifindex, rec.HostName, xsk.Mode(a.cfg.XDP.Mode))
	if err != nil {
		return err
	}
	queues := max(rec.Queues, 1) // what the link was made with, which may not be the workers' number
	sockets, open := a.opener(ifindex, rec.HostName, queues)
	index, err := a.engine.AddPort(dataplane.PortSpec{
		Name: rec.HostName, Kind: dataplane.PortVeth, Ifindex: ifindex, MAC: dataplane.GatewayMAC, PeerMAC: mac,
		Addrs: rec.Addrs, MTU: rec.MTU, Queues: queues, XDPMode: string(at.Mode()),
	}, open)
	if err != nil {
		return errors.Join(err, at.Close())
	}
	if err := steerTo(at, sockets); err != nil {
		return errors.Join(err, a.engine.RemovePort(index), at.Close())
	}
	err = a.program.AddPod(program.Pod{Dev: rec.HostName, Port: index, MAC: mac, Addrs: rec.Addrs, MTU: rec.MTU})
	if err != nil {
		return errors.Join(err, a.engine.RemovePort(index), at.Close())
	}
	a.mu.Lock()
	a.ports[rec.HostName] = &podPort{attach: at, index: index, ifindex: ifindex}
	a.mu.Unlock()
	return nil
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
	return errors.Join(a.engine.RemovePort(p.index), p.attach.Close())
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
