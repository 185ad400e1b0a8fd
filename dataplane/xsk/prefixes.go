package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// Prefixes are the pods' prefixes in the maps of a steering program: packets for
// them are taken as they are. The owner of the program serialises its use.
type Prefixes struct {
	set    *ebpf.Map
	routed *ebpf.Variable // how many there are
	have   []netip.Prefix
}

// NewPrefixes finds the maps in a loaded program of bpf/tunnel.h. They live as long
// as coll, or until they are detached from it and closed.
func NewPrefixes(coll *ebpf.Collection) *Prefixes {
	return &Prefixes{set: coll.Maps[steerMapPrefixes], routed: coll.Variables[steerVarRouted]}
}

// Set makes those the prefixes. New ones are added before old ones are removed: one
// that is in both sets is never missing.
func (p *Prefixes) Set(prefixes []netip.Prefix) error {
	for _, n := range prefixes {
		n = n.Masked()
		if slices.Contains(p.have, n) {
			continue
		}
		if err := p.set.Put(prefixKey(n), uint8(1)); err != nil {
			return fmt.Errorf("xsk: steering %s: %w: at most %d prefixes fit", n, err, p.set.MaxEntries())
		}
		p.have = append(p.have, n)
	}
	if err := p.routed.Set(uint32(len(prefixes))); err != nil {
		return fmt.Errorf("xsk: steering %v: %w", prefixes, err)
	}
	kept := p.have[:0]
	for _, n := range p.have {
		if slices.ContainsFunc(prefixes, func(want netip.Prefix) bool { return want.Masked() == n }) {
			kept = append(kept, n)
		} else if err := p.set.Delete(prefixKey(n)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("xsk: no longer steering %s: %w", n, err)
		}
	}
	p.have = kept
	return nil
}

// prefixKey is struct prefix of bpf/tunnel.h.
func prefixKey(n netip.Prefix) (key [20]byte) {
	bits := n.Bits()
	if n.Addr().Is4() {
		bits += 96
	}
	addr := n.Addr().As16()
	binary.NativeEndian.PutUint32(key[:], uint32(bits))
	copy(key[4:], addr[:])
	return key
}
