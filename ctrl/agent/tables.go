package agent

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"culvert/ctrl/api"
	"culvert/dataplane/flow"
	"culvert/fib"
	"culvert/internal/packet"
)

// Routes implements apiserver.Backend.
func (a *Agent) Routes() iter.Seq[api.Route] {
	snap := a.program.Snapshot()
	return func(yield func(api.Route) bool) {
		for r := range snap.Routes() {
			if !yield(routeOf(r, snap.Adjacency(r.Adj))) {
				return
			}
		}
	}
}

// RouteGet implements apiserver.Backend.
func (a *Agent) RouteGet(addr netip.Addr) (api.Route, error) {
	r, adj, ok := a.program.Snapshot().Lookup(packet.AddrFrom(addr))
	if !ok {
		return api.Route{}, api.NotFound("no route to %s", addr)
	}
	return routeOf(r, adj), nil
}

func routeOf(r fib.Route, adj *fib.Adjacency) api.Route {
	out := api.Route{
		Dst: r.Prefix.String(), Kind: adj.Kind.String(), Dev: adj.Dev, VNI: adj.VNI, Protocol: r.Protocol,
	}
	if adj.Via.IsValid() {
		out.Via = adj.Via.String()
	}
	if !adj.MAC.IsZero() {
		out.MAC = adj.MAC.String()
	}
	if adj.Kind == fib.KindPod || adj.Kind.Tunnel() || adj.Kind == fib.KindDirect {
		out.MTU = int(adj.MTU)
		out.Unresolved = !adj.Ready
	}
	return out
}

// FDB implements apiserver.Backend.
func (a *Agent) FDB() []api.FDBEntry {
	out := []api.FDBEntry{}
	for e := range a.program.Snapshot().FDB() {
		out = append(out, api.FDBEntry{MAC: e.MAC.String(), Dst: e.Dst.String(), VNI: e.VNI, Flags: strings.Fields(e.Flags)})
	}
	return out
}

// Neighbours implements apiserver.Backend: the overlay's, then the underlay's.
func (a *Agent) Neighbours() []api.Neighbour {
	all := slices.Collect(a.program.Snapshot().Neighbours())
	all = append(all, a.underlay.Neighbours()...)
	out := []api.Neighbour{}
	for _, n := range all {
		v := api.Neighbour{Dst: n.Addr.String(), Dev: n.Dev, State: []string{n.State}}
		if !n.MAC.IsZero() {
			v.LLAddr = n.MAC.String()
		}
		out = append(out, v)
	}
	return out
}

// Flows implements apiserver.Backend.
func (a *Agent) Flows(filter api.FlowFilter) iter.Seq[api.Flow] {
	return func(yield func(api.Flow) bool) {
		a.engine.FlowTable().Range(func(v flow.View) bool {
			f := flowOf(&v)
			return !filter.Match(&f) || yield(f)
		})
	}
}

// FlushFlows implements apiserver.Backend.
func (a *Agent) FlushFlows(filter api.FlowFilter) (int, error) {
	return a.engine.FlowTable().Flush(func(v *flow.View) bool {
		f := flowOf(v)
		return filter.Match(&f)
	}), nil
}

func flowOf(v *flow.View) api.Flow {
	return api.Flow{
		Proto: v.Proto, State: v.State.String(),
		Src: v.Orig.Src.String(), Dst: v.Orig.Dst.String(), Sport: v.Orig.SrcPort, Dport: v.Orig.DstPort,
		Reply: api.Tuple{
			Src: v.Reply.Src.String(), Dst: v.Reply.Dst.String(), Sport: v.Reply.SrcPort, Dport: v.Reply.DstPort,
			Packets: v.Packets[flow.Reply], Bytes: v.Bytes[flow.Reply],
		},
		Packets: v.Packets[flow.Original] + v.Packets[flow.Reply],
		Bytes:   v.Bytes[flow.Original] + v.Bytes[flow.Reply],
		Timeout: v.Timeout, Assured: v.Assured, Unreplied: v.Unreplied, Zone: v.Orig.Zone,
	}
}

// FlowStats implements metrics.Source.
func (a *Agent) FlowStats() api.FlowStats {
	s := a.engine.FlowTable().Stats()
	refused, evicted := &s.InsertFailures, &s.Evicted
	out := api.FlowStats{
		States: map[string]int{}, Entries: s.Len, Capacity: s.Capacity,
		InsertFailures: refused.Full + refused.Clash + refused.Limit,
		Refusals:       map[string]uint64{"full": refused.Full, "clash": refused.Clash, "limit": refused.Limit},
		Evictions: map[string]uint64{"wire": evicted.Wire, "embryonic": evicted.Embryonic,
			"closing": evicted.Closing, "established": evicted.Established},
		Inserts: s.Inserts, Expired: s.Expired,
	}
	for state, n := range s.States {
		out.States[strings.ToLower(flow.State(state).String())] += n
	}
	return out
}
