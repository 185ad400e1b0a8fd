package tcp

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/bench/sample"
)

// sampleReport has three rounds of the kernel and of a pair that is half as
// fast in each, with one and with eight connections.
func sampleReport() *Report {
	r := newReport(Options{Scenarios: standard[:1], Connections: []int{1, 8}, Rounds: 3, Seconds: 4})
	for i, rate := range []float64{10, 4, 8} {
		for _, n := range []int{1, 8} {
			r.Measurements = append(r.Measurements,
				Measurement{Scenario: "local", Pair: "kernel-kernel", Connections: n, Round: i + 1, Gbits: rate, Congestion: "cubic"},
				Measurement{
					Scenario: "local", Pair: "culvert-culvert", Connections: n, Round: i + 1, Gbits: rate / 2,
					Retransmits: 10 * i, AgentCores: 0.5, Drops: map[string]uint64{"tx_full": 2},
				})
		}
		r.Latencies = append(r.Latencies,
			Latency{Scenario: "local", Pair: "kernel-kernel", Round: i + 1, Sent: 10, Received: 10, MeanMicros: 10},
			Latency{Scenario: "local", Pair: "culvert-culvert", Round: i + 1, Sent: 10, Received: 9, MeanMicros: 30})
	}
	r.NotAvailable = []NotAvailable{{"local", "tap-tap", "no taps"}}
	r.summarise()
	return r
}

func TestSummary(t *testing.T) {
	r := sampleReport()
	var names []string
	for _, row := range r.Rows {
		names = append(names, row.Pair)
	}
	if got := strings.Join(names, " "); got != strings.TrimSpace(strings.Repeat("kernel-kernel culvert-culvert ", 3)) {
		t.Fatalf("rows are %s", got)
	}
	kernel, us, slow := r.Rows[0], r.Rows[1], r.Rows[5]
	if kernel.Ratio != nil || *kernel.Gbits != (Spread{8, 4, 10}) || kernel.Connections != 1 {
		t.Errorf("the kernel's row is %+v", kernel)
	}
	if *us.Ratio != (Spread{0.5, 0.5, 0.5}) || us.Retransmits != 10 || us.AgentCores != 0.5 || us.Drops["tx_full"] != 6 {
		t.Errorf("the pair's row is %+v", us)
	}
	if *slow.Ratio != (Spread{3, 3, 3}) || slow.Lost != 3 || *slow.Micros != (Spread{30, 30, 30}) {
		t.Errorf("the pair's latency is %+v", slow)
	}
}

// TestRatioNeedsBothRounds: a round that only one of the two has does not count.
func TestRatioNeedsBothRounds(t *testing.T) {
	k := key{"local", "culvert-culvert", 1}
	if got := ratioTo(k, byRound{1: 4, 2: 6}, byRound{2: 3}); *got != (Spread{2, 2, 2}) {
		t.Errorf("ratio is %+v", got)
	}
	if got := ratioTo(k, byRound{1: 4}, nil); got != nil {
		t.Errorf("ratio to nothing is %+v", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := sample.Median(c.values); got != c.want {
			t.Errorf("median of %v is %g, want %g", c.values, got, c.want)
		}
	}
}

func TestDropDifference(t *testing.T) {
	got := since(map[string]uint64{"a": 5, "b": 2, "c": 1}, map[string]uint64{"a": 3, "b": 2})
	if want := map[string]uint64{"a": 2, "c": 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWriteReport(t *testing.T) {
	r := sampleReport()
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"iperf3 (cubic)", "culvert-culvert      8", "0.50", "6 tx_full", "tap-tap is not available: no taps", "ping, µs"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	path := filepath.Join(t.TempDir(), "new", "report.json")
	if err := r.WriteJSON(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back.Rows[1], r.Rows[1]) || len(back.Measurements) != 12 {
		t.Errorf("%+v came back: %v", back, err)
	}
}

// TestEmptyReport: a run that was stopped early still reports.
func TestEmptyReport(t *testing.T) {
	r := newReport(Options{Scenarios: standard, Connections: []int{1}})
	r.summarise()
	if err := r.WriteTable(&bytes.Buffer{}); err != nil || len(r.Rows) > 0 {
		t.Errorf("%d rows: %v", len(r.Rows), err)
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf([]byte(`{"start":{}, "end": {"sum_sent": {"bits_per_second": 9e9, "retransmits": 7},
		"sum_received": {"bits_per_second": 8.5e9}, "sender_tcp_congestion": "bbr"}}`))
	if err != nil || got != (transfer{8.5, 7, "bbr"}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{`{"error": "unable to connect"}`, `{"end": {}}`, `iperf3: no`} {
		if got, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func TestParsePing(t *testing.T) {
	got, err := parsePing("\n200 packets transmitted, 199 received, 0.5% packet loss, time 4ms\n" +
		"rtt min/avg/max/mdev = 0.008/0.017/0.083/0.004 ms, ipg/ewma 0.024/0.015 ms\n")
	if err != nil || got != (echoes{200, 199, 17}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parsePing("3 packets transmitted, 0 received, 100% packet loss"); err == nil {
		t.Error("nothing received: no error")
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct{ scenarios, pairs, pods, want string }{
		{"", "", "veth", "local: kernel-kernel culvert-culvert; " +
			"gso-wire: kernel-kernel culvert-culvert culvert-kernel kernel-culvert; mtu-wire: kernel-kernel culvert-culvert culvert-kernel kernel-culvert"},
		{"mtu-wire-gro,local", "tap-tap,kernel-tap", "veth,tap", "mtu-wire-gro: tap-tap kernel-tap; local: tap-tap"},
		{"local", "kernel-kernel", "veth", "local: kernel-kernel"},
		{"local-mixed", "", "veth,tap", "local-mixed: kernel-kernel culvert-tap tap-culvert"},
	} {
		chosen, err := Choose(c.scenarios, c.pairs, c.pods)
		var parts []string
		for _, s := range chosen {
			part := s.Name + ":"
			for _, p := range s.Pairs {
				part += " " + p.String()
			}
			parts = append(parts, part)
		}
		if got := strings.Join(parts, "; "); err != nil || got != c.want {
			t.Errorf("%+v gave %s: %v", c, got, err)
		}
	}
	for _, bad := range [][3]string{{"loopback", "", "veth"}, {"", "kernel", "veth"}, {"", "", "ipvlan"}, {"local", "tap-tap", "veth"}, {"local-mixed", "", "tap"}} {
		if got, err := Choose(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
}

// TestRefusals checks that a run with senseless options does not begin.
func TestRefusals(t *testing.T) {
	good := Options{Scenarios: []Scenario{{"local", NoWire, []Pair{baseline}}}, Connections: []int{1}, Rounds: 1, Seconds: 1}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no scenario":   func(o *Options) { o.Scenarios = nil },
		"connections":   func(o *Options) { o.Connections = []int{1, 0} },
		"no round":      func(o *Options) { o.Rounds = 0 },
		"long":          func(o *Options) { o.Seconds = int(time.Hour / time.Second) },
		"no warm-up":    func(o *Options) { o.Scenarios = []Scenario{{"mtu-wire", MTU, []Pair{baseline}}} },
		"two in one":    func(o *Options) { o.Scenarios = []Scenario{{"local", NoWire, []Pair{{Kernel, Tap}}}} },
		"missing files": func(o *Options) { o.Scenarios, o.Bin = standard, t.TempDir() },
	} {
		o := good
		change(&o)
		if _, err := Run(stopped, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
