package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"culvert/ctrl/source"
)

// Run writes what is owed, and compares pods and blocks now and then, until ctx ends.
// Start it when the node's pods are known.
func (k *Keeper) Run(ctx context.Context) error {
	retry := firstRetry
	for {
		wait := resyncEvery
		if err := k.Pass(ctx); Away(err) {
			wait, retry = retry, min(2*retry, lastRetry)
		} else if retry = firstRetry; err != nil {
			wait = lastRetry
		}
		timer := time.NewTimer(wait)
		kick := k.kick
		if wait != resyncEvery {
			kick = nil // the API server is not asked more often for being asked for more
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Pass writes what is owed, and when that is due looks at everything. The error says
// what could not be done; nil is all in order.
func (k *Keeper) Pass(ctx context.Context) error {
	k.working.Lock()
	defer k.working.Unlock()
	k.adoptPods()
	var problem, unsettled error
	for _, e := range k.list() {
		if e.Settled && !e.Release || e.conflict != nil && k.cfg.Now().Sub(e.tried) < lastRetry {
			continue
		}
		if err := k.settle(ctx, e); err != nil {
			if Away(err) {
				problem = err
				break
			}
			unsettled = err
		}
	}
	if problem == nil && k.due() {
		problem = k.lookAtAll(ctx)
		k.mu.Lock()
		k.problem = nil
		if !Away(problem) {
			k.problem = problem
		}
		k.mu.Unlock()
	}
	if problem == nil {
		problem = unsettled
	}
	k.tell()
	if ctx.Err() == nil {
		if Away(problem) {
			k.setAway(problem)
		} else {
			k.setAway(nil)
		}
	}
	return problem
}

// tell calls Changed if the conflicts are others than before.
func (k *Keeper) tell() {
	now := k.Conflicts()
	k.mu.Lock()
	changed := !slices.Equal(now, k.told)
	k.told = now
	k.mu.Unlock()
	if changed {
		k.cfg.Changed()
	}
}

func (k *Keeper) due() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.full || k.cfg.Now().Sub(k.resync) >= resyncEvery
}

// adoptPods makes entries and pods agree: a pod without one has one from now on, and
// one without a pod is to be released.
func (k *Keeper) adoptPods() {
	entries := k.list() // first: a pod is in Pods before it has an entry
	pods := map[string]bool{}
	var fresh []*entry
	for _, p := range k.cfg.Pods() {
		pods[p.Owner] = true
		k.mu.Lock()
		known := k.entries[p.Owner] != nil
		k.mu.Unlock()
		if !known && len(p.Addrs) > 0 {
			e := k.newEntry(p)
			e.Addrs = p.Addrs
			fresh = append(fresh, e)
		}
	}
	for _, e := range entries {
		if !pods[e.Owner] && !e.Release {
			e.Release, e.Settled, e.conflict = true, false, nil
			fresh = append(fresh, e)
		}
	}
	for _, e := range fresh {
		if err := k.put(e); err != nil {
			k.cfg.Log.Error("addresses not noted", "owner", e.Owner, "cause", err)
		}
	}
}

// settle writes one entry to the blocks. A conflict with somebody else is kept in it.
func (k *Keeper) settle(ctx context.Context, e *entry) error {
	if !e.Release && len(e.Addrs) == 0 {
		return nil // its ADD is on its way
	}
	done := false
	// Nobody waits for an API server that does not answer: ADDs have their turn, too.
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Patience)
	defer cancel()
	err := k.client.Settle(ctx, func() (r Request, ok bool) {
		r, done = k.current(e)
		return r, done
	})
	if Away(err) || !done {
		return err // or its turn comes again
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.entries[e.Owner]
	if now == nil || now.Release != e.Release || !slices.Equal(now.Addrs, e.Addrs) {
		return nil // it has changed meanwhile
	}
	if err != nil {
		if now.conflict == nil || now.conflict.Error() != err.Error() {
			k.cfg.Log.Warn("address not recorded in Calico's IPAM", "owner", e.Owner, "addrs", e.Addrs, "cause", err)
		}
		now.conflict, now.tried = err, k.cfg.Now()
		return err
	}
	if e.Release {
		delete(k.entries, e.Owner)
		return k.ledger.remove(e.Owner)
	}
	now.Settled, now.conflict = true, nil
	return k.ledger.put(now)
}

// current is what an entry asks for, if it is still what e says. Other interfaces of
// the container may have the same handle.
func (k *Keeper) current(e *entry) (Request, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.entries[e.Owner]
	if now == nil || now.Release != e.Release || !slices.Equal(now.Addrs, e.Addrs) {
		return Request{}, false
	}
	r := e.request()
	for _, other := range k.entries {
		if other.Handle == e.Handle && other.Owner != e.Owner && !other.Release {
			if len(other.Addrs) == 0 { // its ADD is on its way
				return Request{}, false
			}
			r.Keep = append(r.Keep, other.Addrs...)
		}
	}
	return r, true
}

// lookAtAll puts the node's blocks, tunnel addresses and pods in order.
func (k *Keeper) lookAtAll(ctx context.Context) error {
	k.mu.Lock()
	k.full = false
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	blocks, err := k.client.tidy(ctx)
	if err == nil {
		err = k.client.EnsureTunnels(ctx, k.cfg.Tunnels())
	}
	if err == nil {
		err = k.client.EnsureBlocks(ctx)
	}
	if err == nil {
		err = k.compare(ctx, blocks)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.resync = k.cfg.Now(); err != nil {
		k.full = true
	}
	return err
}

// compare finds pods whose addresses the blocks do not have, and addresses of this
// node whose pods are gone.
func (k *Keeper) compare(ctx context.Context, blocks []*block) error {
	entries := k.list()
	var addrs []netip.Addr
	for _, e := range entries {
		addrs = append(addrs, e.Addrs...)
	}
	blocks, err := k.client.readBlocks(ctx, blocks, addrs)
	if err != nil {
		return err
	}
	who := map[netip.Addr]holder{}
	handles := map[string]*entry{}
	for _, b := range blocks {
		for _, h := range b.holders() {
			who[h.addr] = h
		}
	}
	for _, e := range entries {
		handles[e.Handle] = e
		for _, a := range e.Addrs {
			if e.Settled && !e.Release && who[a].handle != e.Handle {
				e.Settled = false
				if err := k.settle(ctx, e); err != nil {
					return err
				}
				break
			}
		}
	}
	seen := map[string]time.Time{}
	for _, b := range blocks {
		for _, h := range b.holders() {
			if h.handle == "" || h.attrs["node"] != k.cfg.Node || h.attrs["pod"] == "" || handles[h.handle] != nil {
				continue
			}
			if err := k.leaked(ctx, b, h, seen); err != nil {
				return err
			}
		}
	}
	k.mu.Lock()
	k.leaks = seen
	k.mu.Unlock()
	return nil
}

// leaked releases an address of this node that none of its pods has, if it has been
// so for a while and the API server knows no such pod with it, either: calico-node
// may have run here before.
func (k *Keeper) leaked(ctx context.Context, b *block, h holder, seen map[string]time.Time) error {
	key := fmt.Sprint(h.handle, " ", h.addr, " ", h.seq)
	k.mu.Lock()
	since, known := k.leaks[key]
	k.mu.Unlock()
	if !known {
		since = k.cfg.Now()
	}
	seen[key] = since
	if k.cfg.Now().Sub(since) < leakGrace {
		return nil
	}
	gone, err := k.podGone(ctx, h)
	if err != nil || !gone {
		return err
	}
	k.cfg.Log.Warn("address of a pod that is gone released", "addr", h.addr, "pod", h.attrs["namespace"]+"/"+h.attrs["pod"], "handle", h.handle)
	delete(seen, key)
	return k.client.ReleaseLeaked(ctx, h.handle, b.cidr, map[netip.Addr]uint64{h.addr: h.seq})
}

// podGone reports whether the pod that a block names does not have the address any more.
func (k *Keeper) podGone(ctx context.Context, h holder) (bool, error) {
	ref := source.Ref{Kind: KindPod, Namespace: h.attrs["namespace"], Name: h.attrs["pod"]}
	obj, err := k.cfg.Store.Get(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", ref, err)
	}
	return podLacks(obj.Object, k.cfg.Node, h.addr), nil
}

// podLacks reports whether a Pod certainly does not have an address on a node. One that
// has no address yet may be about to get it.
func podLacks(pod map[string]any, node string, a netip.Addr) bool {
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	spec, _ := pod["spec"].(map[string]any)
	status, _ := pod["status"].(map[string]any)
	if on := text(spec, "nodeName"); on != "" && on != node {
		return true
	}
	if phase := text(status, "phase"); phase == "Succeeded" || phase == "Failed" {
		return true
	}
	ips := []string{text(status, "podIP")}
	list, _ := status["podIPs"].([]any)
	for _, item := range list {
		m, _ := item.(map[string]any)
		ips = append(ips, text(m, "ip"))
	}
	return ips[0] != "" && !slices.Contains(ips, a.String())
}
