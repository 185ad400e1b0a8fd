package flavour

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// claims are prefixes, no two of which overlap, and the nodes that have them.
// The zero claims is empty.
type claims struct{ t bart.Table[string] }

// overlap finds a claim that shares addresses with p.
func (c *claims) overlap(p netip.Prefix) (other netip.Prefix, owner string, taken bool) {
	if !c.t.OverlapsPrefix(p) {
		return other, "", false
	}
	if other, owner, ok := c.t.LookupPrefixLPM(p); ok {
		return other, owner, true
	}
	for other, owner := range c.t.Subnets(p) {
		return other, owner, true
	}
	return p, "", true
}

func (c *claims) add(p netip.Prefix, owner string) { c.t.Insert(p, owner) }
