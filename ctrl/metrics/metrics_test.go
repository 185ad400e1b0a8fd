package metrics

import (
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"culvert/ctrl/api/apitest"
)

const want = `
# HELP culvert_capture_missed_total Frames that captures did not keep because nobody read in time.
# TYPE culvert_capture_missed_total counter
culvert_capture_missed_total 17
# HELP culvert_captures Captures of frames that run.
# TYPE culvert_captures gauge
culvert_captures 2
# HELP culvert_config_stale 1 while the last reading of the source failed and older objects are in force.
# TYPE culvert_config_stale gauge
culvert_config_stale 0
# HELP culvert_conflicts What of the cluster's objects this node cannot carry out, by kind of object; 'culvert status' says what is wrong.
# TYPE culvert_conflicts gauge
culvert_conflicts{kind="BlockAffinity"} 0
culvert_conflicts{kind="ConfigMap"} 0
culvert_conflicts{kind="FelixConfiguration"} 0
culvert_conflicts{kind="IPAMBlock"} 0
culvert_conflicts{kind="IPPool"} 0
culvert_conflicts{kind="Node"} 1
# HELP culvert_drops_total Frames dropped, by reason and kind of port; 'culvert explain REASON' says what each means.
# TYPE culvert_drops_total counter
culvert_drops_total{kind="uplink",reason="tx_ring_full"} 3
culvert_drops_total{kind="veth",reason="no_route"} 13
# HELP culvert_flow_capacity Flows that the flow table can hold.
# TYPE culvert_flow_capacity gauge
culvert_flow_capacity 262144
# HELP culvert_flow_ends_total Flows that ended, by reason.
# TYPE culvert_flow_ends_total counter
culvert_flow_ends_total{reason="expired"} 5
culvert_flow_ends_total{reason="unroutable"} 1
# HELP culvert_flow_insert_failures_total Flows that were refused.
# TYPE culvert_flow_insert_failures_total counter
culvert_flow_insert_failures_total 2
# HELP culvert_flow_inserts_total Flows that were made.
# TYPE culvert_flow_inserts_total counter
culvert_flow_inserts_total 9
# HELP culvert_flow_refusals_total Flows that were refused, by reason: full, clash of the reply's addresses, limit of half-open flows.
# TYPE culvert_flow_refusals_total counter
culvert_flow_refusals_total{reason="limit"} 2
# HELP culvert_flows Flows in the flow table, by state.
# TYPE culvert_flows gauge
culvert_flows{state="established"} 1
culvert_flows{state="icmp"} 1
culvert_flows{state="udp"} 1
# HELP culvert_ipam_addresses Addresses of this node's pod CIDRs or blocks, by state: used, cooling (released a short while ago), free, reserved.
# TYPE culvert_ipam_addresses gauge
culvert_ipam_addresses{state="cooling"} 2
culvert_ipam_addresses{state="free"} 250
culvert_ipam_addresses{state="reserved"} 3
culvert_ipam_addresses{state="used"} 1
# HELP culvert_ipam_findings What does not fit of addresses, records, links and namespaces of this node's pods, by kind, as compared every five minutes; 'culvert ipam check' says what.
# TYPE culvert_ipam_findings gauge
culvert_ipam_findings{kind="no_netns"} 0
culvert_ipam_findings{kind="unowned"} 1
# HELP culvert_outer_errors_total ICMP errors from the underlay about tunnel packets to peers, by kind.
# TYPE culvert_outer_errors_total counter
culvert_outer_errors_total{error="port_unreachable"} 1
culvert_outer_errors_total{error="too_big"} 3
# HELP culvert_outer_fragmented_total Tunnel packets from peers that came in fragments.
# TYPE culvert_outer_fragmented_total counter
culvert_outer_fragmented_total 12
# HELP culvert_peers Other nodes that this node has routes to.
# TYPE culvert_peers gauge
culvert_peers 1
# HELP culvert_peers_path_mtu Peers whose path MTU is known from ICMP errors.
# TYPE culvert_peers_path_mtu gauge
culvert_peers_path_mtu 1
# HELP culvert_pods Pods attached to this node.
# TYPE culvert_pods gauge
culvert_pods 2
# HELP culvert_port_receive_bytes_total Bytes received on a port, Ethernet headers included.
# TYPE culvert_port_receive_bytes_total counter
culvert_port_receive_bytes_total{kind="uplink",port="eth0"} 180000
culvert_port_receive_bytes_total{kind="veth",port="cv0123456789a"} 50000
# HELP culvert_port_receive_packets_total Packets received on a port.
# TYPE culvert_port_receive_packets_total counter
culvert_port_receive_packets_total{kind="uplink",port="eth0"} 1200
culvert_port_receive_packets_total{kind="veth",port="cv0123456789a"} 500
# HELP culvert_port_transmit_bytes_total Bytes sent on a port, Ethernet headers included.
# TYPE culvert_port_transmit_bytes_total counter
culvert_port_transmit_bytes_total{kind="uplink",port="eth0"} 170000
culvert_port_transmit_bytes_total{kind="veth",port="cv0123456789a"} 60000
# HELP culvert_port_transmit_packets_total Packets sent on a port.
# TYPE culvert_port_transmit_packets_total counter
culvert_port_transmit_packets_total{kind="uplink",port="eth0"} 1100
culvert_port_transmit_packets_total{kind="veth",port="cv0123456789a"} 600
# HELP culvert_ready 1 while the node carries pod traffic as configured.
# TYPE culvert_ready gauge
culvert_ready 1
# HELP culvert_routes Routes in the forwarding table, by kind.
# TYPE culvert_routes gauge
culvert_routes{kind="blackhole"} 1
culvert_routes{kind="direct"} 1
culvert_routes{kind="ipip"} 1
culvert_routes{kind="local"} 1
culvert_routes{kind="pod"} 1
culvert_routes{kind="reject"} 1
culvert_routes{kind="vxlan"} 1
# HELP culvert_source_lists_total Times that all objects of a kind were read from the API server: once, and whenever it has forgotten what was seen last.
# TYPE culvert_source_lists_total counter
culvert_source_lists_total{kind="Node"} 2
# HELP culvert_source_objects Objects in force, by kind.
# TYPE culvert_source_objects gauge
culvert_source_objects{kind="ConfigMap"} 1
culvert_source_objects{kind="Node"} 3
# HELP culvert_source_watch_resumes_total Times that a watch of the API server ended and was taken up where it had been.
# TYPE culvert_source_watch_resumes_total counter
culvert_source_watch_resumes_total{kind="Node"} 5
# HELP culvert_umem_frames Frames of a worker's memory.
# TYPE culvert_umem_frames gauge
culvert_umem_frames{worker="0"} 16384
# HELP culvert_umem_free_frames Frames of a worker's memory that nobody holds.
# TYPE culvert_umem_free_frames gauge
culvert_umem_free_frames{worker="0"} 16000
# HELP culvert_worker_big_frames_total Frames that stand for many on a wire, and what was done: passed on whole, cut, or merged from segments.
# TYPE culvert_worker_big_frames_total counter
culvert_worker_big_frames_total{done="cut",worker="0"} 4
culvert_worker_big_frames_total{done="merged",worker="0"} 5
culvert_worker_big_frames_total{done="whole",worker="0"} 30
# HELP culvert_worker_burst_size Frames a worker received at once.
# TYPE culvert_worker_burst_size histogram
culvert_worker_burst_size_bucket{worker="0",le="1"} 10
culvert_worker_burst_size_bucket{worker="0",le="2"} 15
culvert_worker_burst_size_bucket{worker="0",le="4"} 17
culvert_worker_burst_size_bucket{worker="0",le="8"} 18
culvert_worker_burst_size_bucket{worker="0",le="16"} 18
culvert_worker_burst_size_bucket{worker="0",le="32"} 18
culvert_worker_burst_size_bucket{worker="0",le="64"} 21
culvert_worker_burst_size_bucket{worker="0",le="+Inf"} 21
culvert_worker_burst_size_sum{worker="0"} 150
culvert_worker_burst_size_count{worker="0"} 21
# HELP culvert_worker_busy_ratio Part of the last second that a worker had frames to handle.
# TYPE culvert_worker_busy_ratio gauge
culvert_worker_busy_ratio{worker="0"} 0.25
# HELP culvert_worker_fragmented_datagrams Datagrams in fragments of which not all have come.
# TYPE culvert_worker_fragmented_datagrams gauge
culvert_worker_fragmented_datagrams{worker="0"} 6
# HELP culvert_worker_fragmented_datagrams_forgotten_total Datagrams in fragments that were forgotten before all had come: to make room for others (evicted), or because they did not come in time (expired).
# TYPE culvert_worker_fragmented_datagrams_forgotten_total counter
culvert_worker_fragmented_datagrams_forgotten_total{why="evicted",worker="0"} 9
culvert_worker_fragmented_datagrams_forgotten_total{why="expired",worker="0"} 8
# HELP culvert_worker_held_fragments Fragments that wait for the first one of their datagram.
# TYPE culvert_worker_held_fragments gauge
culvert_worker_held_fragments{worker="0"} 2
# HELP culvert_worker_sleeps_total Times a worker waited for input.
# TYPE culvert_worker_sleeps_total counter
culvert_worker_sleeps_total{worker="0"} 7
# HELP culvert_xsk_ring_full_total Frames lost, or sends put off, because an AF_XDP ring had no room (rx, tx) or no free frame (fill); port intake is what pods share for receiving.
# TYPE culvert_xsk_ring_full_total counter
culvert_xsk_ring_full_total{port="cv0123456789a",ring="fill"} 0
culvert_xsk_ring_full_total{port="cv0123456789a",ring="rx"} 0
culvert_xsk_ring_full_total{port="cv0123456789a",ring="tx"} 0
culvert_xsk_ring_full_total{port="eth0",ring="fill"} 1
culvert_xsk_ring_full_total{port="eth0",ring="rx"} 0
culvert_xsk_ring_full_total{port="eth0",ring="tx"} 2
culvert_xsk_ring_full_total{port="intake",ring="fill"} 6
culvert_xsk_ring_full_total{port="intake",ring="rx"} 9
`

func TestCollected(t *testing.T) {
	c := &collector{source: apitest.New()}
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestContractNames holds the names that dashboards rely on.
func TestContractNames(t *testing.T) {
	m := New(apitest.New(), "v1", "dir", "underlay")
	m.Synced(2 * time.Millisecond)
	m.SyncError("dir")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{
		`culvert_port_receive_packets_total\{kind="uplink",port="eth0"\} 1200`, `culvert_port_transmit_packets_total\{`,
		`culvert_port_receive_bytes_total\{`, `culvert_port_transmit_bytes_total\{`,
		`culvert_drops_total\{kind="veth",reason="no_route"\}`, `culvert_flows\{state="udp"\}`, `culvert_flow_capacity `,
		`culvert_flow_insert_failures_total `, `culvert_routes\{kind="vxlan"\}`, `culvert_peers `, `culvert_conflicts\{kind="Node"\} 1`, `culvert_conflicts\{kind="IPPool"\} 0`, `culvert_pods `,
		`culvert_worker_busy_ratio\{worker="0"\}`, `culvert_worker_burst_size_bucket\{worker="0",le="64"\}`,
		`culvert_umem_free_frames\{worker="0"\}`, `culvert_xsk_ring_full_total\{port="eth0",ring="tx"\}`,
		`culvert_sync_duration_seconds_count 1`, `culvert_sync_errors_total\{source="dir"\} 1`,
		`culvert_sync_errors_total\{source="underlay"\} 0`, `culvert_config_stale 0`,
		`culvert_build_info\{goversion="go[^"]+",version="v1"\} 1`, `go_goroutines `, `process_resident_memory_bytes `,
	} {
		if !regexp.MustCompile("(?m)^" + pattern).Match(body) {
			t.Errorf("no line matches %s", pattern)
		}
	}
}

// TestGonePort: a port that goes takes its own counters along, never the sums.
func TestGonePort(t *testing.T) {
	a := apitest.New()
	m := New(a, "v1")
	a.PortList = nil
	a.State.Stale, a.State.Ready = true, false
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body := w.Body.String()
	for _, line := range []string{`culvert_drops_total{kind="veth",reason="no_route"} 13`, "culvert_config_stale 1", "culvert_ready 0"} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	if strings.Contains(body, "culvert_port_receive") {
		t.Error("a port that is gone is still published")
	}
	if w.Code != 200 {
		t.Errorf("status %d", w.Code)
	}
}
