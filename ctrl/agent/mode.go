package agent

import (
	"fmt"
	"net/netip"
	"slices"

	"culvert/ctrl/flavour"
	"culvert/ctrl/ipam"
	"culvert/ctrl/source"
)

// desire is the state that objects ask for. a.applying is held.
func (a *Agent) desire(objects *source.Objects) *flavour.Desired {
	subnets := a.subnets()
	opt := flavour.OptionsFrom(a.cfg, subnets)
	opt.Subnets, opt.Kept, opt.Cache = subnets, a.kept.annotations, &a.known
	opt.InUse = func(addr netip.Addr) bool {
		_, taken := a.ipam.Owner(addr)
		return taken
	}
	opt.Claims = a.keeper != nil
	d := flavour.Want(a.decideMode(objects), objects, opt)
	d.Conflicts = append(d.Conflicts, a.keeper.conflicts()...)
	if before := a.program.Desired(); d.Refused && before.Mode == d.Mode && !before.Refused {
		last := *before // what worked goes on working
		last.Conflicts = d.Conflicts
		return &last
	}
	return d
}

// decideMode is the mode to run: the configured one, or with auto what the objects
// look like. Once this node has pods it stays what it is: they were named and given
// addresses by its rules, and who changes a cluster's network drains the nodes.
func (a *Agent) decideMode(objects *source.Objects) string {
	looks := flavour.Detect(objects)
	a.mu.Lock()
	running := a.mode
	a.mu.Unlock()
	mode, another := running, ""
	switch {
	case a.cfg.Mode != "auto":
		mode = a.cfg.Mode
	case running == "" || looks != running && len(a.pods.List()) == 0:
		if mode = looks; !flavour.Knows(objects, a.cfg.Node) {
			return mode // more is to come
		}
	}
	if mode != running {
		a.log.Info("mode", "mode", mode, "configured", a.cfg.Mode)
	}
	if looks != mode {
		another = fmt.Sprintf("the objects look like a cluster of mode %s, and this node runs in mode %s: ", looks, mode)
		if a.cfg.Mode == "auto" {
			another += "drain it and restart culvertd to follow, or undo the change"
		} else {
			another += "if that is not meant, set mode to auto"
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if another != "" && another != a.another {
		a.log.Warn("not followed", "cause", another)
	}
	a.mode, a.another = mode, another
	return mode
}

// hostPrefix begins the names of the host ends of pods' veths.
func (a *Agent) hostPrefix() string {
	if a.program.Desired().Mode == flavour.ModeCalico {
		return "cali"
	}
	return "cv"
}

// setPools says where pods get their addresses from.
func (a *Agent) setPools(n *flavour.Node) {
	var pools []ipam.Pool
	for _, p := range n.PodPools() {
		pools = append(pools, ipam.Pool{CIDR: p, Whole: n.Blocks})
	}
	held := make([]ipam.Held, len(n.Held))
	for i, h := range n.Held {
		held[i] = ipam.Held(h)
	}
	if err := a.ipam.SetPools(pools, held); err != nil {
		a.log.Error("the node's pod CIDRs cannot be allocated from", "cidrs", n.PodCIDRs, "cause", err)
		a.metrics.SyncError("flavour")
	}
}

// poolsMissing says why the node's pods can get no address; empty if they can.
func poolsMissing(d *flavour.Desired, node, source string) string {
	switch {
	case d.Local != nil && len(d.Local.PodPools()) > 0:
		return ""
	case d.Mode == flavour.ModeCalico:
		return fmt.Sprintf("node %s has no block of addresses: %s has no confirmed BlockAffinity for it in an IPPool that it may use", node, source)
	}
	return fmt.Sprintf("node %s has no pod CIDR yet: its Node object with spec.podCIDRs has not been read from %s", node, source)
}

// peersOf are the addresses of other nodes, each once.
func peersOf(d *flavour.Desired) []netip.Addr {
	peers := make([]netip.Addr, 0, len(d.Peers))
	for i := range d.Peers {
		peers = append(peers, d.Peers[i].PublicIP)
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return slices.Compact(peers)
}
