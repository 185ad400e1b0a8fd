// Package apitest is an agent in memory: a worker-1 with one uplink, two pods
// and a peer, for tests of what talks to an agent.
package apitest

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"culvert/ctrl/api"
)

// Agent answers with its fields. It implements apiserver.Backend and
// metrics.Source. Set fields before the first call; the recorded requests are
// read with Seen.
type Agent struct {
	State       api.Status
	Unhealthy   error
	PortList    []api.Port
	RouteList   []api.Route
	FlowList    []api.Flow
	EventList   []api.FlowEvent
	FDBList     []api.FDBEntry
	Neighs      []api.Neighbour
	PeerList    []api.Peer
	PodList     []api.Pod
	DropList    []api.Drop
	Addresses   api.IPAM
	AddressList []api.IPAMAddress
	Compared    api.IPAMCheck
	ConfigValue api.ConfigView
	TraceValue  api.TraceResult
	Stats       api.FlowStats
	CNIValue    api.CNIResponse
	CaptureList []api.CaptureEvent // behind the BEGIN line
	Capturing   api.CaptureStats

	mu   sync.Mutex
	seen []any
}

// New is a ready worker-1.
func New() *Agent {
	return &Agent{
		State: api.Status{
			Ready: true, Node: "worker-1", Mode: "native", Encap: "vxlan", MTU: 1450,
			Workers: []api.Worker{{ID: 0, Busy: 0.25, Frames: api.Frames{Free: 16000, Total: 16384},
				Bursts: []uint64{10, 5, 2, 1, 0, 0, 3}, BurstFrames: 150, Sleeps: 7, Big: api.BigFrames{Whole: 30, Cut: 4, Merged: 5},
				Fragments: api.Fragments{Datagrams: 6, Held: 2, Evicted: 9, Expired: 8}}},
			Uplinks: []api.Uplink{{Name: "eth0", Addrs: []string{"192.168.0.41/24"}, MTU: 1500, State: "UP", Queues: 1, XDPMode: "generic", Merging: new(true)}},
			Intake:  &api.Intake{Queues: 1, RingFull: map[string]uint64{"rx": 9, "fill": 6}},
			Outer:   api.Outer{Errors: map[string]uint64{"too_big": 3, "port_unreachable": 1}, Narrowed: 1, Fragmented: 12},
			Peers:   1, Pods: 2, Routes: 5, Flows: 3, PodCIDRs: []string{"10.244.1.0/24"},
			VTEP: &api.VTEP{MAC: "66:20:5a:11:9c:0e", Address: "10.244.1.0", Local: "192.168.0.41", VNI: 4096, Port: 4789},
			Conflicts: []api.Conflict{{Object: api.Object{Kind: "Node", Name: "worker-3"}, Key: "spec.podCIDRs[0]", Reason: "DuplicatePodCIDR",
				What:  "10.244.2.0/24 overlaps 10.244.2.0/24 of Node worker-2, so it is left out; give each node its own",
				Since: time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC)}},
			Source: "dir:/etc/culvert/manifests", Version: "v0.1.0",
			Objects: []api.SourceObjects{{Kind: "ConfigMap", Objects: 1}, {Kind: "Node", Objects: 3, Version: "4711", Heard: new(time.Date(2026, 1, 2, 3, 5, 6, 0, time.UTC)), Lists: 2, Resumes: 5}},
			Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		PortList: []api.Port{
			{Name: "eth0", Kind: "uplink", Index: 0, Queues: 1, XDP: api.XDP{Mode: "generic"},
				Rx: api.Counter{Packets: 1200, Bytes: 180000}, Tx: api.Counter{Packets: 1100, Bytes: 170000}, Drops: 3,
				RingFull: map[string]uint64{"rx": 0, "fill": 1, "tx": 2}, MAC: "52:54:00:00:00:41", MTU: 1500},
			{Name: "cv0123456789a", Kind: "veth", Index: 1, Queues: 1, XDP: api.XDP{Mode: "native"},
				Rx: api.Counter{Packets: 500, Bytes: 50000}, Tx: api.Counter{Packets: 600, Bytes: 60000}, Drops: 9,
				RingFull: map[string]uint64{"rx": 0, "fill": 0, "tx": 0}, MAC: "ee:ee:ee:ee:ee:ee", MTU: 1450},
		},
		RouteList: []api.Route{
			{Dst: "10.244.1.0/24", Kind: "blackhole", Protocol: "native"},
			{Dst: "10.244.1.0/32", Kind: "local", Protocol: "native"},
			{Dst: "10.244.1.2/32", Kind: "pod", Dev: "cv0123456789a", MAC: "0a:58:0a:f4:01:02", Protocol: "cni", MTU: 1450},
			{Dst: "10.244.2.0/24", Kind: "vxlan", Via: "192.168.0.42", Dev: "eth0", MAC: "66:61:0d:36:b4:86", VNI: 4096, Protocol: "native", MTU: 1450},
			{Dst: "10.244.3.0/24", Kind: "ipip", Via: "192.168.0.43", Dev: "eth0", Protocol: "native", MTU: 1480, Unresolved: true},
			{Dst: "0.0.0.0/0", Kind: "direct", Via: "192.168.0.1", Dev: "eth0", Protocol: "kernel", MTU: 1500},
			{Dst: "10.9.0.0/16", Kind: "reject", Protocol: "native"},
		},
		FlowList: []api.Flow{
			{Proto: "tcp", State: "ESTABLISHED", Src: "10.244.1.2", Dst: "10.244.2.3", Sport: 40000, Dport: 80,
				Reply:   api.Tuple{Src: "10.244.2.3", Dst: "10.244.1.2", Sport: 80, Dport: 40000, Packets: 8, Bytes: 9000},
				Packets: 18, Bytes: 10000, Timeout: 431999, Assured: true},
			{Proto: "udp", State: "UNREPLIED", Src: "10.244.1.2", Dst: "10.244.2.3", Sport: 5353, Dport: 53,
				Reply:   api.Tuple{Src: "10.244.2.3", Dst: "10.244.1.2", Sport: 53, Dport: 5353},
				Packets: 1, Bytes: 60, Timeout: 29, Unreplied: true},
			{Proto: "icmp", State: "REPLIED", Src: "10.244.1.2", Dst: "10.244.2.3", Sport: 77, Dport: 77,
				Reply:   api.Tuple{Src: "10.244.2.3", Dst: "10.244.1.2", Sport: 77, Dport: 77, Packets: 3, Bytes: 252},
				Packets: 6, Bytes: 504, Timeout: 30},
			{Proto: "47", State: "UNREPLIED", Src: "10.244.1.2", Dst: "10.244.2.3",
				Reply:   api.Tuple{Src: "10.244.2.3", Dst: "10.244.1.2"},
				Packets: 2, Bytes: 80, Timeout: 599, Unreplied: true, Zone: 1},
		},
		FDBList: []api.FDBEntry{{MAC: "66:61:0d:36:b4:86", Dst: "192.168.0.42", VNI: 4096, Flags: []string{"self", "permanent"}}},
		Neighs: []api.Neighbour{
			{Dst: "192.168.0.42", Dev: "eth0", LLAddr: "52:54:00:00:00:42", State: []string{"REACHABLE"}},
			{Dst: "192.168.0.43", Dev: "eth0", State: []string{"INCOMPLETE"}},
		},
		PeerList: []api.Peer{{Name: "worker-2", Dst: "192.168.0.42", Encap: "vxlan", MAC: "66:61:0d:36:b4:86", Address: "10.244.2.0",
			PodCIDRs: []string{"10.244.2.0/24"}, Dev: "eth0", State: "ready", MTU: 1350, PMTU: 1400, Expires: 540,
			Errors: map[string]uint64{"too_big": 3, "port_unreachable": 1}, Fragmented: 12, Fragment: 1396}},
		PodList: []api.Pod{{Namespace: "default", Name: "web-0", ContainerID: "0123456789abcdef0123456789abcdef", IfName: "eth0",
			Port: "cv0123456789a", Addrs: []string{"10.244.1.2"}, MAC: "0a:58:0a:f4:01:02", NetNS: "/var/run/netns/web-0", State: "ready"}},
		Addresses: api.IPAM{Mode: "native", Cooldown: 30, Checked: new(time.Date(2026, 1, 2, 3, 5, 6, 0, time.UTC)),
			Pools:    []api.IPAMPool{{CIDR: "10.244.1.0/24", Kind: "podcidr", Size: 256, Used: 1, Cooling: 2, Free: 250, Reserved: 3}},
			Findings: map[string]int{"unowned": 1, "no_netns": 0}},
		AddressList: []api.IPAMAddress{
			{Address: "10.244.1.2", State: "used", CIDR: "10.244.1.0/24", Kind: "podcidr", Namespace: "default", Name: "web-0",
				ContainerID: "0123456789abcdef0123456789abcdef", IfName: "eth0", Port: "cv0123456789a", NetNS: "/var/run/netns/web-0", PodState: "ready",
				Handle: "k8s-pod-network.0123456789abcdef0123456789abcdef", Since: new(time.Date(2026, 1, 2, 3, 4, 9, 0, time.UTC))},
			{Address: "10.244.1.3", State: "cooling", CIDR: "10.244.1.0/24", Kind: "podcidr",
				Since: new(time.Date(2026, 1, 2, 3, 4, 9, 0, time.UTC)), Until: new(time.Date(2026, 1, 2, 3, 4, 39, 0, time.UTC))},
			{Address: "10.244.1.0", State: "tunnel", Why: "it is this node's tunnel address", CIDR: "10.244.1.0/24", Kind: "podcidr"},
		},
		Compared: api.IPAMCheck{Compared: []string{"2 records of pods", "3 owners of addresses"}, Skipped: []string{"Pods at the API server: forbidden"},
			Findings: []api.IPAMFinding{
				{Kind: "unowned", Address: "10.244.1.9", Owner: "fedcba@eth0", What: "the address is taken, and no record names its container", Do: "culvert ipam check --repair"},
				{Kind: "stray_link", Owner: "cv0123456789b", What: "the link is a pod's (default/old eth0 10.244.1.7), and there is no record of it", Do: "ip link del cv0123456789b, if the pod is gone"},
			}},
		DropList: []api.Drop{
			{Reason: "tx_ring_full", Port: "eth0", Kind: "uplink", Packets: 3},
			{Reason: "no_route", Port: "cv0123456789a", Kind: "veth", Packets: 9},
			{Reason: "no_route", Kind: "veth", Packets: 4},
		},
		ConfigValue: api.ConfigView{File: "/etc/culvert/culvert.yaml",
			Settings: []api.Setting{
				{Key: "node", Value: "worker-1", From: "environment"},
				{Key: "uplinks", Value: []string{"eth0"}, From: "detected"},
				{Key: "vxlan.vni", Value: 4096, From: "default"},
				{Key: "kubeconfig", Value: "", From: "default"},
			},
			Objects: []api.ObjectSource{
				{Name: "nodes.yaml", Objects: 2},
				{Name: "bad.yaml", Error: "bad.yaml:3: spec.podCIDRs: not a list"},
			}},
		TraceValue: api.TraceResult{
			Packet: []api.TraceField{{Name: "in", Value: "cv0123456789a"}, {Name: "src", Value: "10.244.1.2"}, {Name: "dst", Value: "10.9.0.1"}},
			Steps: []api.TraceStep{
				{Step: 1, Table: "spoof", Key: "10.244.1.2", Result: "the pod's own address"},
				{Step: 2, Table: "fib", Key: "10.9.0.1", Result: "10.9.0.0/16 reject"},
			},
			Verdict: "drop", Reason: "reject"},
		Stats: api.FlowStats{States: map[string]int{"established": 1, "udp": 1, "icmp": 1}, Entries: 3, Capacity: 262144, InsertFailures: 2,
			Inserts: 9, Refused: map[string]uint64{"limit": 2}, Ended: map[string]uint64{"expired": 5, "unroutable": 1}},
		Capturing: api.CaptureStats{Running: 2, Missed: 17},
	}
}

// Seen are the requests that changed or asked something, in order.
func (a *Agent) Seen() []any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.seen)
}

func (a *Agent) note(request any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, request)
}

// Status implements apiserver.Health.
func (a *Agent) Status() api.Status { return a.State }

// Healthy implements apiserver.Health.
func (a *Agent) Healthy() error { return a.Unhealthy }

// Ports implements apiserver.Backend, as do the methods below.
func (a *Agent) Ports() []api.Port { return a.PortList }

// Routes yields RouteList, whatever is asked for.
func (a *Agent) Routes(bool) iter.Seq[api.Route] { return slices.Values(a.RouteList) }

// RouteGet finds the longest match in RouteList, the default route left out.
func (a *Agent) RouteGet(addr netip.Addr) (api.Route, error) {
	best, bits := api.Route{}, 0
	for _, r := range a.RouteList {
		if p := netip.MustParsePrefix(r.Dst); p.Contains(addr) && p.Bits() > bits {
			best, bits = r, p.Bits()
		}
	}
	if bits == 0 {
		return best, api.NotFound("no route to %s", addr)
	}
	return best, nil
}

// Flows yields what matches of FlowList.
func (a *Agent) Flows(filter api.FlowFilter) iter.Seq[api.Flow] {
	return func(yield func(api.Flow) bool) {
		for _, f := range a.FlowList {
			if filter.Match(&f) && !yield(f) {
				return
			}
		}
	}
}

// FlushFlows records the filter and counts what matches.
func (a *Agent) FlushFlows(filter api.FlowFilter) (int, error) {
	a.note(filter)
	n := 0
	for range a.Flows(filter) {
		n++
	}
	return n, nil
}

// WatchFlows emits what matches of EventList, then waits.
func (a *Agent) WatchFlows(ctx context.Context, filter api.FlowFilter, emit func([]api.FlowEvent) error) error {
	var events []api.FlowEvent
	for _, e := range a.EventList {
		if e.Flow == nil || filter.Match(e.Flow) {
			events = append(events, e)
		}
	}
	if err := emit(events); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Capture records the request and emits CaptureList; it knows no port "nowhere". Without
// an END line it waits.
func (a *Agent) Capture(ctx context.Context, req api.CaptureRequest, emit func([]api.CaptureEvent) error) error {
	a.note(req)
	if slices.Contains(req.Ports, "nowhere") {
		return api.NotFound("there is no port nowhere")
	}
	if err := emit([]api.CaptureEvent{{Event: api.CaptureBegin, VXLAN: []uint16{4789}}}); err != nil {
		return err
	}
	if err := emit(a.CaptureList); err != nil {
		return err
	}
	if n := len(a.CaptureList); n == 0 || a.CaptureList[n-1].Event != api.CaptureEnd {
		<-ctx.Done()
	}
	return nil
}

// CaptureStats implements metrics.Source.
func (a *Agent) CaptureStats() api.CaptureStats { return a.Capturing }

// FDB is FDBList.
func (a *Agent) FDB() []api.FDBEntry { return a.FDBList }

// Neighbours is Neighs.
func (a *Agent) Neighbours() []api.Neighbour { return a.Neighs }

// Peers is PeerList.
func (a *Agent) Peers() []api.Peer { return a.PeerList }

// Pods is PodList.
func (a *Agent) Pods() []api.Pod { return a.PodList }

// IPAM is Addresses.
func (a *Agent) IPAM() api.IPAM { return a.Addresses }

// IPAMAddress finds it in AddressList; others are foreign.
func (a *Agent) IPAMAddress(addr netip.Addr) api.IPAMAddress {
	for _, known := range a.AddressList {
		if known.Address == addr.String() {
			return known
		}
	}
	return api.IPAMAddress{Address: addr.String(), State: "foreign", Why: "it is in no pod CIDR or block of this node"}
}

// IPAMCheck records the request and answers Compared; a repair mends what is unowned.
func (a *Agent) IPAMCheck(_ context.Context, req api.IPAMCheckRequest) (api.IPAMCheck, error) {
	a.note(req)
	out := a.Compared
	out.Findings = slices.Clone(out.Findings)
	for i := range out.Findings {
		out.Findings[i].Repaired = req.Repair && out.Findings[i].Kind == "unowned"
	}
	return out, nil
}

// Drops is DropList.
func (a *Agent) Drops() []api.Drop { return a.DropList }

// Config is ConfigValue.
func (a *Agent) Config() api.ConfigView { return a.ConfigValue }

// Trace records the request and answers TraceValue; it knows no port "nowhere".
func (a *Agent) Trace(req api.TraceRequest) (api.TraceResult, error) {
	a.note(req)
	if req.Port == "nowhere" {
		return api.TraceResult{}, api.NotFound("there is no port nowhere")
	}
	return a.TraceValue, nil
}

// CNI records the request and answers CNIValue.
func (a *Agent) CNI(_ context.Context, req api.CNIRequest) api.CNIResponse {
	a.note(req)
	return a.CNIValue
}

// FlowStats implements metrics.Source.
func (a *Agent) FlowStats() api.FlowStats { return a.Stats }

// RouteCounts implements metrics.Source.
func (a *Agent) RouteCounts() map[string]int {
	counts := map[string]int{}
	for _, r := range a.RouteList {
		counts[r.Kind]++
	}
	return counts
}
