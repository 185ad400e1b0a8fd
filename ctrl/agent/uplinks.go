package agent

import (
	"errors"
	"fmt"

	"culvert/ctrl/flavour"
	"culvert/ctrl/program"
	"culvert/ctrl/underlay"
	"culvert/dataplane"
	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"
)

// uplink is a NIC of the configuration. It is held while port is set.
type uplink struct {
	link   underlay.Link
	attach *xsk.Attachment
	port   uint16
	held   bool
	zero   bool  // zero-copy sockets
	err    error // why it is not held
}

// holdUplinks takes the uplinks that are there and not held, and lets go of
// those that are gone. What fails is kept for the status and tried again.
func (a *Agent) holdUplinks() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return
	}
	for _, l := range a.underlay.Uplinks() {
		u := a.uplinks[l.Name]
		if u == nil {
			u = &uplink{}
			a.uplinks[l.Name] = u
		}
		if u.held && u.link.Index != l.Index {
			a.log.Warn("uplink is gone", "uplink", l.Name)
			if err := a.release(u); err != nil {
				a.log.Error("letting go of an uplink", "uplink", l.Name, "cause", err)
			}
		}
		moved := u.link.MAC != l.MAC || u.link.MTU != l.MTU
		u.link = l
		switch {
		case l.Index == 0:
			u.err = fmt.Errorf("uplink %s does not exist", l.Name)
		case !u.held:
			before := u.err
			if u.err = a.hold(u); u.err != nil && (before == nil || before.Error() != u.err.Error()) {
				a.log.Error("uplink not taken", "uplink", l.Name, "cause", u.err)
				a.metrics.SyncError("underlay")
			}
		case moved:
			a.log.Info("uplink changed", "uplink", l.Name, "mac", l.MAC, "mtu", l.MTU)
		}
	}
}

// hold attaches the steering program, opens a socket for each worker's queue
// and makes it a port. a.mu is held.
func (a *Agent) hold(u *uplink) (err error) {
	l := u.link
	d := a.program.Desired()
	u.attach, err = xsk.AttachUplink(l.Index, l.Name, xsk.Mode(a.cfg.XDP.Mode), endpoints(d))
	if err != nil {
		return err
	}
	sockets, open := a.opener(l.Index, l.Name)
	u.port, err = a.engine.AddPort(dataplane.PortSpec{
		Name: l.Name, Kind: dataplane.PortUplink, Ifindex: l.Index, MAC: l.MAC, MTU: l.MTU, Queues: len(a.umems),
		XDPMode: string(u.attach.Mode()),
	}, open)
	if err != nil {
		return errors.Join(err, u.attach.Close())
	}
	if err := steerTo(u.attach, sockets); err != nil {
		return errors.Join(err, a.engine.RemovePort(u.port), u.attach.Close())
	}
	u.held, u.zero = true, sockets[0].ZeroCopy()
	a.program.SetUplink(program.Uplink{Ifindex: l.Index, Name: l.Name, Port: u.port})
	a.log.Info("uplink taken", "uplink", l.Name, "mode", u.attach.Mode(), "queues", len(a.umems), "zerocopy", u.zero)
	return nil
}

// opener is the callback that opens a device's sockets on the workers' memory,
// and where it leaves them.
func (a *Agent) opener(ifindex int, name string) ([]*xsk.Socket, func(worker, queue int) (frame.Device, error)) {
	sockets := make([]*xsk.Socket, len(a.umems))
	return sockets, func(worker, queue int) (frame.Device, error) {
		s, err := a.umems[worker].Open(xsk.SocketConfig{
			Ifindex: ifindex, Ifname: name, Queue: queue, RingSize: a.cfg.XDP.RingSize,
			ZeroCopy: a.cfg.XDP.ZeroCopy, SG: true,
		})
		if err != nil {
			return nil, err
		}
		sockets[queue] = s
		return s, nil
	}
}

// steerTo puts the sockets into the program's map: from here frames arrive.
func steerTo(at *xsk.Attachment, sockets []*xsk.Socket) error {
	for q, s := range sockets {
		if err := at.SetSocket(q, s); err != nil {
			return err
		}
	}
	return nil
}

// release gives an uplink back to the kernel, the sockets before the program:
// virtio-net of Linux 7.2 does not survive the other order. a.mu is held.
func (a *Agent) release(u *uplink) error {
	if !u.held {
		return nil
	}
	u.held = false
	if !a.stopping { // nobody is left to be told that the peers are out of reach
		a.program.RemoveUplink(u.link.Index)
	}
	return errors.Join(a.engine.RemovePort(u.port), u.attach.Close())
}

// uplinkErrors is why not one uplink could be taken: then there is no point in
// starting.
func (a *Agent) uplinkErrors() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, u := range a.uplinks {
		if u.held {
			return nil
		}
		errs = append(errs, u.err)
	}
	return errors.Join(errs...)
}

// steer tells the uplinks' programs which datagrams are ours.
func (a *Agent) steer(d *flavour.Desired) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, u := range a.uplinks {
		if !u.held {
			continue
		}
		if err := u.attach.SetEndpoints(endpoints(d)); err != nil {
			a.log.Error("the steering program could not be told the node's address", "uplink", name, "cause", err)
		}
	}
}

// endpoints are the node's own VTEPs, none while its address is not known.
func endpoints(d *flavour.Desired) []xsk.Endpoint {
	if d.Local == nil || !d.Local.PublicIP.IsValid() {
		return nil
	}
	return []xsk.Endpoint{{Addr: d.Local.PublicIP, Port: d.Port}}
}
