package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"culvert/ctrl/apiserver"
	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
	"culvert/ctrl/underlay"
	"culvert/dataplane/intake"
)

// Run takes the uplinks, brings the node's pods back, follows source and
// underlay, and serves the sockets until ctx ends or a part fails. Then it
// gives the devices back; the pods' links stay for the next start.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.stop()) }()
	socket, err := apiserver.ListenUnix(a.cfg.Socket)
	if err != nil {
		return err
	}
	ops, err := net.Listen("tcp", a.cfg.Listen)
	if err != nil {
		return errors.Join(a.cfg.Errorf("listen", "%v; choose another HOST:PORT", err), socket.Close())
	}
	defer context.AfterFunc(ctx, func() { close(a.ending) })()
	a.restoreFlows()
	a.engine.Start()
	g, ctx := errgroup.WithContext(ctx)
	// Served from the start: who asks while pods are brought back hears just that.
	g.Go(func() error { return named("socket", apiserver.Serve(ctx, socket, apiserver.Handler(a), a.log)) })
	g.Go(func() error {
		return named("listen", apiserver.Serve(ctx, ops, apiserver.OpsHandler(a, a.metrics.Handler()), a.log))
	})
	g.Go(func() error {
		if err := a.begin(ctx); err != nil {
			return err
		}
		g.Go(func() error { return named("underlay", a.underlay.Run(ctx)) })
		g.Go(func() error { return a.followUnderlay(ctx) })
		g.Go(func() error { return a.followPods(ctx) })
		g.Go(func() error { return a.followAddresses(ctx) })
		g.Go(func() error { return named("host", a.runHost(ctx)) })
		if a.publisher != nil {
			g.Go(func() error { return named("publisher", a.publisher.Run(ctx)) })
		}
		g.Go(func() error { return named("addresses", a.keeper.run(ctx)) })
		g.Go(func() error { return a.followCNI(ctx) })
		g.Go(func() error { return named("source", a.source.Run(ctx, a.apply, a.report)) })
		a.log.Info("culvertd is up", "node", a.cfg.Node, "workers", a.engine.Workers(), "socket", a.cfg.Socket, "listen", ops.Addr().String())
		return nil
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// begin takes the uplinks and brings the node's pods back.
func (a *Agent) begin(ctx context.Context) error {
	a.measureMTU()
	a.holdHost() // first: it needs few frames, and a NIC with zero copy takes all that it can have
	a.holdUplinks()
	if err := a.uplinkErrors(); err != nil {
		return err
	}
	err := a.pods.Restore(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		a.log.Error("not every pod could be brought back", "cause", err)
		a.metrics.SyncError("pods")
	}
	a.mu.Lock()
	a.restored = true
	a.mu.Unlock()
	a.pods.Drain() // what was left until the socket answered
	return nil
}

// errRestoring is why CNI is refused at first.
var errRestoring = errors.New("the pods of this node are being brought back")

func (a *Agent) isRestored() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.restored
}

// named says which part failed. A part that ended because it was told to has not.
func named(part string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

// stop gives the devices back. While it lasts, and until the next start, pods are cut
// off: it takes no step more than it has to, and none for each pod by itself.
func (a *Agent) stop() error {
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	a.holding.Lock()
	defer a.holding.Unlock()
	errs := []error{a.deafen(), a.keepFlows()}
	if a.intake != nil {
		errs = append(errs, a.intake.StopMerging()) // frames still pass
	}
	errs = append(errs, a.close())
	if a.host != nil {
		a.host.link.Close()
	}
	return errors.Join(append(errs, a.dir.Close())...)
}

// close ends the engine, with the devices of every port, and what fed them: XDP programs
// after the sockets, for virtio-net of Linux 7.2 does not survive the other order. The
// intake goes meanwhile. a.holding is held, once Run is on.
func (a *Agent) close() error {
	var left sync.WaitGroup
	var errs [2]error
	if a.intake != nil {
		left.Go(func() { errs[0] = a.intake.Leave() })
	}
	errs[1] = a.engine.Close()
	left.Wait()
	return errors.Join(append(errs[:], a.detachXDP())...)
}

// detachXDP takes the programs off that are not the intake's. Pods' and uplinks' ports
// are closed.
func (a *Agent) detachXDP() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	detach := func(s steering) {
		if _, byIntake := s.(*intake.Attachment); !byIntake && s != nil {
			errs = append(errs, s.Close())
		}
	}
	for _, p := range a.ports {
		detach(p.attach)
	}
	for _, u := range a.uplinks { // all that there will be: holdUplinks has seen stopping
		if u.taken {
			detach(u.attach)
		}
		u.taken = false
	}
	clear(a.ports)
	return errors.Join(errs...)
}

// apply takes a set of objects from the source.
func (a *Agent) apply(objects *source.Objects) {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.applyLocked(objects)
}

// applyLocked is apply with a.applying held.
func (a *Agent) applyLocked(objects *source.Objects) {
	d := a.desire(objects)
	if err := a.kept.put(d.Annotations); err != nil {
		a.log.Error("it may be found by another address after a restart", "cause", err)
		a.metrics.SyncError("flavour")
	}
	foreign := a.localize(d)
	a.logChanges(a.program.Desired(), d)
	a.noteConflicts(d.Conflicts)
	a.mu.Lock()
	if foreign != "" && foreign != a.foreign {
		a.log.Warn("the node's address is replaced", "cause", foreign)
	}
	a.objects, a.foreign, a.overhead, a.most = objects, foreign, overheadOf(d), d.MTU
	a.mu.Unlock()
	if peers := peersOf(d); !slices.Equal(peers, a.peers) {
		a.underlay.Track(peers)
		a.paths.SetPeers(peers)
		a.peers = peers
	}
	a.measureMTU() // before pods can be added
	a.program.SetDesired(d)
	a.tellHost(d)
	a.listen()
	if d.Local != nil {
		a.setPools(d.Local)
	}
	a.keeper.applied(d, objects)
	a.steer(true)
	a.publish(d, objects)
}

// localize replaces the node's public addresses by the uplinks' where no device of
// the node has them: behind NAT, peers send to the one and packets arrive at the
// other. It says so, since a mistyped address looks the same.
func (a *Agent) localize(d *flavour.Desired) (foreign string) {
	if d.Local == nil {
		return ""
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return "" // nothing is known against them
	}
	local, uplinks := *d.Local, a.underlay.Uplinks()
	standIn := func(public *netip.Addr) {
		if !public.IsValid() {
			return
		}
		if addr, uplink := uplinkAddr(*public, own, uplinks); addr.IsValid() {
			foreign += fmt.Sprintf("; no device of this node has the address %s of Node %s: %s of uplink %s stands in for it",
				*public, local.Name, addr, uplink)
			*public = addr
		}
	}
	standIn(&local.PublicIP)
	if local.V6 != nil {
		v6 := *local.V6
		standIn(&v6.PublicIP)
		local.V6 = &v6
	}
	d.Local = &local
	return strings.TrimPrefix(foreign, "; ")
}

// uplinkAddr is the uplinks' address that stands in for one that is not among
// own, the node's addresses on any device; none if it is, or there is none.
func uplinkAddr(public netip.Addr, own []net.Addr, uplinks []underlay.Link) (netip.Addr, string) {
	for _, o := range own {
		if n, ok := o.(*net.IPNet); ok {
			if have, _ := netip.AddrFromSlice(n.IP); have.Unmap() == public {
				return netip.Addr{}, ""
			}
		}
	}
	for _, l := range uplinks {
		for _, p := range l.Addrs {
			if p.Addr().Is4() == public.Is4() && !p.Addr().IsLinkLocalUnicast() {
				return p.Addr(), l.Name
			}
		}
	}
	return netip.Addr{}, ""
}

// logChanges tells what of the desired state is new: the node itself and what
// is wrong with the objects.
func (a *Agent) logChanges(before, d *flavour.Desired) {
	if n, was := d.Local, before.Local; n != nil && (was == nil || n.PublicIP != was.PublicIP || n.TunnelIP != was.TunnelIP) {
		a.log.Info("this node", "address", n.PublicIP, "podcidrs", n.PodCIDRs, "vtep", n.VTEPMAC)
	}
	known := map[string]bool{}
	for _, c := range before.Conflicts {
		known[c.String()] = true
	}
	for _, c := range d.Conflicts {
		if !known[c.String()] {
			a.log.Warn("object not followed", "cause", c.String())
			a.metrics.SyncError("flavour")
		}
	}
	if before.Nodes() != d.Nodes() {
		a.log.Info("peers", "count", d.Nodes())
	}
}

// report takes what is wrong at the source; an empty list means all is well.
func (a *Agent) report(problems []error) {
	lines := make([]string, 0, len(problems))
	for _, err := range problems {
		lines = append(lines, err.Error())
		a.log.Error("source", "cause", err.Error())
		a.metrics.SyncError("source")
	}
	a.mu.Lock()
	a.problems, a.stale = lines, len(lines) > 0
	a.mu.Unlock()
}

// followAddress reads the objects again when the node's own address came to an
// uplink, or left it, after they were read, or another prefix makes a peer one of
// the same subnet.
func (a *Agent) followAddress() {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.mu.Lock()
	objects := a.objects
	a.mu.Unlock()
	if objects == nil {
		return
	}
	d := a.desire(objects)
	a.localize(d)
	now := a.program.Desired()
	was := now.Local
	if (was == nil) != (d.Local == nil) || was != nil && !sameEnds(was, d.Local) || !sameEncaps(now, d) || !maps.Equal(now.Annotations, d.Annotations) {
		a.applyLocked(objects)
	}
}

// sameEnds reports whether a node's tunnels end at the same addresses.
func sameEnds(a, b *flavour.Node) bool {
	return a.Endpoint(false).PublicIP == b.Endpoint(false).PublicIP && a.Endpoint(true).PublicIP == b.Endpoint(true).PublicIP
}

// sameEncaps reports whether all peers are reached the same way.
func sameEncaps(a, b *flavour.Desired) bool {
	return slices.EqualFunc(a.Peers, b.Peers, func(p, q flavour.Peer) bool { return p.Key() == q.Key() && p.Encap == q.Encap })
}

// subnets are the prefixes of the uplinks' addresses.
func (a *Agent) subnets() (all []netip.Prefix) {
	for _, l := range a.underlay.Uplinks() {
		for _, p := range l.Addrs {
			if !p.Addr().IsLinkLocalUnicast() {
				all = append(all, p)
			}
		}
	}
	return all
}
