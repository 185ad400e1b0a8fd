package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"culvert/ctrl/flavour"
	"culvert/ctrl/program"
	"culvert/ctrl/underlay"
	"culvert/dataplane/xsk"
	"culvert/fib"
	"culvert/internal/packet"
)

// uplink is a NIC of the configuration. Its fields are written with both
// a.holding and a.mu held; either is enough to read them.
type uplink struct {
	held                // valid if taken
	link  underlay.Link // as it was looked at last
	taken bool
	err   error     // why it is not taken
	tried time.Time // when that was
	deaf  error     // why its program was not told the node's address
	slow  string    // why the kernel does not merge its segments, as it was logged
	// merging is what the status says of that; nil where the kernel cannot.
	merging *bool
}

// holdAgain is how long an uplink that could not be taken is left alone.
const holdAgain = 2 * time.Second

// due says what there is to do about an uplink that is now l. What a port was
// made with does not change: an uplink with another MAC, MTU or number of queues
// is let go of and taken again.
func (u *uplink) due(l underlay.Link, now time.Time) (release, hold bool) {
	same := u.link.Index == l.Index
	release = u.taken && (!same || u.link.MAC != l.MAC || u.link.MTU != l.MTU || u.link.Queues != l.Queues)
	switch {
	case l.Index == 0:
		return release, false
	case u.taken:
		return release, release
	case same && u.err != nil:
		return release, now.Sub(u.tried) >= holdAgain
	}
	return release, true
}

// holdUplinks takes the uplinks that are there and not held, and lets go of
// those that are gone or are not what they were. What fails is kept for the
// status; the answer is whether there is something to try again after holdAgain.
func (a *Agent) holdUplinks() (again bool) {
	a.holding.Lock()
	defer a.holding.Unlock()
	for _, l := range a.underlay.Uplinks() {
		a.mu.Lock()
		u := a.uplinks[l.Name]
		if u == nil {
			u = &uplink{}
			a.uplinks[l.Name] = u
		}
		stopping := a.stopping
		a.mu.Unlock()
		if stopping {
			return false
		}
		release, hold := u.due(l, time.Now())
		if release {
			if hold && u.link.Index == l.Index {
				a.log.Info("uplink changed", "uplink", l.Name, "mac", l.MAC, "mtu", l.MTU, "queues", l.Queues)
			} else {
				a.log.Warn("uplink is gone", "uplink", l.Name)
			}
			if err := a.release(u); err != nil {
				a.log.Error("letting go of an uplink", "uplink", l.Name, "cause", err)
			}
		}
		a.mu.Lock()
		u.link = l
		if l.Index == 0 {
			u.err = fmt.Errorf("uplink %s does not exist", l.Name)
		}
		a.mu.Unlock()
		if hold {
			a.tryHold(u)
		}
		again = again || !u.taken && l.Index != 0
	}
	return again
}

// tryHold takes an uplink, or keeps why not. a.holding is held.
func (a *Agent) tryHold(u *uplink) {
	before, err := u.err, a.hold(u)
	a.mu.Lock()
	u.err, u.tried = err, time.Now()
	a.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		a.log.Error("uplink not taken", "uplink", u.link.Name, "cause", err)
		a.metrics.SyncError("underlay")
	}
}

// hold makes an uplink a port, and its frames arrive. a.holding is held.
func (a *Agent) hold(u *uplink) error {
	l := u.link
	h, err := a.addUplink(l)
	if err != nil {
		return err
	}
	a.mu.Lock()
	u.held, u.taken, u.deaf = h, true, nil
	a.mu.Unlock()
	a.program.SetUplink(program.Uplink{Ifindex: l.Index, Name: l.Name, Port: h.port})
	a.log.Info("uplink taken", "uplink", l.Name, "mode", h.mode, "queues", max(l.Queues, 1), "zerocopy", h.zeroCopy)
	a.tellMerging(u)
	return nil
}

// tellMerging tells why an uplink's bulk TCP comes in single segments, if it does
// and could come merged. a.holding is held.
func (a *Agent) tellMerging(u *uplink) {
	m, ok := u.attach.(interface{ Merging() error })
	if !ok {
		return
	}
	why, before := "", u.slow
	if err := m.Merging(); err != nil {
		why = err.Error()
	}
	if why != "" && why != before {
		a.log.Warn("the kernel does not merge what this uplink receives: bulk TCP is slower", "uplink", u.link.Name, "cause", why)
	}
	merging := why == ""
	a.mu.Lock()
	u.slow, u.merging = why, &merging
	a.mu.Unlock()
}

// release gives an uplink back to the kernel, the sockets before the program:
// virtio-net of Linux 7.2 does not survive the other order. a.holding is held.
func (a *Agent) release(u *uplink) error {
	if !u.taken {
		return nil
	}
	a.mu.Lock()
	u.taken = false
	stopping := a.stopping
	a.mu.Unlock()
	if !stopping { // nobody is left to be told that the peers are out of reach
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
		if u.taken {
			return nil
		}
		errs = append(errs, u.err)
	}
	return errors.Join(errs...)
}

// steer tells the uplinks' programs which datagrams are ours: all of them, or
// those alone that could not be told before. A failure is kept for the status.
func (a *Agent) steer(all bool) {
	a.holding.Lock()
	defer a.holding.Unlock()
	d := a.program.Desired() // with holding: an uplink taken later asks anew
	mappings := a.program.Snapshot().Node().Mappings
	a.mu.Lock()
	uplinks := maps.Clone(a.uplinks)
	a.mu.Unlock()
	for name, u := range uplinks {
		if !u.taken || !all && u.deaf == nil {
			continue
		}
		err := errors.Join(u.attach.SetEndpoints(endpoints(d)), u.attach.SetPrefixes(prefixes(d)), u.attach.SetOwnPorts(ownPorts(d, mappings)))
		if before := u.deaf; err != nil && (before == nil || before.Error() != err.Error()) {
			a.log.Error("the steering program could not be told the node's address", "uplink", name, "cause", err)
			a.metrics.SyncError("underlay")
		}
		a.mu.Lock()
		u.deaf = err
		a.mu.Unlock()
		a.tellMerging(u)
	}
}

// endpoints are the ends of the node's own tunnels, none while its address is not known.
func endpoints(d *flavour.Desired) []xsk.Endpoint {
	if d.Local == nil || !d.Local.PublicIP.IsValid() {
		return nil
	}
	var all []xsk.Endpoint
	if d.Takes(flavour.VXLAN) {
		all = append(all, xsk.Endpoint{Addr: d.Local.PublicIP, Port: d.Port})
		if d.Local.V6 != nil {
			all = append(all, xsk.Endpoint{Addr: d.Local.V6.PublicIP, Port: d.Port})
		}
	}
	if d.Takes(flavour.IPIP) && d.Local.PublicIP.Is4() {
		all = append(all, xsk.Endpoint{Addr: d.Local.PublicIP})
	}
	return all
}

// ownPorts are the ports of the node's own addresses by which pods leave the cluster, and
// those that lead to pods.
func ownPorts(d *flavour.Desired, mappings []fib.PortMapping) (own xsk.OwnPorts) {
	leaving := d.NAT.High != 0 && len(d.NAT.Sources) > 0
	if d.Local == nil || !leaving && len(mappings) == 0 {
		return own
	}
	for _, v6 := range []bool{false, true} {
		if a := d.Local.Endpoint(v6).PublicIP; a.IsValid() {
			own.Addrs = append(own.Addrs, a)
		}
	}
	if leaving {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP} {
			own.Ranges = append(own.Ranges, xsk.PortRange{Proto: proto, Low: d.NAT.Low, High: d.NAT.High})
		}
	}
	for _, m := range mappings {
		own.Ranges = append(own.Ranges, xsk.PortRange{Proto: m.Proto, Low: m.Port, High: m.Port})
	}
	return own
}

// prefixes are those of the node's pods, if packets for them come without a tunnel.
func prefixes(d *flavour.Desired) []netip.Prefix {
	if d.Local == nil || !d.Routed() && !d.Bare() {
		return nil
	}
	return d.Local.PodCIDRs
}
