package api

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Flow is an element of GET /v1/flows. Packets and Bytes count both
// directions; Reply's are the part of the reply direction.
type Flow struct {
	Proto string `json:"proto"` // tcp, udp, sctp, icmp, icmpv6, or a number
	// State is as conntrack prints it for TCP and SCTP; UNREPLIED, REPLIED or
	// ASSURED for what has no states.
	State string `json:"state"`
	Src   string `json:"src"`
	Dst   string `json:"dst"`
	// Sport and Dport are the identifier for ICMP echo, 0 where there are none.
	Sport     uint16 `json:"sport"`
	Dport     uint16 `json:"dport"`
	Reply     Tuple  `json:"reply"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Timeout   uint32 `json:"timeout"` // seconds until it expires
	Assured   bool   `json:"assured,omitempty"`
	Unreplied bool   `json:"unreplied,omitempty"`
	Zone      uint16 `json:"zone,omitempty"`
}

// Tuple is the reply direction of a flow.
type Tuple struct {
	Src     string `json:"src"`
	Dst     string `json:"dst"`
	Sport   uint16 `json:"sport"`
	Dport   uint16 `json:"dport"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// FlowFilter selects flows; a zero field selects all. Src and Dst are of the
// original direction, Addr matches either end in either direction.
type FlowFilter struct {
	Proto string       `json:"proto,omitempty"`
	State string       `json:"state,omitempty"`
	Src   netip.Prefix `json:"src,omitzero"`
	Dst   netip.Prefix `json:"dst,omitzero"`
	Addr  netip.Prefix `json:"addr,omitzero"`
	Sport uint16       `json:"sport,omitempty"`
	Dport uint16       `json:"dport,omitempty"`
}

// Flushed is the answer to POST /v1/flows/flush.
type Flushed struct {
	Flushed int `json:"flushed"`
}

// Match reports whether f is selected.
func (q *FlowFilter) Match(f *Flow) bool {
	return (q.Proto == "" || strings.EqualFold(q.Proto, f.Proto)) &&
		(q.State == "" || strings.EqualFold(q.State, f.State)) &&
		(q.Sport == 0 || q.Sport == f.Sport) &&
		(q.Dport == 0 || q.Dport == f.Dport) &&
		within(q.Src, f.Src) && within(q.Dst, f.Dst) &&
		(!q.Addr.IsValid() || within(q.Addr, f.Src) || within(q.Addr, f.Dst) ||
			within(q.Addr, f.Reply.Src) || within(q.Addr, f.Reply.Dst))
}

func within(p netip.Prefix, addr string) bool {
	if !p.IsValid() {
		return true
	}
	a, err := netip.ParseAddr(addr)
	return err == nil && p.Contains(a.Unmap())
}

// Query is the filter as the parameters of GET /v1/flows.
func (q *FlowFilter) Query() url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	set("proto", q.Proto)
	set("state", q.State)
	for key, p := range map[string]netip.Prefix{"src": q.Src, "dst": q.Dst, "addr": q.Addr} {
		if p.IsValid() {
			v.Set(key, p.String())
		}
	}
	if q.Sport != 0 {
		v.Set("sport", strconv.Itoa(int(q.Sport)))
	}
	if q.Dport != 0 {
		v.Set("dport", strconv.Itoa(int(q.Dport)))
	}
	return v
}

// ParseFlowFilter reads what Query writes. Addresses may come without a length.
func ParseFlowFilter(v url.Values) (q FlowFilter, err error) {
	q.Proto, q.State = v.Get("proto"), v.Get("state")
	for key, p := range map[string]*netip.Prefix{"src": &q.Src, "dst": &q.Dst, "addr": &q.Addr} {
		if s := v.Get(key); s != "" {
			if *p, err = ParsePrefix(s); err != nil {
				return q, fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	for key, p := range map[string]*uint16{"sport": &q.Sport, "dport": &q.Dport} {
		if s := v.Get(key); s != "" {
			n, err := strconv.ParseUint(s, 10, 16)
			if err != nil {
				return q, fmt.Errorf("%s: %q is no port number from 0 to 65535", key, s)
			}
			*p = uint16(n)
		}
	}
	return q, nil
}

// ParsePrefix reads ADDRESS or ADDRESS/LENGTH, host bits cleared.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no IP address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no prefix in the form ADDRESS/LENGTH", s)
	}
	return p.Masked(), nil
}
