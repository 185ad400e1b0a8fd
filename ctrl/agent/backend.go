package agent

import (
	"cmp"
	"fmt"
	"slices"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/ctrl/podlink"
	"culvert/ctrl/pods"
	"culvert/ctrl/program"
	"culvert/dataplane"
	"culvert/fib"
)

// The methods of this file and of tables.go make the agent an
// apiserver.Backend and a metrics.Source.

// Status implements apiserver.Health.
func (a *Agent) Status() api.Status {
	d := a.program.Desired()
	snap := a.program.Snapshot()
	s := api.Status{
		Node: a.cfg.Node, Mode: cmp.Or(d.Mode, a.cfg.Mode), Encap: cmp.Or(d.Encap, a.cfg.Native.Encap), MTU: a.podMTU(),
		Peers: d.Nodes(), Pods: a.pods.Count(), Routes: snap.RouteCount(), Flows: a.engine.FlowTable().Len(),
		Source: a.cfg.Source, Version: a.version, Started: a.started,
		Workers: []api.Worker{}, Uplinks: []api.Uplink{},
	}
	if n := d.Local; n != nil {
		for _, p := range n.PodCIDRs {
			s.PodCIDRs = append(s.PodCIDRs, p.String())
		}
		if n.PublicIP.IsValid() {
			s.VTEP = &api.VTEP{Local: n.PublicIP.String()}
			if d.Encap == flavour.VXLAN {
				s.VTEP.MAC, s.VTEP.VNI, s.VTEP.Port = n.VTEPMAC.String(), d.VNI, d.Port
			}
			if n.TunnelIP.IsValid() {
				s.VTEP.Address = n.TunnelIP.String()
			}
		}
	}
	for _, w := range a.engine.WorkerStats() {
		s.Workers = append(s.Workers, api.Worker{
			ID: w.ID, Busy: w.BusyRatio, Frames: api.Frames{Free: w.FreeFrames, Total: w.TotalFrames},
			Bursts: w.Bursts[:], BurstFrames: w.BurstFrames, Sleeps: w.Sleeps,
			Big: api.BigFrames(w.Big), Fragments: api.Fragments(w.Fragments),
		})
	}
	if in, ok := a.engine.Intake(); ok {
		s.Intake = &api.Intake{Queues: in.Spec.Queues,
			RingFull: map[string]uint64{"rx": in.Device.RxRingFull, "fill": in.Device.RxFillEmpty}}
	}
	s.Outer = a.outerStatus()
	s.Objects = a.sourceObjects()
	a.uplinkStatus(&s)
	a.reasons(&s, d)
	s.Ready = len(s.Reasons) == 0
	return s
}

// uplinkStatus adds the uplinks and what is wrong with them.
func (a *Agent) uplinkStatus(s *api.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Stale = a.stale
	s.Degraded = append(s.Degraded, a.problems...)
	for _, l := range a.underlay.Uplinks() {
		u := api.Uplink{Name: l.Name, Addrs: []string{}, MTU: l.MTU, State: "DOWN", Queues: l.Queues}
		for _, addr := range l.Addrs {
			u.Addrs = append(u.Addrs, addr.String())
		}
		if l.Up {
			u.State = "UP"
		} else {
			s.Degraded = append(s.Degraded, fmt.Sprintf("uplink %s is down", l.Name))
		}
		if have := a.uplinks[l.Name]; have != nil && have.taken {
			u.XDPMode, u.Merging = string(have.mode), have.merging
			if have.deaf != nil {
				s.Reasons = append(s.Reasons, fmt.Sprintf("uplink %s does not know the node's address: %v", l.Name, have.deaf))
			}
			if n := len(a.umems); l.Queues < n && a.intake == nil {
				s.Degraded = append(s.Degraded, fmt.Sprintf("uplink %s: "+tooFewQueues+"; add queues with 'ethtool -L', or restart culvertd", l.Name, l.Queues, n))
			}
		} else {
			why := "it has not been tried yet"
			if have != nil && have.err != nil {
				why = have.err.Error()
			}
			s.Reasons = append(s.Reasons, fmt.Sprintf("uplink %s is not held: %s", l.Name, why))
		}
		s.Uplinks = append(s.Uplinks, u)
	}
}

// reasons adds what else keeps the node from carrying traffic, and what is
// wrong although it does.
func (a *Agent) reasons(s *api.Status, d *flavour.Desired) {
	a.mu.Lock()
	read, restored, foreign, another, cni := a.objects != nil, a.restored, a.foreign, a.another, a.cniProblem
	a.mu.Unlock()
	if !restored {
		s.Reasons = append(s.Reasons, errRestoring.Error())
	}
	for _, problem := range []string{foreign, another, cni, a.keeper.problem(), a.hostProblem()} {
		if problem != "" {
			s.Degraded = append(s.Degraded, problem)
		}
	}
	s.Degraded = append(s.Degraded, podProblems(a.pods.List(), a.queuesNeeded())...)
	switch {
	case !read:
		s.Reasons = append(s.Reasons, fmt.Sprintf("no objects have been read from %s yet", a.cfg.Source))
	case d.Refused:
		for _, c := range d.Conflicts {
			s.Reasons = append(s.Reasons, c.String())
		}
	case d.Local == nil || !d.Local.PublicIP.IsValid():
		s.Reasons = append(s.Reasons, fmt.Sprintf("there is no usable Node object %s in %s: it needs an InternalIP in status.addresses", a.cfg.Node, a.cfg.Source))
	case len(d.Local.PodCIDRs) == 0 && d.Mode == flavour.ModeCalico:
		s.Reasons = append(s.Reasons, poolsMissing(d, a.cfg.Node, a.cfg.Source))
	case len(d.Local.PodCIDRs) == 0:
		s.Reasons = append(s.Reasons, fmt.Sprintf("Node %s has no spec.podCIDRs", a.cfg.Node))
	}
	for _, c := range d.Conflicts {
		s.Degraded = append(s.Degraded, c.String())
	}
	s.Conflicts = a.conflicts(d.Conflicts)
	if a.publisher != nil {
		s.Degraded = append(s.Degraded, a.publisher.Problems()...)
	}
}

// tooFewQueues is what becomes of traffic when there are fewer queues than workers.
const tooFewQueues = "%d queues for %d workers: what the others have for it is dropped"

// queuesNeeded is the number of queues that a pod's veth should have: one for each
// worker, if frames do not come by the intake.
func (a *Agent) queuesNeeded() int {
	if a.intake != nil {
		return 0
	}
	return len(a.umems)
}

// podProblems says what is wrong with the pods that there are, whose veths need so
// many queues.
func podProblems(recs []pods.Record, workers int) (lines []string) {
	for i := range recs {
		rec := &recs[i]
		switch {
		case rec.State == pods.StateDetached && rec.Cause != "":
			lines = append(lines, fmt.Sprintf("pod %s is detached: %s", rec.Name(), rec.Cause))
		case rec.State == pods.StateReady && rec.Kind != podlink.TAP && rec.Queues < workers:
			lines = append(lines, fmt.Sprintf("pod %s: "+tooFewQueues+"; recreate it", rec.Name(), rec.Queues, workers))
		}
	}
	return lines
}

// Healthy implements apiserver.Health: every worker still takes its turns.
func (a *Agent) Healthy() error { return a.engine.Healthy() }

// Ports implements apiserver.Backend.
func (a *Agent) Ports() []api.Port {
	out := []api.Port{}
	for _, p := range a.engine.Ports() {
		mode := p.Spec.XDPMode
		if mode == "" {
			mode = "none"
		}
		out = append(out, api.Port{
			Name: p.Spec.Name, Kind: p.Spec.Kind.String(), Index: p.Index, Queues: p.Spec.Queues,
			XDP:      api.XDP{Mode: mode, ZeroCopy: a.zeroCopy(p.Spec.Name)},
			Rx:       api.Counter{Packets: p.RxPackets, Bytes: p.RxBytes},
			Tx:       api.Counter{Packets: p.TxPackets, Bytes: p.TxBytes},
			Drops:    p.Drops,
			RingFull: map[string]uint64{"rx": p.Device.RxRingFull, "fill": p.Device.RxFillEmpty, "tx": p.Device.TxRingFull},
			MAC:      p.Spec.MAC.String(), MTU: p.Spec.MTU,
		})
	}
	return out
}

// zeroCopy reports whether a port is an uplink whose NIC reads and writes our
// memory itself. Pod links never do.
func (a *Agent) zeroCopy(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.uplinks[name]
	return u != nil && u.taken && u.zeroCopy
}

// Drops implements apiserver.Backend.
func (a *Agent) Drops() []api.Drop {
	out := []api.Drop{}
	for _, d := range a.engine.Drops() {
		out = append(out, api.Drop{Reason: d.Reason.String(), Port: d.Port, Kind: d.Kind.String(), Packets: d.Packets})
	}
	return out
}

// Pods implements apiserver.Backend.
func (a *Agent) Pods() []api.Pod {
	out := []api.Pod{}
	for _, rec := range a.pods.List() {
		out = append(out, rec.API())
	}
	return out
}

// Peers implements apiserver.Backend.
func (a *Agent) Peers() []api.Peer {
	d := a.program.Desired()
	snap := a.program.Snapshot()
	out := []api.Peer{}
	paths := a.paths.All()
	for i := range d.Peers {
		peer := &d.Peers[i]
		p := api.Peer{
			Name: peer.Name, Dst: peer.PublicIP.String(), Encap: peer.Encap,
			PodCIDRs: []string{}, State: "unresolved",
		}
		if peer.Encap == flavour.VXLAN {
			p.MAC = peer.VTEPMAC.String()
		}
		if peer.TunnelIP.IsValid() {
			p.Address = peer.TunnelIP.String()
		}
		for _, c := range peer.PodCIDRs {
			p.PodCIDRs = append(p.PodCIDRs, c.String())
		}
		if nh, err := a.underlay.NextHop(peer.PublicIP); err == nil {
			p.Via, p.Dev = nh.Via.String(), nh.Dev
			if len(peer.PodCIDRs) == 0 && nh.Resolved { // a tunnel endpoint whose prefixes go without a tunnel
				p.State = "ready"
			}
		}
		if len(peer.PodCIDRs) > 0 {
			if r, ok := snap.Route(peer.PodCIDRs[0]); ok {
				adj := snap.Adjacency(r.Adj)
				p.MTU = int(adj.MTU)
				if adj.Ready {
					p.State = "ready"
				}
			}
		}
		describePath(&p, paths[peer.PublicIP])
		out = append(out, p)
	}
	return out
}

// Config implements apiserver.Backend.
func (a *Agent) Config() api.ConfigView {
	v := api.ConfigView{File: a.cfg.File(), Settings: []api.Setting{}}
	for _, s := range a.cfg.Settings() {
		v.Settings = append(v.Settings, api.Setting{Key: s.Key, Value: s.Value, From: s.From})
	}
	v.Objects = a.sourceParts()
	return v
}

// RouteCounts implements metrics.Source.
func (a *Agent) RouteCounts() map[string]int {
	snap := a.program.Snapshot()
	counts := map[string]int{}
	for _, k := range []fib.Kind{fib.KindPod, fib.KindVXLAN, fib.KindIPIP, fib.KindDirect, fib.KindLocal, fib.KindBlackhole, fib.KindReject} {
		counts[k.String()] = 0
	}
	for r := range snap.Routes() {
		if program.Beside(r, snap) {
			continue
		}
		counts[snap.Adjacency(r.Adj).Kind.String()]++
	}
	return counts
}

// kinds of ports whose far side is a pod.
var podKinds = []dataplane.PortKind{dataplane.PortVeth, dataplane.PortTAP}

// podPortNamed is the pod port of a name.
func (a *Agent) podPortNamed(name string) (dataplane.PortSpec, bool) {
	for _, p := range a.engine.Ports() {
		if p.Spec.Name == name && slices.Contains(podKinds, p.Spec.Kind) {
			return p.Spec, true
		}
	}
	return dataplane.PortSpec{}, false
}
