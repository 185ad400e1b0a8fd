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
	rxPackets   = describe("port_receive_packets_total", "Packets received on a port.", "port", "kind")
	rxBytes     = describe("port_receive_bytes_total", "Bytes received on a port, Ethernet headers included.", "port", "kind")
	txPackets   = describe("port_transmit_packets_total", "Packets sent on a port.", "port", "kind")
	txBytes     = describe("port_transmit_bytes_total", "Bytes sent on a port, Ethernet headers included.", "port", "kind")
	ringFull    = describe("xsk_ring_full_total", "Frames lost, or sends put off, because an AF_XDP ring had no room (rx, tx) or no free frame (fill).", "port", "ring")
	drops       = describe("drops_total", "Frames dropped, by reason and kind of port; 'culvert explain REASON' says what each means.", "reason", "kind")
	flows       = describe("flows", "Flows in the flow table, by state.", "state")
	flowCap     = describe("flow_capacity", "Flows that the flow table can hold.")
	flowFails   = describe("flow_insert_failures_total", "Flows that the flow table refused.")
	flowRefused = describe("flow_refusals_total", "Flows that the flow table refused, by reason: it was full, the answers clashed with another flow's, or one pod had too many half-open flows.", "reason")
	flowEvicted = describe("flow_evictions_total", "Flows that made room for others, by what they were: half-open from the wire or from a pod (embryonic), closing, established.", "class")
	flowInserts = describe("flow_inserts_total", "Flows that were added.")
	flowExpired = describe("flow_expired_total", "Flows whose time was up.")
	routes      = describe("routes", "Routes in the forwarding table, by kind.", "kind")
	peers       = describe("peers", "Other nodes that this node has routes to.")
	pods        = describe("pods", "Pods attached to this node.")
	ready       = describe("ready", "1 while the node carries pod traffic as configured.")
	stale       = describe("config_stale", "1 while the last reading of the source failed and older objects are in force.")
	busy        = describe("worker_busy_ratio", "Part of the last second that a worker had frames to handle.", "worker")
	burstSize   = describe("worker_burst_size", "Frames a worker received at once.", "worker")
	sleeps      = describe("worker_sleeps_total", "Times a worker waited for input.", "worker")
	bigFrames   = describe("worker_big_frames_total", "Frames that stand for many on a wire, and what was done: passed on whole, cut, or merged from segments.", "worker", "done")
	freeFrames  = describe("umem_free_frames", "Frames of a worker's memory that nobody holds.", "worker")
	allFrames   = describe("umem_frames", "Frames of a worker's memory.", "worker")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rxPackets, rxBytes, txPackets, txBytes, ringFull, drops, flows, flowCap, flowFails,
		flowRefused, flowEvicted, flowInserts, flowExpired,
		routes, peers, pods, ready, stale, busy, burstSize, sleeps, bigFrames, freeFrames, allFrames,
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
	gauge(ch, pods, float64(s.Pods))
	gauge(ch, ready, oneIf(s.Ready))
	gauge(ch, stale, oneIf(s.Stale))
	for i := range s.Workers {
		collectWorker(ch, &s.Workers[i])
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
	f := c.source.FlowStats()
	for state, n := range f.States {
		gauge(ch, flows, float64(n), state)
	}
	gauge(ch, flowCap, float64(f.Capacity))
	counter(ch, flowFails, f.InsertFailures)
	counter(ch, flowInserts, f.Inserts)
	counter(ch, flowExpired, f.Expired)
	for reason, n := range f.Refusals {
		counter(ch, flowRefused, n, reason)
	}
	for class, n := range f.Evictions {
		counter(ch, flowEvicted, n, class)
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
