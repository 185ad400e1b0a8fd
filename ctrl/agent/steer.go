package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"culvert/ctrl/underlay"
	"culvert/dataplane"
	"culvert/dataplane/frame"
	"culvert/dataplane/intake"
	"culvert/dataplane/mixed"
	"culvert/dataplane/psock"
	"culvert/dataplane/tap"
	"culvert/dataplane/xsk"
)

// steering is the program on a device that brings its frames to the workers.
type steering interface{ Close() error }

// uplinkSteering can be told which frames are ours.
type uplinkSteering interface {
	steering
	SetEndpoints([]xsk.Endpoint) error
	SetPrefixes([]netip.Prefix) error
	SetOwnPorts(xsk.OwnPorts) error
}

// held is what an uplink is to the engine.
type held struct {
	attach   uplinkSteering
	port     uint16
	mode     xsk.Mode
	zeroCopy bool
}

// opens makes the device of one queue of a port: the callback of Engine.AddPort.
type opens func(worker, queue int) (frame.Device, error)

// openIntake makes the node's intake and gives every worker its end. Where the
// kernel has none, devices are attached to one by one, in generic mode.
func (a *Agent) openIntake(workers int) error {
	if mode := xsk.Mode(a.cfg.XDP.Mode); mode != "" && mode != xsk.ModeAuto {
		return nil // somebody wants it otherwise
	}
	cfg := intake.Config{Workers: workers, RingSize: min(dataplane.SharedRings*a.cfg.XDP.RingSize, 32768), Umems: a.umems}
	for w := range workers {
		cfg.Pools = append(cfg.Pools, a.engine.Pool(w))
	}
	in, err := intake.New(cfg)
	if err != nil {
		a.log.Warn("no shared intake: XDP programs are attached in generic mode, and bulk TCP is slower", "cause", err)
		return nil
	}
	_, err = a.engine.AddPort(dataplane.PortSpec{Name: "intake", Kind: dataplane.PortIntake, Queues: workers},
		func(worker, _ int) (frame.Device, error) { return in.Queue(worker), nil })
	if err != nil {
		return errors.Join(err, in.Close())
	}
	a.intake = in
	return nil
}

// opener opens a device's sockets on the workers' memory, and leaves them where they
// can be found, by queue. A worker may have several queues, or none.
func (a *Agent) opener(ifindex int, name string, queues int, zeroCopy string) ([]*xsk.Socket, opens) {
	sockets := make([]*xsk.Socket, queues)
	return sockets, func(worker, queue int) (frame.Device, error) {
		s, err := a.umems[worker].Open(xsk.SocketConfig{
			Ifindex: ifindex, Ifname: name, Queue: queue, RingSize: a.cfg.XDP.RingSize, ZeroCopy: zeroCopy, SG: true,
		})
		if err != nil {
			return nil, err
		}
		sockets[queue] = s
		return s, nil
	}
}

// byIntake is a port whose frames arrive by the intake: what that refuses of them is
// counted at the port.
type byIntake struct {
	at atomic.Pointer[intake.Attachment]
}

func (b *byIntake) stats(s *frame.DeviceStats) {
	if at := b.at.Load(); at != nil {
		at.Stats(s)
	}
}

// besides gives sockets in copy mode a way for big frames beside them. With by, the
// port's frames arrive by the intake, at any worker: one for which the device
// has no queue, and so no socket, sends all its frames the big way.
func (a *Agent) besides(sockets []*xsk.Socket, open opens, by *byIntake, way func(pool *frame.Pool) (mixed.Big, error)) opens {
	return func(worker, queue int) (frame.Device, error) {
		pool := a.engine.Pool(worker)
		if queue >= len(sockets) {
			big, err := way(pool)
			if err != nil {
				return nil, err
			}
			return mixed.NewAlone(big, pool), nil
		}
		dev, err := open(worker, queue)
		if err != nil || sockets[queue].ZeroCopy() {
			return dev, err
		}
		big, err := way(pool)
		if err != nil {
			return nil, errors.Join(err, dev.Close())
		}
		both, err := mixed.New(sockets[queue], big, pool, by != nil)
		if err != nil {
			return nil, errors.Join(err, big.Close(), dev.Close())
		}
		if by != nil && queue == 0 { // the counters are the port's, for all of its queues
			both.CountAlso(by.stats)
		}
		return both, nil
	}
}

// uplinkWay is the way of an uplink's big frames, so that the kernel or the NIC
// cuts them: in VXLAN by a TAP, plain ones by a packet socket. A kernel that
// takes no big frames in tunnels, and a NIC that queues, leave those to be cut here.
func (a *Agent) uplinkWay(l underlay.Link) func(*frame.Pool) (mixed.Big, error) {
	return func(pool *frame.Pool) (mixed.Big, error) {
		plain, err := psock.OpenSender(l.Name, l.Index, pool)
		if err != nil {
			return nil, err
		}
		tunnelled, err := tap.OpenUplink(l.Name, l.Index, pool)
		if errors.Is(err, tap.ErrNoTunnelGSO) || errors.Is(err, tap.ErrQueues) {
			a.log.Info("big frames are cut here", "uplink", l.Name, "cause", err)
			return plain, nil
		}
		if err != nil {
			return nil, errors.Join(err, plain.Close())
		}
		return mixed.Split(tunnelled, plain), nil
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

// addUplink makes an uplink a port, its frames steered by a native XDP program, or,
// where the device has none worth having, by way of the intake.
func (a *Agent) addUplink(l underlay.Link) (held, error) {
	if a.cfg.XDP.ZeroCopy == xsk.ZeroCopyOn {
		return a.addUplinkZeroCopy(l)
	}
	if a.intake != nil && l.Kind == "veth" { // native mode would take segmentation offload from whoever is at the other end
		return a.addUplinkToIntake(l)
	}
	mode := xsk.Mode(a.cfg.XDP.Mode)
	if a.intake != nil {
		mode = xsk.ModeNative
	}
	h, err := a.addUplinkWithXDP(l, mode)
	if err != nil && a.intake != nil {
		a.log.Info("no native XDP", "uplink", l.Name, "cause", err)
		return a.addUplinkToIntake(l)
	}
	return h, err
}

// addUplinkZeroCopy is addUplink where zero copy is demanded: no other way will do.
// A driver that says that it has none is left as it is: a native program alone would
// reset a NIC, or take segmentation offload from a veth's other end.
func (a *Agent) addUplinkZeroCopy(l underlay.Link) (h held, err error) {
	if err = xsk.CheckZeroCopy(l.Index); err == nil {
		h, err = a.addUplinkWithXDP(l, xsk.ModeNative)
	}
	if err != nil {
		return held{}, a.cfg.Errorf("xdp.zeroCopy", "on is not to be had on uplink %s: %v", l.Name, err)
	}
	return h, nil
}

func (a *Agent) uplinkSpec(l underlay.Link, mode xsk.Mode) dataplane.PortSpec {
	return dataplane.PortSpec{Name: l.Name, Kind: dataplane.PortUplink, Ifindex: l.Index, MAC: l.MAC, MTU: l.MTU,
		Queues: max(l.Queues, 1), XDPMode: string(mode)}
}

func (a *Agent) addUplinkToIntake(l underlay.Link) (held, error) {
	spec := a.uplinkSpec(l, xsk.ModeGeneric)
	sockets, open := a.opener(l.Index, l.Name, spec.Queues, xsk.ZeroCopyOff)
	spec.Queues = max(spec.Queues, len(a.umems))
	by := &byIntake{}
	port, err := a.engine.AddPort(spec, a.besides(sockets, open, by, a.uplinkWay(l)))
	if err != nil {
		return held{}, err
	}
	at, err := a.intake.AttachUplink(l.Index, l.Name, port, endpoints(a.program.Desired()))
	if err != nil {
		return held{}, errors.Join(err, a.engine.RemovePort(port))
	}
	by.at.Store(at)
	return held{attach: at, port: port, mode: xsk.ModeGeneric}, nil
}

func (a *Agent) addUplinkWithXDP(l underlay.Link, mode xsk.Mode) (held, error) {
	if mode != xsk.ModeGeneric {
		switch err := checkSpareQueues(l.Name); {
		case err == nil:
		case mode == xsk.ModeNative:
			return held{}, fmt.Errorf("native mode: %w", err)
		default:
			a.log.Info("no native XDP", "uplink", l.Name, "cause", err)
			mode = xsk.ModeGeneric
		}
	}
	at, err := xsk.AttachUplink(l.Index, l.Name, mode, endpoints(a.program.Desired()))
	if err != nil {
		return held{}, err
	}
	spec := a.uplinkSpec(l, at.Mode())
	sockets, open := a.opener(l.Index, l.Name, spec.Queues, a.cfg.XDP.ZeroCopy)
	spec.Queues = max(spec.Queues, len(a.umems))
	port, err := a.engine.AddPort(spec, a.besides(sockets, open, nil, a.uplinkWay(l)))
	if err != nil {
		return held{}, errors.Join(err, at.Close())
	}
	if err := steerTo(at, sockets); err != nil {
		return held{}, errors.Join(err, a.engine.RemovePort(port), at.Close())
	}
	return held{attach: at, port: port, mode: at.Mode(), zeroCopy: sockets[0].ZeroCopy()}, nil
}

// addVeth makes a pod's veth a port: its frames come by the intake, or, where that
// is not wanted or not to be had, by an XDP program of its own.
func (a *Agent) addVeth(spec dataplane.PortSpec) (p *podPort, err error) {
	spec.Kind = dataplane.PortVeth
	if a.intake == nil {
		return a.addVethWithXDP(spec)
	}
	spec.XDPMode = string(xsk.ModeGeneric)
	sockets, open := a.opener(spec.Ifindex, spec.Name, spec.Queues, xsk.ZeroCopyOff)
	spec.Queues = max(spec.Queues, len(a.umems))
	p = &podPort{ifindex: spec.Ifindex}
	by := &byIntake{}
	p.index, err = a.engine.AddPort(spec, a.besides(sockets, open, by, func(pool *frame.Pool) (mixed.Big, error) {
		return psock.OpenSender(spec.Name, spec.Ifindex, pool)
	}))
	if err != nil {
		return nil, err
	}
	at, err := a.intake.AttachPod(spec.Ifindex, spec.Name, p.index, spec.PeerMAC)
	if err != nil {
		return nil, errors.Join(err, p.close(a.engine))
	}
	by.at.Store(at)
	p.attach = at
	return p, nil
}

func (a *Agent) addVethWithXDP(spec dataplane.PortSpec) (*podPort, error) {
	if err := intake.TakeOff(spec.Ifindex); err != nil { // it drops what goes past XDP
		return nil, err
	}
	at, err := xsk.AttachPod(spec.Ifindex, spec.Name, xsk.Mode(a.cfg.XDP.Mode))
	if err != nil {
		return nil, err
	}
	sockets, open := a.opener(spec.Ifindex, spec.Name, spec.Queues, xsk.ZeroCopyOff)
	spec.XDPMode = string(at.Mode())
	p := &podPort{attach: at, ifindex: spec.Ifindex}
	if p.index, err = a.engine.AddPort(spec, open); err != nil {
		return nil, errors.Join(err, at.Close())
	}
	if err := steerTo(at, sockets); err != nil {
		return nil, errors.Join(err, p.close(a.engine))
	}
	return p, nil
}
