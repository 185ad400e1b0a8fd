package agent

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/program"
	"culvert/dataplane/flow"
	"culvert/fib"
	"culvert/internal/packet"
)

// Routes implements apiserver.Backend: the routes of the cluster, or all of them.
func (a *Agent) Routes(all bool) iter.Seq[api.Route] {
	snap := a.program.Snapshot()
	return func(yield func(api.Route) bool) {
		for r := range snap.Routes() {
			if !all && program.Beside(r, snap) {
				continue
			}
			if !yield(routeOf(snap, r)) {
				return
			}
		}
	}
}

// RouteGet implements apiserver.Backend.
func (a *Agent) RouteGet(addr netip.Addr) (api.Route, error) {
	snap := a.program.Snapshot()
	r, _, ok := snap.Lookup(packet.AddrFrom(addr))
	if !ok {
		return api.Route{}, api.NotFound("no route to %s", addr)
	}
	return routeOf(snap, r), nil
}

func routeOf(snap *fib.Snapshot, r fib.Route) api.Route {
	adj := snap.Adjacency(r.Adj)
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
	for _, m := range snap.Members(r.Adj) {
		way := api.NextHop{Dev: m.Dev, Weight: int(m.Weight), Buckets: m.Buckets, Unresolved: !m.Ready}
		if m.Gateway.IsValid() {
			way.Gateway = m.Gateway.String()
		}
		if m.Via != adj.Via {
			way.Via = m.Via.String()
		}
		out.NextHops = append(out.NextHops, way)
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

// watchEvery is how often the flow table is asked for events, and how old one gets.
const watchEvery = 100 * time.Millisecond

// WatchFlows implements apiserver.Backend.
func (a *Agent) WatchFlows(ctx context.Context, filter api.FlowFilter, emit func([]api.FlowEvent) error) error {
	w := a.engine.FlowTable().Watch()
	defer w.Close()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	buf := make([]flow.Event, 256)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.ending:
			return nil
		case <-tick.C:
		}
		for {
			n, missed := w.Read(buf)
			if err := emit(flowEvents(buf[:n], missed, &filter)); err != nil {
				return err
			}
			if n < len(buf) {
				break
			}
		}
	}
}

// flowEvents are those that match, behind a note of those that were missed.
func flowEvents(events []flow.Event, missed uint64, filter *api.FlowFilter) (out []api.FlowEvent) {
	if missed > 0 {
		out = append(out, api.FlowEvent{Event: api.FlowMissed, Missed: missed})
	}
	for i := range events {
		e := &events[i]
		v := api.FlowEvent{Event: api.FlowUpdate}
		f := flowOf(&e.View)
		if !filter.Match(&f) {
			continue
		}
		v.Flow = &f
		switch {
		case e.Change == flow.Began:
			v.Event = api.FlowNew
		case e.Change.Ended():
			v.Event, v.Reason = api.FlowDestroy, e.Change.String()
		}
		out = append(out, v)
	}
	return out
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
	out := api.FlowStats{
		States: map[string]int{}, Entries: s.Len, Capacity: s.Capacity,
		InsertFailures: s.InsertFailures.Full + s.InsertFailures.Clash + s.InsertFailures.Limit,
		Inserts:        s.Inserts,
		Refused:        map[string]uint64{"full": s.InsertFailures.Full, "clash": s.InsertFailures.Clash, "limit": s.InsertFailures.Limit},
		Ended: map[string]uint64{
			flow.Expired.String(): s.Expired, flow.Flushed.String(): s.Flushed, flow.Gone.String(): s.Gone,
			"evicted_wire": s.Evicted.Wire, "evicted_embryonic": s.Evicted.Embryonic,
			"evicted_closing": s.Evicted.Closing, "evicted_established": s.Evicted.Established,
		},
	}
	for state, n := range s.States {
		out.States[strings.ToLower(flow.State(state).String())] += n
	}
	return out
}
