package calicoipam

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"culvert/ctrl/source"
)

// Given is an address that a block gives.
type Given struct {
	Addr     netip.Addr
	Handle   string
	Attrs    map[string]string
	Released bool // its attributes say since when it is not used any more
}

// Held is a block that is this node's, or gives this node an address.
type Held struct {
	CIDR  netip.Prefix
	Own   bool
	Given []Given
}

// Audit is what the API server has of Calico's IPAM, as far as it concerns this node, and
// which handles are just about to be written. It reads every block and handle.
type Audit struct {
	Blocks  []Held
	Handles map[string]map[string]int // addresses by handle and block
	Owed    map[string]bool
}

// Audit reads the IPAM's objects; errors are those of the Store.
func (k *Keeper) Audit(ctx context.Context) (*Audit, error) {
	out := &Audit{Blocks: []Held{}, Handles: map[string]map[string]int{}, Owed: map[string]bool{}}
	note := func() {
		for _, e := range k.list() {
			if !e.Settled || e.Release {
				out.Owed[e.Handle] = true
			}
		}
	}
	note()
	blocks, err := k.cfg.Store.List(ctx, KindBlock, nil)
	if err != nil {
		return nil, fmt.Errorf("IPAMBlocks: %w", err)
	}
	for _, obj := range blocks {
		if b, err := readBlock(obj); err == nil && !b.spec.Deleted {
			out.add(b, k.cfg.Node)
		}
	}
	handles, err := k.cfg.Store.List(ctx, KindHandle, nil)
	if err != nil {
		return nil, fmt.Errorf("IPAMHandles: %w", err)
	}
	for _, obj := range handles {
		var spec source.IPAMHandleSpec
		if readSpec(obj, &spec) == nil && !spec.Deleted {
			out.Handles[spec.HandleID] = spec.Block
		}
	}
	note()
	return out, nil
}

// add takes up a block if it is of interest to a node.
func (a *Audit) add(b *block, node string) {
	held := Held{CIDR: b.cidr, Own: b.node() == node}
	here := held.Own
	for ord := range b.spec.Allocations {
		if at := b.attributes(ord); at != nil {
			held.Given = append(held.Given, Given{b.addr(ord), handleOf(at), at.Secondary, at.ReleasedAt != nil})
			here = here || at.Secondary["node"] == node
		}
	}
	if here {
		a.Blocks = append(a.Blocks, held)
	}
}

// Cooldown is the cluster's, as it was read last; 0: it has none.
func (k *Keeper) Cooldown() time.Duration { return time.Duration(k.client.cooldown.Load()) }
