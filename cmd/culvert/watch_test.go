package main

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
)

func TestCompareReadings(t *testing.T) {
	f := apitest.New().FlowList[0]
	other := f
	other.Sport = 1
	changed := f
	changed.State = "FIN_WAIT"
	counted := f
	counted.Packets++
	for _, c := range []struct {
		name  string
		flows [][]api.Flow
		want  []string
	}{
		{"what was there makes no events", [][]api.Flow{{f}}, nil},
		{"counters make none", [][]api.Flow{{f}, {counted}}, nil},
		{"a new one", [][]api.Flow{{f}, {f, other}}, []string{"NEW"}},
		{"a first one", [][]api.Flow{{}, {f}}, []string{"NEW"}},
		{"a new state", [][]api.Flow{{f}, {changed}}, []string{"UPDATE"}},
		{"one that went", [][]api.Flow{{f}, {}}, []string{"DESTROY"}},
	} {
		var known map[flowKey]api.Flow
		var events []flowEvent
		for _, flows := range c.flows {
			known, events = compare(known, flows)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.Event)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEventLine(t *testing.T) {
	a := &app{}
	var b bytes.Buffer
	if err := a.printEvent(&b, &flowEvent{"NEW", apitest.New().FlowList[1]}); err != nil {
		t.Fatal(err)
	}
	want := "    [NEW] udp      17 29 src=10.244.1.2 dst=10.244.2.3 sport=5353 dport=53 packets=1 bytes=60 [UNREPLIED] " +
		"src=10.244.2.3 dst=10.244.1.2 sport=53 dport=5353 packets=0 bytes=0\n"
	if b.String() != want {
		t.Errorf("%q\nwant %q", &b, want)
	}
}

// TestWatchEnds: an interrupt is how a watch ends, and no error.
func TestWatchEnds(t *testing.T) {
	socket := serve(t, apitest.New())
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"flow", "watch", "--interval", "10ms", "--socket", socket}, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
