package bulk

import (
	"reflect"
	"testing"
)

func TestDropDifference(t *testing.T) {
	got := since(map[string]uint64{"a": 5, "b": 2, "c": 1}, map[string]uint64{"a": 3, "b": 2})
	if want := map[string]uint64{"a": 2, "c": 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf([]byte(`{"start":{}, "end": {"sum_sent": {"bits_per_second": 9e9, "retransmits": 7},
		"sum_received": {"bits_per_second": 8.5e9}, "sender_tcp_congestion": "bbr"}}`))
	if err != nil || got != (transfer{Gbits: 8.5, Retransmits: 7, Congestion: "bbr"}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = parseIperf([]byte(`warning: UDP block size 1422 exceeds TCP MSS 1398
		{"end": {"sum_sent": {"bits_per_second": 9e9, "lost_percent": 0},
		"sum_received": {"bits_per_second": 6e9, "lost_percent": 33.5}}}`))
	if err != nil || got != (transfer{Gbits: 6, Lost: 0.335}) {
		t.Errorf("UDP: %+v, %v", got, err)
	}
	for _, bad := range []string{`{"error": "unable to connect"}`, `{"end": {}}`, `iperf3: no`} {
		if got, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}
