// Package apiserver answers culvertd's two listeners: the HTTP+JSON interface
// on the unix socket, and the metrics, health and profiling pages on TCP.
//
// It translates between HTTP and a Backend and decides nothing. Its types are
// those of ctrl/api.
package apiserver

import (
	"context"
	"iter"
	"net/netip"

	"culvert/ctrl/api"
)

// Backend is the agent, as the socket's clients see it. Its methods are called
// from many goroutines at once. What they return belongs to the caller. An
// error that is an *api.Error travels under its own status, any other as 500.
type Backend interface {
	Health
	Ports() []api.Port
	// Routes and Flows may be consumed as slowly as the client reads: hold no
	// lock while yielding.
	Routes(all bool) iter.Seq[api.Route]
	Flows(filter api.FlowFilter) iter.Seq[api.Flow]
	// RouteGet is the route that a packet to addr takes, or api.NotFound.
	RouteGet(addr netip.Addr) (api.Route, error)
	FDB() []api.FDBEntry
	Neighbours() []api.Neighbour
	Peers() []api.Peer
	Pods() []api.Pod
	// IPAM says where pods get addresses from, and IPAMAddress everything of one.
	IPAM() api.IPAM
	IPAMAddress(addr netip.Addr) api.IPAMAddress
	// IPAMCheck compares what says who has which address.
	IPAMCheck(ctx context.Context, req api.IPAMCheckRequest) (api.IPAMCheck, error)
	// FlushFlows forgets the flows that match and says how many there were.
	FlushFlows(filter api.FlowFilter) (int, error)
	// WatchFlows emits what happens to flows that match, until ctx ends, which is no
	// error, or emit fails. It emits at least once a second, be it nothing.
	WatchFlows(ctx context.Context, filter api.FlowFilter, emit func([]api.FlowEvent) error) error
	Drops() []api.Drop
	// Capture emits what the dataplane sees of the frames that match, until ctx or the
	// capture ends, which is no error, or emit fails. Errors before the first call of
	// emit are the client's to hear.
	Capture(ctx context.Context, req api.CaptureRequest, emit func([]api.CaptureEvent) error) error
	Config() api.ConfigView
	// Trace is a dry run: it sends nothing and keeps no flow.
	Trace(req api.TraceRequest) (api.TraceResult, error)
	// CNI carries out one call of the plugin. A refusal is a response with a
	// code. ctx ends when the plugin gave up waiting.
	CNI(ctx context.Context, req api.CNIRequest) api.CNIResponse
}

// Health is what probes ask for.
type Health interface {
	// Status says whether the node is ready and, if not, why.
	Status() api.Status
	// Healthy is nil while every worker makes progress; what it returns
	// otherwise is a reason to restart the agent.
	Healthy() error
}
