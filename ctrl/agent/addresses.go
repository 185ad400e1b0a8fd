package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"culvert/ctrl/calicoipam"
	"culvert/ctrl/flavour"
	"culvert/ctrl/ipam"
	"culvert/ctrl/pods"
	"culvert/ctrl/source"
)

// keeper has the addresses of this node's pods and tunnels written to Calico's IPAM,
// in the mode calico; in others its pods' addresses are this node's own affair. A nil
// keeper does nothing.
type keeper struct {
	*calicoipam.Keeper
	local *ipam.Allocator

	mu      sync.Mutex
	calico  bool // the mode
	begun   chan struct{}
	tunnels []netip.Addr // as the node publishes them
	blocks  []*source.IPAMBlock
	pools   []*source.IPPool
}

// openKeeper makes the keeper if there is an API server.
func (a *Agent) openKeeper() (pods.ClusterIPAM, error) {
	if a.calico == nil {
		return nil, nil
	}
	k := &keeper{local: a.ipam, begun: make(chan struct{})}
	var err error
	k.Keeper, err = calicoipam.NewKeeper(calicoipam.KeeperConfig{
		Config:   calicoipam.Config{Node: a.cfg.Node, Store: a.calico, Blocks: k.seenBlocks, Log: a.log},
		StateDir: a.cfg.StateDir, Local: a.ipam, Pods: a.podsOfKeeper, Tunnels: k.published, Changed: a.applyAgain,
	})
	if err != nil {
		return nil, err
	}
	a.keeper = k
	return k, nil
}

// claims reports whether this node gets blocks of Calico's IPAM by itself.
func (a *Agent) claims() bool { return a.keeper != nil && a.keeper.on() }

// applyAgain applies the objects once more: what is told beside them has changed.
func (a *Agent) applyAgain() {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.mu.Lock()
	objects := a.objects
	a.mu.Unlock()
	if objects != nil {
		a.applyLocked(objects)
	}
}

func (a *Agent) podsOfKeeper() (all []calicoipam.Pod) {
	for _, rec := range a.pods.List() {
		all = append(all, podOfKeeper(&rec))
	}
	return all
}

func podOfKeeper(rec *pods.Record) calicoipam.Pod {
	return calicoipam.Pod{
		Owner: rec.Key().String(), Network: rec.Network, ContainerID: rec.ContainerID,
		Namespace: rec.Namespace, Name: rec.Pod, Addrs: rec.Addrs,
	}
}

func (k *keeper) on() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calico
}

func (k *keeper) seenBlocks() []*source.IPAMBlock {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blocks
}

func (k *keeper) published() []netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tunnels
}

// run is the keeper's loop, from when the mode is calico for the first time.
func (k *keeper) run(ctx context.Context) error {
	if k == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-k.begun:
		return k.Run(ctx)
	}
}

// applied tells of what is in force. The keeper looks at its blocks anew when the pools
// or what this node publishes are others.
func (k *keeper) applied(d *flavour.Desired, objects *source.Objects) {
	if k == nil {
		return
	}
	var tunnels []netip.Addr
	for key, value := range d.Annotations {
		if addr, err := netip.ParseAddr(value); err == nil && strings.HasSuffix(key, "TunnelAddr") {
			tunnels = append(tunnels, addr)
		}
	}
	slices.SortFunc(tunnels, netip.Addr.Compare)
	k.mu.Lock()
	was := k.calico
	look := !slices.Equal(tunnels, k.tunnels) || !slices.EqualFunc(objects.IPPools, k.pools, samePool)
	k.calico, k.tunnels, k.blocks, k.pools = d.Mode == flavour.ModeCalico, tunnels, objects.IPAMBlocks, objects.IPPools
	first := k.calico && !was
	k.mu.Unlock()
	if first {
		select {
		case <-k.begun:
		default:
			close(k.begun)
		}
	}
	if first || look {
		k.Look()
	}
}

func samePool(a, b *source.IPPool) bool {
	return a == b || a.Name == b.Name && reflect.DeepEqual(&a.Spec, &b.Spec)
}

// conflicts are addresses that somebody else has, too.
func (k *keeper) conflicts() []flavour.Conflict {
	if k == nil {
		return nil
	}
	return k.Conflicts()
}

// problem says why the blocks are not in order.
func (k *keeper) problem() string {
	if k == nil || !k.on() {
		return ""
	}
	return k.Problem()
}

// Allocate implements pods.ClusterIPAM.
func (k *keeper) Allocate(ctx context.Context, rec pods.Record, want []netip.Addr) ([]netip.Addr, error) {
	if !k.on() {
		return k.local.Allocate(rec.Key().String(), want...)
	}
	addrs, err := k.Keeper.Allocate(ctx, podOfKeeper(&rec), want)
	if calicoipam.Away(err) || errors.Is(err, calicoipam.ErrConflict) {
		err = fmt.Errorf("%w: %w", pods.ErrTryAgain, err)
	}
	return addrs, err
}

// Release implements pods.ClusterIPAM.
func (k *keeper) Release(rec pods.Record) error {
	if !k.on() {
		return nil
	}
	return k.Keeper.Release(podOfKeeper(&rec))
}
