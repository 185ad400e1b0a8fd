package main

import (
	"net/netip"

	"culvert/ctrl/api"
)

// prefixFlag is ADDRESS or ADDRESS/LENGTH on the command line.
type prefixFlag netip.Prefix

func (p *prefixFlag) Type() string { return "address[/length]" }

func (p *prefixFlag) String() string {
	if q := netip.Prefix(*p); q.IsValid() {
		return q.String()
	}
	return ""
}

func (p *prefixFlag) Set(s string) error {
	q, err := api.ParsePrefix(s)
	*p = prefixFlag(q)
	return err
}
