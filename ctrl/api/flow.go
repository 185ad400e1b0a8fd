package api

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"culvert/internal/packet"
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

// What happened to a flow, as 'conntrack -E' has it.
const (
	FlowNew     = "NEW"
	FlowUpdate  = "UPDATE"
	FlowDestroy = "DESTROY"
	// FlowMissed is no event: so many came faster than they were read.
	FlowMissed = "MISSED"
)

// FlowEvent is a line of GET /v1/flows/watch, which goes on until the client hangs up.
type FlowEvent struct {
	Event string `json:"event"`
	// Reason is why a flow ended: expired, evicted, flushed or unroutable.
	Reason string `json:"reason,omitempty"`
	Flow   *Flow  `json:"flow,omitempty"` // as it was at the event
	Missed uint64 `json:"missed,omitempty"`
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

// flowStates are the states that a flow can be listed with.
var flowStates = []string{"SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
	"SYN_SENT2", "UNREPLIED", "REPLIED", "ASSURED",
	"CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"}

// FlowStates are the states that a filter takes.
func FlowStates() []string { return slices.Clone(flowStates) }

// ParseProto reads the name or the number of an IP protocol. It returns what
// Flow.Proto has for it.
func ParseProto(s string) (string, error) {
	number, err := strconv.ParseUint(s, 10, 8)
	if err == nil {
		return packet.ProtoName(uint8(number)), nil
	}
	for number := range 256 {
		if name := packet.ProtoName(uint8(number)); strings.EqualFold(s, name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%q is no protocol: tcp, udp, sctp, icmp, icmpv6, ipip or a number from 0 to 255 is needed", s)
}

// ParseFlowState reads the state of a flow, in upper or lower case.
func ParseFlowState(s string) (string, error) {
	s = strings.ToUpper(s)
	if !slices.Contains(flowStates, s) {
		return "", fmt.Errorf("%q is no state of a flow: one of %s is needed", s, strings.Join(flowStates, ", "))
	}
	return s, nil
}

// Check refuses a protocol or state that no flow has, and writes both as flows
// have them.
func (q *FlowFilter) Check() (err error) {
	if q.Proto != "" {
		if q.Proto, err = ParseProto(q.Proto); err != nil {
			return fmt.Errorf("proto: %w", err)
		}
	}
	if q.State != "" {
		if q.State, err = ParseFlowState(q.State); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	return nil
}

// ParseFlowFilter reads what Query writes. Addresses may come without a length.
// What it does not know it refuses: a mistyped filter must not select all.
func ParseFlowFilter(v url.Values) (q FlowFilter, err error) {
	if err := setEach(v, q.set); err != nil {
		return FlowFilter{}, err
	}
	return q, nil
}

// setEach calls set for every key of a query, each of which may be there once.
func setEach(v url.Values, set func(key, value string) error) error {
	for _, key := range slices.Sorted(maps.Keys(v)) {
		if n := len(v[key]); n != 1 {
			return fmt.Errorf("%s is given %d times", key, n)
		}
		if err := set(key, v.Get(key)); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func (q *FlowFilter) set(key, value string) (err error) {
	switch key {
	case "proto":
		q.Proto, err = ParseProto(value)
	case "state":
		q.State, err = ParseFlowState(value)
	case "src":
		q.Src, err = ParsePrefix(value)
	case "dst":
		q.Dst, err = ParsePrefix(value)
	case "addr":
		q.Addr, err = ParsePrefix(value)
	case "sport":
		q.Sport, err = parsePort(value)
	case "dport":
		q.Dport, err = parsePort(value)
	default:
		err = errors.New("there is no such filter: proto, state, src, dst, addr, sport and dport are possible")
	}
	return err
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no port number from 0 to 65535", s)
	}
	return uint16(n), nil
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
