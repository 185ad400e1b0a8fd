package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"culvert/ctrl/flavour"
	"culvert/ctrl/hostlink"
	"culvert/ctrl/program"
	"culvert/dataplane"
	"culvert/dataplane/frame"
	"culvert/dataplane/tap"
)

// host is the node's own stack as a port of the engine; nil where there is no TAP to
// be had for it.
type host struct {
	link *hostlink.Link
	port uint16
}

// holdHost makes the port to the node's own stack. A node without it forwards for its
// pods all the same, if not to and from itself.
func (a *Agent) holdHost() {
	h, err := a.openHost()
	if err != nil {
		a.mu.Lock()
		before := a.hostless
		a.hostless = "there is no way between this node and its pods, so that Services, probes and connections of the node to pods do not work: " + err.Error()
		a.mu.Unlock()
		if before != a.hostless {
			a.log.Error("no port to the node's own stack", "cause", err)
			a.metrics.SyncError("host")
		}
		return
	}
	a.mu.Lock()
	a.host, a.hostless = h, ""
	a.mu.Unlock()
	a.tellHost(a.program.Desired())
}

func (a *Agent) openHost() (*host, error) {
	link, err := hostlink.Open(a.log)
	if err != nil {
		return nil, err
	}
	spec := dataplane.PortSpec{Name: hostlink.Name, Kind: dataplane.PortHost, MAC: link.MAC, MTU: anyMTU, Queues: a.engine.Workers()}
	port, err := a.engine.AddPort(spec, func(worker, queue int) (frame.Device, error) {
		return tap.Open(hostlink.Name, a.engine.Pool(worker), queue == 0)
	})
	if err != nil {
		link.Close()
		return nil, err
	}
	return &host{link: link, port: port}, nil
}

// anyMTU is more than any packet has that is no GSO frame: the TAP says which are.
const anyMTU = 65535

// holdHostAgain is how long a node whose stack has no port waits before it tries again.
const holdHostAgain = 10 * time.Second

// runHost keeps the device as it is to be, and makes it again when somebody has
// deleted it.
func (a *Agent) runHost(ctx context.Context) error {
	for ctx.Err() == nil {
		a.mu.Lock()
		h := a.host
		a.mu.Unlock()
		if h == nil {
			select {
			case <-ctx.Done():
			case <-time.After(holdHostAgain):
				a.holdHost()
			}
			continue
		}
		until, end := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-until.Done():
			case <-a.hostGone:
				end()
			}
		}()
		err := h.link.Run(until)
		end()
		<-stop
		if err != nil || ctx.Err() != nil {
			return err
		}
		a.log.Warn("somebody has deleted the node's own way to pods; it is made again", "device", hostlink.Name)
		if err := a.releaseHost(); err != nil {
			a.log.Error("letting go of the node's own way to pods", "cause", err)
		}
		a.holdHost()
	}
	return nil
}

// tellHost gives the node's stack its addresses and its routes to pods.
func (a *Agent) tellHost(d *flavour.Desired) {
	a.mu.Lock()
	h, mtu := a.host, a.mtu
	a.mu.Unlock()
	if h == nil || mtu == 0 { // no uplink yet
		return
	}
	h.link.Set(hostWants(d, mtu))
	a.program.SetHost(program.Host{Dev: hostlink.Name, Port: h.port, MAC: h.link.MAC, MTU: mtu})
}

// hostWants is what culvert0 is to have: the node's addresses in the pod network, and
// routes to where there are pods.
func hostWants(d *flavour.Desired, mtu int) hostlink.Want {
	w := hostlink.Want{MTU: mtu}
	if d.Local == nil {
		return w
	}
	w.Addrs = d.Local.TunnelIPs()
	add := func(all []netip.Prefix) {
		for _, p := range all {
			if !p.IsSingleIP() || !slices.Contains(w.Addrs, p.Addr()) {
				w.Networks = append(w.Networks, p)
			}
		}
	}
	w.Pods = d.Local.PodCIDRs
	for _, v6 := range []bool{false, true} {
		if own := d.Local.Endpoint(v6).PublicIP; own.IsValid() {
			w.Own = append(w.Own, own)
		}
	}
	add(d.Local.PodCIDRs)
	for i := range d.Peers {
		add(d.Peers[i].PodCIDRs)
	}
	return w
}

// releaseHost takes the port out of the engine. The device stays.
func (a *Agent) releaseHost() error {
	a.mu.Lock()
	h := a.host
	a.host = nil
	a.mu.Unlock()
	if h == nil {
		return nil
	}
	h.link.Close()
	a.program.SetHost(program.Host{})
	return a.engine.RemovePort(h.port)
}

// hostProblem says what is wrong with the node's own way to pods; empty if nothing is.
func (a *Agent) hostProblem() string {
	a.mu.Lock()
	h, why := a.host, a.hostless
	a.mu.Unlock()
	if h == nil {
		return why
	}
	if err := h.link.Problem(); err != nil {
		return err.Error()
	}
	return ""
}
