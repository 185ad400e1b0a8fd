package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"culvert/ctrl/flavour"
	"culvert/ctrl/ipam"
	"culvert/ctrl/source"
)

// Pod is an owner of addresses: one interface of a container.
type Pod struct {
	Owner       string // unique on the node, and fit for a file's name
	Network     string // of the CNI configuration
	ContainerID string
	Namespace   string
	Name        string
	Addrs       []netip.Addr
}

// KeeperConfig is what a Keeper works with.
type KeeperConfig struct {
	Config // Taken and Cooling are the keeper's own
	// StateDir gets a directory of what is owed to the API server.
	StateDir string
	// Local is the truth on this node about who has what.
	Local *ipam.Allocator
	// Pods are the node's pods, those included whose ADD is on its way.
	Pods func() []Pod
	// Tunnels are the tunnel addresses that the node has published; nil: none.
	Tunnels func() []netip.Addr
	// Changed is called when Conflicts are others than before; nil: nobody wants to know.
	Changed func()
	// Patience is how long an ADD waits for the API server before it takes an address
	// of an own block; 0: five seconds.
	Patience time.Duration
}

// Times of a Keeper.
const (
	patience    = 5 * time.Second
	resyncEvery = 15 * time.Minute // thousands of nodes do it
	lookTimeout = time.Minute
	firstRetry  = time.Second
	lastRetry   = 30 * time.Second
	// leakGrace is how long an address is seen without its pod before it is released.
	leakGrace = 5 * time.Minute
)

// Keeper gives this node's pods addresses of Calico's IPAM and takes them back, with
// or without the API server: what cannot be written now is on disk, and is written
// first when it is back. It is safe for concurrent use.
type Keeper struct {
	cfg    KeeperConfig
	client *Client
	ledger ledger
	kick   chan struct{}

	mu      sync.Mutex // never held while waiting
	entries map[string]*entry
	away    error // why the API server could not be asked last time
	problem error // why the node's blocks are not in order
	full    bool  // the next pass looks at everything
	resync  time.Time
	leaks   map[string]time.Time // by handle and address: when it was first seen
	told    []flavour.Conflict   // what Changed was called for

	working sync.Mutex // one pass at a time
}

// NewKeeper makes a keeper and reads what it owes from before.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	if cfg.Tunnels == nil {
		cfg.Tunnels = func() []netip.Addr { return nil }
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Taken = func(a netip.Addr) bool { _, taken := cfg.Local.Owner(a); return taken }
	cfg.Cooling = cfg.Local.Cooling
	k := &Keeper{
		cfg: cfg, client: NewClient(cfg.Config), ledger: ledger{filepath.Join(cfg.StateDir, "calico-ipam")},
		kick: make(chan struct{}, 1), full: true, leaks: map[string]time.Time{},
	}
	var err error
	k.entries, err = k.ledger.load()
	return k, err
}

// newEntry is what is owed for a pod.
func (k *Keeper) newEntry(p Pod) *entry {
	attrs := map[string]string{"node": k.cfg.Node, "timestamp": k.cfg.Now().UTC().String()}
	if p.Name != "" {
		attrs["pod"], attrs["namespace"] = p.Name, p.Namespace
	}
	return &entry{Owner: p.Owner, Handle: PodHandle(p.Network, p.ContainerID), Attrs: attrs, Namespace: p.Namespace}
}

// Allocate gives a pod one address of every family, those of want or any. It is the
// pod's in the blocks and in Local when it returns; while the API server is away, in
// Local and on disk. Errors are those of ctrl/ipam, ErrRefused, and those that are Away.
func (k *Keeper) Allocate(ctx context.Context, p Pod, want []netip.Addr) ([]netip.Addr, error) {
	e := k.newEntry(p)
	k.mu.Lock()
	before := k.entries[p.Owner] != nil // of an ADD that failed, or a DEL just now
	k.mu.Unlock()
	if err := k.put(e); err != nil {
		return nil, err
	}
	addrs, err := k.allocate(ctx, e, want)
	if err == nil {
		e.Addrs, e.Settled = addrs, e.Settled && !before
		err = k.put(e)
	}
	if err != nil {
		k.cfg.Local.Release(p.Owner)
		return nil, errors.Join(err, k.Release(p))
	}
	k.wake()
	return addrs, nil
}

func (k *Keeper) allocate(ctx context.Context, e *entry, want []netip.Addr) ([]netip.Addr, error) {
	k.mu.Lock()
	away := k.away
	k.mu.Unlock()
	if away == nil {
		addrs, err := k.ask(ctx, e, want)
		if err == nil || !Away(err) {
			return addrs, err
		}
		away = err
		k.setAway(err)
	}
	addrs, err := k.takeLocal(e, want)
	if err == nil {
		k.cfg.Log.Warn("address taken while the API server is away", "owner", e.Owner, "addrs", addrs, "cause", away)
		return addrs, nil
	}
	if addrs, asked := k.ask(ctx, e, want); asked == nil || !Away(asked) {
		e.Settled = false // what the first question has left is put right
		return addrs, asked
	}
	// Away: what this node refuses, the cluster may have.
	return nil, fmt.Errorf("%s, and Calico's IPAM cannot be asked: %w", err.Error(), away)
}

// ask has the addresses written to the blocks.
func (k *Keeper) ask(ctx context.Context, e *entry, want []netip.Addr) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Patience)
	defer cancel()
	r := e.request()
	r.Want = want
	if len(want) > 0 {
		k.flush(ctx, want)
	}
	addrs, err := k.client.Assign(ctx, r)
	if err == nil {
		err = k.cfg.Local.Reserve(e.Owner, addrs...)
	}
	var taken *TakenError
	if errors.As(err, &taken) {
		return nil, &ipam.RefusedError{Addr: taken.Addr, Why: "it is taken: IPAMBlock " + taken.Block + " says that it is of " + taken.By}
	}
	e.Settled = err == nil
	return addrs, err
}

// flush releases what is still to be released of addresses that somebody asks for.
func (k *Keeper) flush(ctx context.Context, want []netip.Addr) {
	for _, e := range k.list() {
		if e.Release && slices.ContainsFunc(want, func(a netip.Addr) bool { return slices.Contains(e.Addrs, a) }) {
			if err := k.settle(ctx, e); err != nil {
				return // who asks hears of it
			}
		}
	}
}

// takeLocal takes addresses of the own blocks as they were last seen.
func (k *Keeper) takeLocal(e *entry, want []netip.Addr) ([]netip.Addr, error) {
	e.Settled = false
	return k.cfg.Local.Allocate(e.Owner, want...)
}

// Release takes back a pod's addresses in the blocks, soon: it is on disk when it
// returns. Local is the caller's to release. A pod without addresses is no error.
func (k *Keeper) Release(p Pod) error {
	k.mu.Lock()
	var e entry
	if have := k.entries[p.Owner]; have != nil {
		e = *have
	} else {
		e = *k.newEntry(p)
		e.Addrs = p.Addrs
	}
	k.mu.Unlock()
	e.Release, e.Settled, e.conflict = true, false, nil
	err := k.put(&e)
	k.wake()
	return err
}

// put keeps an entry, on disk first.
func (k *Keeper) put(e *entry) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.ledger.put(e); err != nil {
		return err
	}
	copied := *e
	k.entries[e.Owner] = &copied
	return nil
}

// list is a copy of all entries, in the order of their owners.
func (k *Keeper) list() []*entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*entry
	for _, owner := range slices.Sorted(maps.Keys(k.entries)) {
		e := *k.entries[owner]
		all = append(all, &e)
	}
	return all
}

// Look has the next pass look at everything: pools or published addresses are others.
func (k *Keeper) Look() {
	k.mu.Lock()
	k.full = true
	k.mu.Unlock()
	k.wake()
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *Keeper) setAway(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if (k.away == nil) != (err == nil) {
		if err != nil {
			k.cfg.Log.Warn("Calico's IPAM cannot be asked", "cause", err)
		} else {
			k.cfg.Log.Info("Calico's IPAM answers again", "owed", len(k.entries))
		}
	}
	k.away = err
}

// Conflicts are addresses that a pod of this node has and somebody else, too, in the
// order of the pods.
func (k *Keeper) Conflicts() (all []flavour.Conflict) {
	for _, e := range k.list() {
		var taken *TakenError
		if errors.As(e.conflict, &taken) {
			ref := source.Ref{Kind: KindPod, Namespace: e.Attrs["namespace"], Name: e.Attrs["pod"]}
			all = append(all, flavour.Conflict{Object: ref, Key: "status.podIP", Reason: flavour.DuplicateAddress, What: taken.Error() + ", and this pod has it, too; delete one of them"})
		}
	}
	return all
}

// Problem says why this node's blocks are not in order; empty: they are.
func (k *Keeper) Problem() string {
	k.mu.Lock()
	problem := k.away
	if problem == nil {
		problem = k.problem
	}
	k.mu.Unlock()
	if problem == nil {
		problem = k.unsettled()
	}
	if problem == nil {
		return ""
	}
	return "Calico's IPAM: " + problem.Error()
}

// unsettled is why a pod's address cannot be recorded, but for conflicts.
func (k *Keeper) unsettled() error {
	var taken *TakenError
	for _, e := range k.list() {
		if e.conflict != nil && !errors.As(e.conflict, &taken) {
			return fmt.Errorf("pod %s/%s: %w", e.Attrs["namespace"], e.Attrs["pod"], e.conflict)
		}
	}
	return nil
}
