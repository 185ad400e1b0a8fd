package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"culvert/ctrl/apiserver"
	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
	"culvert/ctrl/underlay"
)

// resyncEvery is how often the next hops are looked up and uplinks are checked
// without an event.
const resyncEvery = 10 * time.Second

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
	a.engine.Start()
	a.measureMTU()
	a.holdUplinks()
	if err := a.uplinkErrors(); err != nil {
		return errors.Join(err, socket.Close(), ops.Close())
	}
	if err := a.pods.Restore(ctx); err != nil {
		a.log.Error("not every pod could be brought back", "cause", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return named("underlay", a.underlay.Run(ctx)) })
	g.Go(func() error { return a.followUnderlay(ctx) })
	g.Go(func() error { return named("source", a.source.Run(ctx, a.apply, a.report)) })
	g.Go(func() error { return named("socket", apiserver.Serve(ctx, socket, apiserver.Handler(a), a.log)) })
	g.Go(func() error {
		return named("listen", apiserver.Serve(ctx, ops, apiserver.OpsHandler(a, a.metrics.Handler()), a.log))
	})
	a.pods.Drain()
	a.log.Info("culvertd is up", "node", a.cfg.Node, "workers", a.engine.Workers(), "socket", a.cfg.Socket, "listen", ops.Addr().String())
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// named says which part failed. A part that ended because it was told to has not.
func named(part string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

// stop closes every port and the engine. Attached programs go with their ports.
func (a *Agent) stop() error {
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	var errs []error
	for _, rec := range a.pods.List() {
		errs = append(errs, a.Detach(rec))
	}
	a.mu.Lock()
	for _, u := range a.uplinks {
		errs = append(errs, a.release(u))
	}
	a.mu.Unlock()
	return errors.Join(append(errs, a.engine.Close())...)
}

// apply takes a set of objects from the source.
func (a *Agent) apply(objects *source.Objects) {
	a.applying.Lock()
	defer a.applying.Unlock()
	d := flavour.Native(objects, flavour.OptionsFrom(a.cfg))
	a.localize(d)
	a.logChanges(a.program.Desired(), d)
	if mode := flavour.Detect(objects); mode != d.Mode && a.mode != mode {
		a.mode = mode
		a.log.Warn("the objects look like a cluster of another network; this version runs it in native mode", "looks", mode)
	}
	a.mu.Lock()
	a.objects = objects
	a.mu.Unlock()
	peers := make([]netip.Addr, 0, len(d.Peers))
	for i := range d.Peers {
		peers = append(peers, d.Peers[i].PublicIP)
	}
	a.underlay.Track(peers)
	a.program.SetDesired(d)
	if d.Local != nil {
		if err := a.ipam.SetCIDRs(d.Local.PodCIDRs); err != nil {
			a.log.Error("the node's pod CIDRs cannot be allocated from", "cidrs", d.Local.PodCIDRs, "cause", err)
			a.metrics.SyncError("flavour")
		}
	}
	a.steer(d)
}

// localize replaces the node's public address by the uplink's where the node does
// not have it: behind NAT, peers send to the one and packets arrive at the other.
func (a *Agent) localize(d *flavour.Desired) {
	if d.Local == nil || !d.Local.PublicIP.IsValid() {
		return
	}
	var first netip.Addr
	for _, l := range a.underlay.Uplinks() {
		for _, p := range l.Addrs {
			if p.Addr() == d.Local.PublicIP {
				return
			}
			if !first.IsValid() && p.Addr().Is4() == d.Local.PublicIP.Is4() && !p.Addr().IsLinkLocalUnicast() {
				first = p.Addr()
			}
		}
	}
	if first.IsValid() {
		local := *d.Local
		local.PublicIP = first
		d.Local = &local
	}
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
	if len(before.Peers) != len(d.Peers) {
		a.log.Info("peers", "count", len(d.Peers))
	}
}

// report takes what is wrong at the source; an empty list means all is well.
func (a *Agent) report(problems []error) {
	lines := make([]string, 0, len(problems))
	for _, err := range problems {
		lines = append(lines, err.Error())
		a.log.Error("manifests", "cause", err.Error())
		a.metrics.SyncError("source")
	}
	a.mu.Lock()
	a.problems, a.stale = lines, len(lines) > 0
	a.mu.Unlock()
}

// followAddress reads the objects again when the node's own address came to an
// uplink, or left it, after they were read.
func (a *Agent) followAddress() {
	a.mu.Lock()
	objects := a.objects
	a.mu.Unlock()
	if objects == nil {
		return
	}
	d := flavour.Native(objects, flavour.OptionsFrom(a.cfg))
	a.localize(d)
	was := a.program.Desired().Local
	if (was == nil) != (d.Local == nil) || was != nil && was.PublicIP != d.Local.PublicIP {
		a.apply(objects)
	}
}

// followUnderlay keeps ports and tables in step with the kernel's devices and
// neighbours.
func (a *Agent) followUnderlay(ctx context.Context) error {
	resync := time.NewTicker(resyncEvery)
	defer resync.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-a.underlay.Events():
			if e.Kind == underlay.LinkGone {
				a.linkGone(e.Ifindex)
			}
		case <-resync.C:
		}
		a.measureMTU()
		a.holdUplinks()
		a.program.UnderlayChanged()
		a.followAddress()
	}
}
