package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/source"
)

// Config is what a Client works with.
type Config struct {
	Node  string
	Store Store
	// Blocks are the cluster's IPAMBlocks as last seen, from which free blocks are
	// guessed; of their specs cidr and affinity are enough. nil, or nil returned: they
	// are listed.
	Blocks func() []*source.IPAMBlock
	// Taken reports addresses that a pod of this node has, whatever the blocks say;
	// nil: none.
	Taken func(netip.Addr) bool
	// Cooling reports addresses that a pod of this node has released less than a time
	// ago; 0: the node's own cool-down. nil: none.
	Cooling func(netip.Addr, time.Duration) bool
	Now     func() time.Time // nil: the clock
	Log     *slog.Logger     // nil: nothing is logged
}

// Client does one node's part of the protocol. It is safe for concurrent use: its
// operations wait for each other, and their waiting ends with their context.
type Client struct {
	cfg  Config
	turn chan struct{} // held by the operation that runs

	// What was read or written last. Writes compare and swap, so that what is old
	// costs another look and nothing else.
	set *settings
	// cooldown is that of the settings that were read last, for who does not wait.
	cooldown atomic.Int64
	own      []affinity
	ownRead  time.Time
	blocks   map[netip.Prefix]*block
	handles  map[string]*handle
}

// tries bounds how often an object that others change is read again.
const tries = 50

var (
	errBusy   = errors.New("others change it all the time")
	errNoRoom = errors.New("no room")
)

// NewClient makes a client; nothing is asked yet.
func NewClient(cfg Config) *Client {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Taken == nil {
		cfg.Taken = func(netip.Addr) bool { return false }
	}
	if cfg.Cooling == nil {
		cfg.Cooling = func(netip.Addr, time.Duration) bool { return false }
	}
	if cfg.Blocks == nil {
		cfg.Blocks = func() []*source.IPAMBlock { return nil }
	}
	return &Client{cfg: cfg, turn: make(chan struct{}, 1), blocks: map[netip.Prefix]*block{}, handles: map[string]*handle{}}
}

// lock waits for the operations before.
func (c *Client) lock(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for other addresses: %w", ctx.Err())
	}
}

func (c *Client) unlock() { <-c.turn }

// Forget drops what was read before: the next operation looks at everything anew.
func (c *Client) Forget(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	c.set, c.own = nil, nil
	clear(c.blocks)
	clear(c.handles)
	return nil
}

// getBlock reads a block; ErrNotFound if there is none.
func (c *Client) getBlock(ctx context.Context, cidr netip.Prefix) (*block, error) {
	delete(c.blocks, cidr)
	obj, err := c.cfg.Store.Get(ctx, blockRef(cidr))
	if err != nil {
		return nil, fmt.Errorf("IPAMBlock %s: %w", cidr, err)
	}
	b, err := readBlock(obj)
	if err != nil {
		return nil, err
	}
	if b.spec.Deleted { // somebody was about to delete it
		if err := c.remove(ctx, obj); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("IPAMBlock %s: %w", cidr, err)
		}
		return nil, fmt.Errorf("IPAMBlock %s: %w", cidr, ErrNotFound)
	}
	return b, nil
}

// remove deletes an IPAMBlock, IPAMHandle or BlockAffinity as Calico does
// (libcalico-go/lib/backend/k8s/resources, the kinds' DeleteKVP): it is marked first, so
// that who reads it in between, or finds it after a crash, knows that it is nobody's.
func (c *Client) remove(ctx context.Context, obj *unstructured.Unstructured) error {
	spec, _ := obj.Object["spec"].(map[string]any)
	if was := spec["deleted"]; was != true && was != "true" {
		obj = obj.DeepCopy()
		mark := any(true)
		if obj.GetKind() == KindAffinity {
			mark = "true" // of crd.projectcalico.org/v1
		}
		err := unstructured.SetNestedField(obj.Object, mark, "spec", "deleted")
		if err == nil {
			obj, err = c.cfg.Store.Update(ctx, obj)
		}
		if err != nil {
			return err
		}
	}
	err := c.cfg.Store.Delete(ctx, obj)
	if errors.Is(err, ErrNotFound) { // somebody has finished it
		return nil
	}
	return err
}

// putBlock writes a block by compare-and-swap and remembers it if it is ours.
func (c *Client) putBlock(ctx context.Context, b *block) (*block, error) {
	delete(c.blocks, b.cidr)
	b.spec.SequenceNumber++
	obj, err := b.object()
	if err == nil {
		obj, err = c.cfg.Store.Update(ctx, obj)
	}
	if err != nil {
		return nil, fmt.Errorf("IPAMBlock %s: %w", b.cidr, err)
	}
	return c.written(obj)
}

// written is a block as the API server has it now.
func (c *Client) written(obj *unstructured.Unstructured) (*block, error) {
	b, err := readBlock(obj)
	if err == nil && b.node() == c.cfg.Node {
		c.blocks[b.cidr] = b
	}
	return b, err
}

// seen is what the list of all blocks says of one.
type seen struct {
	node  string
	free  int
	empty bool
	age   time.Duration
	seq   uint64
}

// known are the prefixes of the cluster's blocks, of which some may be outdated.
func (c *Client) known(ctx context.Context) (map[netip.Prefix]bool, error) {
	all := map[netip.Prefix]bool{}
	if objs := c.cfg.Blocks(); objs != nil {
		for _, obj := range objs {
			if cidr, what := source.ParseCIDR(obj.Spec.CIDR); what == "" && !obj.Spec.Deleted {
				all[cidr] = true
			}
		}
		return all, nil
	}
	listed, err := c.listBlocks(ctx)
	for cidr := range listed {
		all[cidr] = true
	}
	return all, err
}

// listBlocks are the cluster's blocks as of now.
func (c *Client) listBlocks(ctx context.Context) (map[netip.Prefix]seen, error) {
	objs, err := c.cfg.Store.List(ctx, KindBlock, nil)
	if err != nil {
		return nil, fmt.Errorf("IPAMBlocks: %w", err)
	}
	all := map[netip.Prefix]seen{}
	for _, obj := range objs {
		if b, err := readBlock(obj); err == nil && !b.spec.Deleted {
			all[b.cidr] = seen{b.node(), len(b.spec.Unallocated), b.empty(), b.age(c.cfg.Now()), b.spec.SequenceNumber}
		}
	}
	return all, nil
}

// affinity is a BlockAffinity of this node, or of another whose block is taken over.
type affinity struct {
	obj  *unstructured.Unstructured
	cidr netip.Prefix
	spec source.BlockAffinitySpec
}

// States of an affinity.
const (
	pending         = "pending"
	confirmed       = "confirmed"
	pendingDeletion = "pendingDeletion"
)

func readAffinity(obj *unstructured.Unstructured) (affinity, error) {
	a := affinity{obj: obj}
	if err := readSpec(obj, &a.spec); err != nil {
		return a, fmt.Errorf("BlockAffinity %s: %w: %w", obj.GetName(), err, ErrRefused)
	}
	var what string
	if a.cidr, what = source.ParseCIDR(a.spec.CIDR); what != "" {
		return a, fmt.Errorf("BlockAffinity %s: spec.cidr: %s: %w", obj.GetName(), what, ErrRefused)
	}
	return a, nil
}

// ownAge is how long the list of this node's affinities is gone by.
const ownAge = 30 * time.Second

// affinities are this node's, in the order of their prefixes. Those without Calico's
// labels, which early versions did not write, are found by the blocks.
func (c *Client) affinities(ctx context.Context) ([]affinity, error) {
	if c.own != nil && c.cfg.Now().Sub(c.ownRead) < ownAge {
		return c.own, nil
	}
	objs, err := c.cfg.Store.List(ctx, KindAffinity, hostLabels(c.cfg.Node))
	if err != nil {
		return nil, fmt.Errorf("BlockAffinities: %w", err)
	}
	all, known := []affinity{}, map[netip.Prefix]bool{}
	add := func(obj *unstructured.Unstructured) {
		a, err := readAffinity(obj)
		if err != nil || a.spec.Node != c.cfg.Node || a.spec.Type != "" && a.spec.Type != "host" || known[a.cidr] {
			return
		}
		known[a.cidr] = true
		all = append(all, a)
	}
	for _, obj := range objs {
		add(obj)
	}
	for _, b := range c.cfg.Blocks() {
		cidr, what := source.ParseCIDR(b.Spec.CIDR)
		if what != "" || b.Spec.Affinity == nil || *b.Spec.Affinity != hostAffinity(c.cfg.Node) || known[cidr] {
			continue
		}
		obj, err := c.cfg.Store.Get(ctx, affinityRef(c.cfg.Node, cidr))
		switch {
		case err == nil:
			add(obj)
		case !errors.Is(err, ErrNotFound):
			return nil, fmt.Errorf("BlockAffinity of %s: %w", cidr, err)
		}
	}
	slices.SortFunc(all, func(a, b affinity) int {
		return strings.Compare(affinityName("", a.cidr), affinityName("", b.cidr))
	})
	c.own, c.ownRead = all, c.cfg.Now()
	return all, nil
}
