package metrics

import (
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/ctrl/api"
)

// collector turns one reading of the source into metrics.
type collector struct{ source Source }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("culvert_"+name, help, labels, nil)
}

var (
	rxPackets  = describe("port_receive_packets_total", "Packets received on a port.", "port", "kind")
	rxBytes    = describe("port_receive_bytes_total", "Bytes received on a port, Ethernet headers included.", "port", "kind")
	txPackets  = describe("port_transmit_packets_total", "Packets sent on a port.", "port", "kind")
	txBytes    = describe("port_transmit_bytes_total", "Bytes sent on a port, Ethernet headers included.", "port", "kind")
	ringFull   = describe("xsk_ring_full_total", "Frames lost, or sends put off, because an AF_XDP ring had no room (rx, tx) or no free frame (fill); port intake is what pods share for receiving.", "port", "ring")
	drops      = describe("drops_total", "Frames dropped, by reason and kind of port; 'culvert explain REASON' says what each means.", "reason", "kind")
	flows      = describe("flows", "Flows in the flow table, by state.", "state")
	flowCap    = describe("flow_capacity", "Flows that the flow table can hold.")
	flowFails  = describe("flow_insert_failures_total", "Flows that were refused.")
	inserts    = describe("flow_inserts_total", "Flows that were made.")
	refusals   = describe("flow_refusals_total", "Flows that were refused, by reason: full, clash of the reply's addresses, limit of half-open flows.", "reason")
	flowEnds   = describe("flow_ends_total", "Flows that ended, by reason.", "reason")
	routes     = describe("routes", "Routes in the forwarding table, by kind.", "kind")
	peers      = describe("peers", "Other nodes that this node has routes to.")
	outerErrs  = describe("outer_errors_total", "ICMP errors from the underlay about tunnel packets to peers, by kind.", "error")
	outerFrags = describe("outer_fragmented_total", "Tunnel packets from peers that came in fragments.")
	narrowed   = describe("peers_path_mtu", "Peers whose path MTU is known from ICMP errors.")
	conflicts  = describe("conflicts", "What of the cluster's objects this node cannot carry out, by kind of object; 'culvert status' says what is wrong.", "kind")
	pods       = describe("pods", "Pods attached to this node.")
	addresses  = describe("ipam_addresses", "Addresses of this node's pod CIDRs or blocks, by state: used, cooling (released a short while ago), free, reserved.", "state")
	leaked     = describe("ipam_findings", "What does not fit of addresses, records, links and namespaces of this node's pods, by kind, as compared every five minutes; 'culvert ipam check' says what.", "kind")
	ready      = describe("ready", "1 while the node carries pod traffic as configured.")
	stale      = describe("config_stale", "1 while the last reading of the source failed and older objects are in force.")
	objects    = describe("source_objects", "Objects in force, by kind.", "kind")
	lists      = describe("source_lists_total", "Times that all objects of a kind were read from the API server: once, and whenever it has forgotten what was seen last.", "kind")
	resumes    = describe("source_watch_resumes_total", "Times that a watch of the API server ended and was taken up where it had been.", "kind")
	busy       = describe("worker_busy_ratio", "Part of the last second that a worker had frames to handle.", "worker")
	burstSize  = describe("worker_burst_size", "Frames a worker received at once.", "worker")
	sleeps     = describe("worker_sleeps_total", "Times a worker waited for input.", "worker")
	bigFrames  = describe("worker_big_frames_total", "Frames that stand for many on a wire, and what was done: passed on whole, cut, or merged from segments.", "worker", "done")
	datagrams  = describe("worker_fragmented_datagrams", "Datagrams in fragments of which not all have come.", "worker")
	heldFrags  = describe("worker_held_fragments", "Fragments that wait for the first one of their datagram.", "worker")
	lostFrags  = describe("worker_fragmented_datagrams_forgotten_total", "Datagrams in fragments that were forgotten before all had come: to make room for others (evicted), or because they did not come in time (expired).", "worker", "why")
	freeFrames = describe("umem_free_frames", "Frames of a worker's memory that nobody holds.", "worker")
	allFrames  = describe("umem_frames", "Frames of a worker's memory.", "worker")
	captures   = describe("captures", "Captures of frames that run.")
	capMissed  = describe("capture_missed_total", "Frames that captures did not keep because nobody read in time.")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rxPackets, rxBytes, txPackets, txBytes, ringFull, drops, flows, flowCap, flowFails, inserts, refusals, flowEnds,
		routes, peers, outerErrs, outerFrags, narrowed, conflicts, pods, addresses, leaked, ready, stale, objects, lists, resumes, busy, burstSize, sleeps, bigFrames, datagrams, heldFrags, lostFrags, freeFrames, allFrames,
		captures, capMissed,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.collectPorts(ch)
	c.collectDrops(ch)
	c.collectTables(ch)
	s := c.source.Status()
	gauge(ch, peers, float64(s.Peers))
	for kind, n := range s.Outer.Errors {
		counter(ch, outerErrs, n, kind)
	}
	counter(ch, outerFrags, s.Outer.Fragmented)
	gauge(ch, narrowed, float64(s.Outer.Narrowed))
	collectConflicts(ch, s.Conflicts)
	gauge(ch, pods, float64(s.Pods))
	collectIPAM(ch, c.source.IPAM())
	gauge(ch, ready, oneIf(s.Ready))
	gauge(ch, stale, oneIf(s.Stale))
	for _, k := range s.Objects {
		gauge(ch, objects, float64(k.Objects), k.Kind)
		if k.Heard != nil {
			counter(ch, lists, k.Lists, k.Kind)
			counter(ch, resumes, k.Resumes, k.Kind)
		}
	}
	if s.Intake != nil {
		for ring, n := range s.Intake.RingFull {
			counter(ch, ringFull, n, "intake", ring)
		}
	}
	for i := range s.Workers {
		collectWorker(ch, &s.Workers[i])
	}
}

func collectIPAM(ch chan<- prometheus.Metric, view api.IPAM) {
	var sum [4]float64
	for i := range view.Pools {
		p := &view.Pools[i]
		for j, n := range []uint64{p.Used, p.Cooling, p.Free, p.Reserved} {
			sum[j] += float64(n)
		}
	}
	for j, state := range []string{"used", "cooling", "free", "reserved"} {
		gauge(ch, addresses, sum[j], state)
	}
	for kind, n := range view.Findings {
		gauge(ch, leaked, float64(n), kind)
	}
}

// conflictKinds are the kinds of objects that conflicts are about, published even
// when there are none.
var conflictKinds = []string{"Node", "ConfigMap", "IPPool", "IPAMBlock", "BlockAffinity", "FelixConfiguration"}

func collectConflicts(ch chan<- prometheus.Metric, list []api.Conflict) {
	counts := map[string]int{}
	for _, kind := range conflictKinds {
		counts[kind] = 0
	}
	for i := range list {
		counts[list[i].Object.Kind]++
	}
	for kind, n := range counts {
		gauge(ch, conflicts, float64(n), kind)
	}
}

func (c *collector) collectPorts(ch chan<- prometheus.Metric) {
	for _, p := range c.source.Ports() {
		counter(ch, rxPackets, p.Rx.Packets, p.Name, p.Kind)
		counter(ch, rxBytes, p.Rx.Bytes, p.Name, p.Kind)
		counter(ch, txPackets, p.Tx.Packets, p.Name, p.Kind)
		counter(ch, txBytes, p.Tx.Bytes, p.Name, p.Kind)
		for ring, n := range p.RingFull {
			counter(ch, ringFull, n, p.Name, ring)
		}
	}
}

// collectDrops sums over ports, those that are gone included: the reason and
// the kind are enough to alert on, and the sum never goes back.
func (c *collector) collectDrops(ch chan<- prometheus.Metric) {
	type key struct{ reason, kind string }
	sums := map[key]uint64{}
	for _, d := range c.source.Drops() {
		sums[key{d.Reason, d.Kind}] += d.Packets
	}
	for k, n := range sums {
		counter(ch, drops, n, k.reason, k.kind)
	}
}

// routeKinds are published even when there are none, as are flow states that
// the source knows: a gauge that appears and vanishes cannot be alerted on.
var routeKinds = []string{"vxlan", "ipip", "direct", "pod", "local", "blackhole", "reject"}

func (c *collector) collectTables(ch chan<- prometheus.Metric) {
	counts := c.source.RouteCounts()
	for _, kind := range routeKinds {
		gauge(ch, routes, float64(counts[kind]), kind)
	}
	for kind, n := range counts {
		if !slices.Contains(routeKinds, kind) {
			gauge(ch, routes, float64(n), kind)
		}
	}
	capturing := c.source.CaptureStats()
	gauge(ch, captures, float64(capturing.Running))
	counter(ch, capMissed, capturing.Missed)
	f := c.source.FlowStats()
	for state, n := range f.States {
		gauge(ch, flows, float64(n), state)
	}
	gauge(ch, flowCap, float64(f.Capacity))
	counter(ch, flowFails, f.InsertFailures)
	counter(ch, inserts, f.Inserts)
	for reason, n := range f.Refused {
		counter(ch, refusals, n, reason)
	}
	for reason, n := range f.Ended {
		counter(ch, flowEnds, n, reason)
	}
}

func collectWorker(ch chan<- prometheus.Metric, w *api.Worker) {
	id := strconv.Itoa(w.ID)
	gauge(ch, busy, w.Busy, id)
	gauge(ch, freeFrames, float64(w.Frames.Free), id)
	gauge(ch, allFrames, float64(w.Frames.Total), id)
	counter(ch, sleeps, w.Sleeps, id)
	counter(ch, bigFrames, w.Big.Whole, id, "whole")
	counter(ch, bigFrames, w.Big.Cut, id, "cut")
	counter(ch, bigFrames, w.Big.Merged, id, "merged")
	gauge(ch, datagrams, float64(w.Fragments.Datagrams), id)
	gauge(ch, heldFrags, float64(w.Fragments.Held), id)
	counter(ch, lostFrags, w.Fragments.Evicted, id, "evicted")
	counter(ch, lostFrags, w.Fragments.Expired, id, "expired")
	count, buckets := uint64(0), make(map[float64]uint64, len(w.Bursts))
	for i, n := range w.Bursts {
		count += n
		buckets[math.Ldexp(1, i)] = count
	}
	ch <- prometheus.MustNewConstHistogram(burstSize, count, float64(w.BurstFrames), buckets, id)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
